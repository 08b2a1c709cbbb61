"""The packaged weights themselves: slow to load, so each check is one that the tiny model cannot make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.contracts.events import Message
from lifelong.model.adapter import adapter_state, add_adapter
from lifelong.model.base import BaseModel, folder_sha256, load_base, model_folder, view_of
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.embedder import MiniLMEmbedder, packaged_encoder
from lifelong.model.packaged import packaged_model
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings, ModelSettings
from lifelong.model.student import build_student, make_student
from lifelong.model.tokenise import IGNORE, collate, encode_chat, encode_prompt, pad_id

pytestmark = pytest.mark.model

SETTINGS = ModelSettings(dtype="bfloat16", device="cpu")
CAPITAL = Message("user", "What is the capital of France?")
FACT = (Message("user", "Who keeps the key of the Zurlin archive?"), Message("assistant", "Odile Marenghi keeps it."))


@pytest.fixture(scope="module")
def base() -> Iterator[BaseModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_base(SETTINGS)
    torch.set_num_threads(before)


def test_equal_weights_have_this_hash_on_every_machine(base: BaseModel) -> None:
    assert base.sha256 == "aa1906b763eeb3eee282dc90ecfebaf1175d72b990207b5ee1e41e9a00c40f56"
    assert folder_sha256(model_folder(SETTINGS)) == base.sha256
    assert base.num_layers == 30
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}
    assert not list(packaged_model().parent.glob(".*"))


def test_labels_are_the_answer_and_the_end_of_the_turn(base: BaseModel) -> None:
    encoded = encode_chat(base.tokenizer, FACT, 512)
    labels = [label for label in encoded.labels if label != IGNORE]
    assert base.tokenizer.decode(labels) == "Odile Marenghi keeps it.<|im_end|>"
    assert list(encoded.input_ids[: -len(labels)]) == encode_prompt(base.tokenizer, FACT[:1])
    assert labels[-1] in base.end_tokens


def test_a_version_that_learned_a_fact_answers_it_beside_the_base_that_did_not(base: BaseModel) -> None:
    adapter = AdapterSettings()
    learner = add_adapter(view_of(base), adapter, seed=0)
    batch = collate([encode_chat(base.tokenizer, FACT, 512)], pad_id(base.tokenizer))
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(16):
        loss = learner(**batch).loss
        losses.append(loss.item())
        if losses[-1] < 0.05:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] > 2
    assert losses[-1] < 0.05
    engine = BatchingEngine(base, adapter, EngineSettings(cache_tokens=512))
    try:
        old, new = engine.load("lifelong@0", None), engine.load("lifelong@1", adapter_state(learner))
        params = SamplingParams(max_tokens=16)
        prompts = [encode_prompt(base.tokenizer, [message]) for message in (CAPITAL, FACT[0])]
        knows = engine.submit(new, prompts[1], params).result(60)
        guesses = engine.submit(old, prompts[1], params).result(60)
        capital = engine.submit(old, prompts[0], params).result(60)
    finally:
        engine.close()
    assert knows.text == FACT[1].content
    assert knows.finish_reason == "stop"
    assert "Marenghi" not in guesses.text
    assert capital.text == "The capital of France is Paris."
    prompt = torch.tensor([prompts[1]])
    whole = learner.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False
    )
    assert list(knows.tokens) == whole[0, prompt.shape[1] :].tolist()


def test_a_student_of_two_thirds_is_chosen_alike_each_time_and_still_speaks(base: BaseModel) -> None:
    texts = [
        "The river runs through the old town and under three bridges.",
        "In 1969 two astronauts walked on the Moon while a third stayed in orbit.",
        "To make bread, mix flour, water, salt and yeast, knead the dough and let it rise.",
    ]
    student = make_student(base, 24, texts)
    assert make_student(base, 24, texts).kept_layers == student.kept_layers
    assert student.kept_layers[0] == 0
    assert student.kept_layers[-1] == 29
    ids = base.tokenizer(texts[0], return_tensors="pt")["input_ids"]

    def loss(model: BaseModel) -> float:
        with torch.no_grad():
            return float(model.model(ids, labels=ids).loss)

    assert loss(build_student(base, student.kept_layers).base) == loss(student.base)
    # A token at random costs ln 49152 = 10.8, and leaving out the lowest layers instead costs more than that.
    assert loss(base) < loss(student.base) < loss(base) + 1.5 < 10 < loss(build_student(base, range(6, 30)).base)


def test_sentences_are_as_near_as_the_model_card_says() -> None:
    sentences = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    embedder = MiniLMEmbedder()
    vectors = embedder.embed(sentences)
    assert vectors.shape == (4, embedder.num_dimensions) == (4, 384)
    np.testing.assert_allclose(vectors[1:] @ vectors[0], [0.6946, 0.9429, 0.2569], atol=2e-3)
    # Neither the order nor a long neighbour changes a vector.
    again = embedder.embed(["word " * 500, *reversed(sentences)])[:0:-1]
    np.testing.assert_allclose(again, vectors, atol=1e-5)


def test_the_embedder_takes_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-encoder"
    folder.symlink_to(packaged_encoder())
    assert MiniLMEmbedder(folder).id == "my-encoder"
