from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong.contracts.events import Message
from lifelong.model.base import BaseModel
from lifelong.model.tiny import byte_tokenizer
from lifelong.model.tokenise import IGNORE, Encoded, collate, encode_chat, encode_prompt, encode_text, pad_id

TOKENIZER = byte_tokenizer()
DIALOGUE = (
    Message("system", "Be brief."),
    Message("user", "Capital of Peru?"),
    Message("assistant", "Lima."),
    Message("user", "And of 秘鲁's neighbour?"),
    Message("assistant", "Quito 🙂"),
)


def _learned(encoded: Encoded, tokenizer: Any = TOKENIZER) -> str:
    text: str = tokenizer.decode([label for label in encoded.labels if label != IGNORE])
    return text


def test_the_last_answer_and_its_end_are_learned() -> None:
    encoded = encode_chat(TOKENIZER, DIALOGUE, 1000)
    assert _learned(encoded) == "Quito 🙂<|im_end|>"
    assert encoded.input_ids[-1] == TOKENIZER.eos_token_id
    assert len(encoded.labels) == len(encoded.input_ids)
    assert all(label in (IGNORE, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))


def test_all_answers_are_learned_when_asked() -> None:
    encoded = encode_chat(TOKENIZER, DIALOGUE, 1000, learn="all")
    assert _learned(encoded) == "Lima.<|im_end|>Quito 🙂<|im_end|>"
    assert encoded.input_ids == encode_chat(TOKENIZER, DIALOGUE, 1000).input_ids


def test_what_is_learned_follows_exactly_the_prompt_that_is_answered() -> None:
    encoded = encode_chat(TOKENIZER, DIALOGUE, 1000)
    prompt = encode_prompt(TOKENIZER, DIALOGUE[:-1])
    assert list(encoded.input_ids[: len(prompt)]) == prompt
    assert set(encoded.labels[: len(prompt)]) == {IGNORE}
    assert IGNORE not in encoded.labels[len(prompt) :]


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=4))
def test_labels_decode_to_the_answers_for_any_text(turns: list[tuple[str, str]]) -> None:
    messages = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    encoded = encode_chat(TOKENIZER, messages, 10_000, learn="all")
    assert _learned(encoded) == "".join(answer + "<|im_end|>" for _, answer in turns)


def test_a_template_that_adds_a_system_turn_or_begins_with_a_special_token_is_followed() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "<|im_start|>{% if messages[0]['role'] != 'system' %}be good {% endif %}{% for m in messages %}"
        "{{ '[' + m['role'] + '] ' + m['content'].strip() + ' ' }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    encoded = encode_chat(tokenizer, [Message("user", "hi"), Message("assistant", "  yes ")], 1000)
    assert _learned(encoded, tokenizer) == "yes <|im_end|>"
    assert tokenizer.decode(encoded.input_ids) == "<|im_start|>be good [user] hi [assistant] yes <|im_end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused_for_all_turns_only() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}{% else %}(gone){% endif %}"
        "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    with pytest.raises(ValueError, match="rewrites earlier turns"):
        encode_chat(tokenizer, DIALOGUE, 1000, learn="all")


def test_without_an_answer_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no assistant turn"):
        encode_chat(TOKENIZER, [Message("user", "hi")], 100)


def test_the_oldest_tokens_go_first() -> None:
    whole = encode_chat(TOKENIZER, DIALOGUE, 1000)
    cut = encode_chat(TOKENIZER, DIALOGUE, 40)
    assert cut.input_ids == whole.input_ids[-40:]
    assert _learned(cut) == "Quito 🙂<|im_end|>"


def test_of_an_answer_that_is_too_long_the_end_goes() -> None:
    cut = encode_chat(TOKENIZER, [Message("user", "q" * 50), Message("assistant", "a" * 100)], 40)
    assert len(cut.input_ids) == 40
    assert _learned(cut) == "a" * 30


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 19, 20, 55])
def test_every_token_of_a_document_but_the_first_is_predicted_once(length: int) -> None:
    text = "".join(chr(97 + index % 26) for index in range(length))
    pieces = encode_text(TOKENIZER, text, 10)
    assert all(len(piece.input_ids) <= 10 for piece in pieces)
    assert "".join(_learned(piece) for piece in pieces) == text[1:]
    assert sum(piece.num_targets for piece in pieces) == length - 1


def test_an_empty_document_has_no_pieces() -> None:
    assert encode_text(TOKENIZER, "", 10) == []


def test_a_padded_batch_gives_each_row_its_own_logits(tiny: BaseModel) -> None:
    rows = [
        encode_chat(tiny.tokenizer, DIALOGUE, 1000),
        encode_chat(tiny.tokenizer, DIALOGUE[:3], 1000),
    ]
    batch = collate(rows, pad_id(tiny.tokenizer))
    assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(batch, torch.int64)
    together = tiny.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for index, row in enumerate(rows):
        alone = tiny.model(torch.tensor([row.input_ids])).logits[0]
        torch.testing.assert_close(together[index, : len(row.input_ids)], alone, atol=1e-4, rtol=1e-4)
    assert batch["labels"][1][len(rows[1].labels) :].eq(IGNORE).all()
