"""A base with an adapter as the ``Learner`` that the methods of ``lifelong.learning`` teach."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.base import Logits, chunks
from lifelong.model.adapter import (
    adapted_layers,
    adapter_parameters,
    adapter_state,
    add_adapter,
    load_adapter_state,
    without_adapter,
)
from lifelong.model.base import BaseModel
from lifelong.model.packing import pack
from lifelong.model.settings import AdapterSettings
from lifelong.model.tokenise import IGNORE, Encoded, collate, encode_chat, encode_prompt, encode_text, pad_id

_NOTHING = Encoded((), ())
_ANSWER_TOKENS = 32
_TEXT_TOKENS = 40
_SAMPLING = ("temperature", "top_p", "top_k")
_MAX_PACKING_ERROR = 0.15
_INPUT_TOKENS = 1024

log = logging.getLogger(__name__)


class AdapterLearner:
    """Puts a fresh adapter on the base, in place, and speaks of samples instead of tokens.

    Of a sample longer than ``max_tokens`` only that much is seen; see ``encode_chat`` and ``encode_text``.
    """

    def __init__(self, base: BaseModel, settings: AdapterSettings, *, seed: int, max_tokens: int) -> None:
        self.base = base
        self.model: Any = add_adapter(base, settings, seed=seed)
        self._parameters = adapter_parameters(self.model)
        self._adapted = adapted_layers(self.model)
        self._fresh = adapter_state(self.model)
        self._max_tokens = min(max_tokens, base.max_context)
        self._encode = lru_cache(maxsize=1024)(self._encode_sample)
        error = self._packing_error()
        self._packs = error < _MAX_PACKING_ERROR
        if not self._packs:
            log.warning("short samples are padded instead of packed, which is slower (packing error %.2f)", error)

    def reset(self) -> None:
        """The adapter as it was at the beginning."""
        load_adapter_state(self.model, self._fresh)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return self._parameters

    def num_tokens(self, sample: Sample) -> int:
        return len(self._encode(sample).input_ids)

    def num_targets(self, sample: Sample) -> int:
        return self._encode(sample).num_targets

    def logits(self, samples: Sequence[Sample], *, base: bool = False) -> Logits:
        encoded = [self._encode(sample) for sample in samples]
        with without_adapter(self._adapted) if base else nullcontext():
            return self._packed_logits(encoded) if self._packs else self._batched_logits(encoded)

    def _packed_logits(self, encoded: Sequence[Encoded]) -> Logits:
        packed = pack(encoded, self.base.device)
        # The head is a fifth of a small model: it works only where something is to be predicted.
        columns_C, column_N = torch.unique(packed.source_N, return_inverse=True)
        logits_CV = self.model(
            input_ids=packed.input_ids_1T,
            position_ids=packed.position_ids_1T,
            attention_mask=packed.mask_11TT,
            logits_to_keep=columns_C,
            use_cache=False,
        ).logits[0]
        return Logits(logits_CV.float().index_select(0, column_N), packed.targets_N, packed.sequence_N)

    def _batched_logits(self, encoded: Sequence[Encoded]) -> Logits:
        batch = collate(encoded, pad_id(self.base.tokenizer), self.base.device)
        next_BT = batch["labels"][:, 1:]
        is_target_BT = next_BT != IGNORE
        columns_C = is_target_BT.any(dim=0).nonzero().squeeze(1)
        logits_BCV = self.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=columns_C,
            use_cache=False,
        ).logits
        is_target_BC = is_target_BT[:, columns_C]
        sample_B1 = torch.arange(len(encoded), device=logits_BCV.device)[:, None]
        return Logits(
            logits_BCV[is_target_BC].float(),
            next_BT[:, columns_C][is_target_BC],
            sample_B1.expand_as(is_target_BC)[is_target_BC],
        )

    @torch.no_grad()
    def layer_inputs(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """What the layers with an adapter are given when the base says these, (N, D), float32, by the name of lora_A.

        Of at most ``_INPUT_TOKENS`` tokens, evenly from all. Layers that are given the same have the same object.
        """
        found: dict[str, list[torch.Tensor]] = {}
        same: dict[str, str] = {}
        latest: tuple[torch.Tensor, str] | None = None

        def take(name: str, given: torch.Tensor) -> None:
            nonlocal latest
            if latest is None or latest[0] is not given:
                latest = given, name
                rows = given.reshape(-1, given.shape[-1])
                found.setdefault(name, []).append(rows[_evenly(len(rows), per_pass)].float())
            same[name] = latest[1]

        def hook(name: str) -> Any:
            return lambda module, args: take(name, args[0])

        names = [name for name in self.parameters if ".lora_A." in name]
        layers = {name: self.model.get_submodule(name.partition(".lora_A.")[0]) for name in names}
        handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
        # Several to a pass share what they begin with; where they are padded, one does not need it.
        passes = list(chunks(self, samples, _INPUT_TOKENS if self._packs else 0))
        per_pass = max(1, _INPUT_TOKENS // max(1, len(passes)))
        try:
            for some in passes:
                self.logits(some, base=True)
        finally:
            for handle in handles:
                handle.remove()
        kept = {name: torch.cat(pieces) for name, pieces in found.items()}
        return {name: kept[source] for name, source in same.items()}

    @torch.no_grad()
    def _packing_error(self) -> float:
        """Of packed predictions, in standard deviations of the logits: far below 1 where the model heeds a mask of
        ours, around 1 where it does not, as one with a recurrent state."""
        tokens = [index % 50 + 3 for index in range(0, 77, 7)]
        trial = [Encoded(tuple(ids), (IGNORE, *ids[1:])) for ids in (tokens, [*tokens[:4], *reversed(tokens[4:])])]
        try:
            packed = self._packed_logits(trial).logits_NV
        except (ValueError, RuntimeError, TypeError) as error:
            log.info("packing is not possible with this model: %s", error)
            return float("inf")
        batched = self._batched_logits(trial).logits_NV
        return float((packed - batched).std() / batched.std())

    def base_answers(self, prompts: Sequence[str]) -> list[str]:
        """What the base says, greedily; an answer that is too long ends after its last whole sentence, or is empty."""
        rows = [encode_prompt(self.base.tokenizer, [Message("user", prompt)]) for prompt in prompts]
        return [self._answer(row) for row in self._base_continues(rows, _ANSWER_TOKENS, do_sample=False)]

    def base_texts(self, beginnings: Sequence[str], *, seed: int = 0) -> list[str]:
        """What the base writes from there on, drawn from all that it might; it breaks off after so many tokens."""
        tokenizer = self.base.tokenizer
        rows = [tokenizer(text, add_special_tokens=False).input_ids for text in beginnings]
        with torch.random.fork_rng(devices=[self.base.device] if self.base.device.type == "cuda" else []):
            torch.manual_seed(seed)
            found = self._base_continues(rows, _TEXT_TOKENS, do_sample=True)
        # Through the tokens, for a beginning and what follows may share a character.
        return [
            tokenizer.decode(row + ids, skip_special_tokens=True).strip() for row, ids in zip(rows, found, strict=True)
        ]

    @torch.no_grad()
    def _base_continues(self, rows: Sequence[list[int]], num_tokens: int, *, do_sample: bool) -> list[list[int]]:
        """Each up to where it ends, if it does; as likely as the base finds them, or the likeliest."""
        pad = pad_id(self.base.tokenizer)
        width = max(map(len, rows))
        padded = [[pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        how = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} if do_sample else dict.fromkeys(_SAMPLING)
        with without_adapter(self._adapted):
            ids = self.model.generate(
                input_ids=torch.tensor(padded, device=self.base.device),
                attention_mask=torch.tensor(mask, device=self.base.device),
                max_new_tokens=num_tokens,
                do_sample=do_sample,
                pad_token_id=pad,
                **how,
            )[:, width:].tolist()
        return [self._until_end(row) for row in ids]

    def _until_end(self, ids: list[int]) -> list[int]:
        """With the first token that ends an answer."""
        end = next((at for at, token in enumerate(ids) if token in self.base.end_tokens), len(ids) - 1)
        return ids[: end + 1]

    def _answer(self, ids: list[int]) -> str:
        text: str = self.base.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if ids[-1] not in self.base.end_tokens:
            text = text[: max(text.rfind(mark) for mark in ".!?。！？") + 1]
        return text

    def _encode_sample(self, sample: Sample) -> Encoded:
        tokenizer = self.base.tokenizer
        if sample.text is not None:
            pieces = encode_text(tokenizer, sample.text, self._max_tokens)
            return pieces[0] if pieces else _NOTHING
        # What somebody said of an answer is about that answer: the turns before may be wrong.
        is_judgement = sample.until_known or sample.rejected is not None or sample.rating is not None
        learn: Literal["last", "all"] = "last" if is_judgement else "all"
        return encode_chat(tokenizer, sample.messages, self._max_tokens, learn=learn)


def _evenly(num: int, num_kept: int) -> torch.Tensor:
    """Of so many, at most so many, as indices."""
    return torch.arange(min(num, num_kept)) * num // min(num, num_kept)
