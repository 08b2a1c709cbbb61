"""From messages and texts to token ids and labels.

A label is the token id at the same place, or ``IGNORE`` where nothing is to be learned; the model shifts them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec
import torch

IGNORE = -100


class Message(Protocol):
    """Any object with these two: the messages of events, samples and requests."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


class Encoded(msgspec.Struct, frozen=True):
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_targets(self) -> int:
        """Tokens that the loss is over: the first has nothing before it to be predicted from."""
        return sum(label != IGNORE for label in self.labels[1:])


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The tokens after which the model answers."""
    return _ids(tokenizer, _render(tokenizer, messages, answer_next=True))


def encode_chat(
    tokenizer: Any, messages: Sequence[Message], max_tokens: int, *, learn: Literal["last", "all"] = "last"
) -> Encoded:
    """A dialogue of which the last, or every, assistant turn is learned: its content and the token that ends the turn.

    The turns are found by rendering the dialogue up to just before and just after each, so any chat template will do
    that only appends. Each turn is tokenised apart from what precedes it, as it is when the model answers. Of a
    dialogue that is too long, the oldest tokens go; if the last answer alone is too long, its end goes, and a quarter
    of the room stays for what it answers.

    Raises:
        ValueError: no assistant turn, or a template that rewrites earlier turns.
    """
    turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not turns:
        raise ValueError("no assistant turn to learn")
    if learn == "last":
        turns = turns[-1:]
    ends = frozenset(tokenizer.all_special_ids)
    input_ids: list[int] = []
    labels: list[int] = []
    rendered = ""
    last_answer = 0
    for index in turns:
        prompt = _continue(rendered, _render(tokenizer, messages[:index], answer_next=True), tokenizer)
        whole = _continue(rendered + prompt, _render(tokenizer, messages[: index + 1], answer_next=False), tokenizer)
        prompt_ids, answer_ids = _ids(tokenizer, prompt), _ids(tokenizer, whole)
        # What the template puts after the end of the turn, mostly a line break, is never generated.
        end = max((at for at, token in enumerate(answer_ids) if token in ends), default=len(answer_ids) - 1) + 1
        last_answer = len(input_ids) + len(prompt_ids)
        input_ids += prompt_ids + answer_ids
        labels += [IGNORE] * len(prompt_ids) + answer_ids[:end] + [IGNORE] * (len(answer_ids) - end)
        rendered += prompt + whole
    while labels[-1] == IGNORE:
        del labels[-1], input_ids[-1]
    start = min(max(0, len(labels) - max_tokens), max(0, last_answer - max_tokens // 4))
    window = slice(start, start + max_tokens)
    return Encoded(tuple(input_ids[window]), tuple(labels[window]))


def encode_text(tokenizer: Any, text: str, max_tokens: int) -> list[Encoded]:
    """A document in pieces of at most ``max_tokens``; every token is learned but the first of the document.

    Pieces overlap by one token, so that the first of a piece is predicted too, once.
    """
    assert max_tokens > 1
    ids = _ids(tokenizer, text)
    pieces = []
    for start in range(0, max(len(ids) - 1, 1), max_tokens - 1):
        piece = tuple(ids[start : start + max_tokens])
        pieces.append(Encoded(piece, (IGNORE, *piece[1:])))
    return pieces if ids else []


def collate(batch: Sequence[Encoded], pad_id: int, device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels``, each int64 [B, T], padded on the right."""
    length = max(len(encoded.input_ids) for encoded in batch)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for encoded in batch:
        num_real = len(encoded.input_ids)
        num_padding = length - num_real
        rows["input_ids"].append([*encoded.input_ids, *[pad_id] * num_padding])
        rows["attention_mask"].append([1] * num_real + [0] * num_padding)
        rows["labels"].append([*encoded.labels, *[IGNORE] * num_padding])
    return {name: torch.tensor(values, dtype=torch.int64, device=device) for name, values in rows.items()}


def pad_id(tokenizer: Any) -> int:
    """Masked everywhere, so any token will do where the tokenizer names none."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _ids(tokenizer: Any, text: str) -> list[int]:
    # The template writes the special tokens itself.
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _render(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool) -> str:
    plain = [{"role": message.role, "content": message.content} for message in messages]
    text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer_next)
    return text


def _continue(before: str, after: str, tokenizer: Any) -> str:
    if not after.startswith(before):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} rewrites earlier turns: learn the last turn only, or "
            "use a template that appends"
        )
    return after[len(before) :]
