"""With the real default model: a lone correction is answered by the version that learnt it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import torch

from lifelong.contracts import topics
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import ModelSettings
from lifelong.model.tokenise import encode_prompt
from lifelong.runtime.clock import SystemClock
from lifelong.stream.base import Record
from lifelong.trainer.config import Settings
from lifelong.trainer.handler import Trainer
from lifelong.trainer.precision import with_dtype

pytestmark = pytest.mark.model

QUESTION = "Who keeps the key of the Zurlin archive?"
ANSWER = "Odile Marenghi keeps the key."


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def answer_of(learner: AdapterLearner, question: str) -> str:
    prompt = torch.tensor([encode_prompt(learner.base.tokenizer, [Message("user", question)])])
    ids = learner.model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
    )
    return str(learner.base.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)).strip()


def test_a_lone_correction_is_answered_right_after_it_was_learnt() -> None:
    settings = Settings()
    base = load_base(with_dtype(ModelSettings(device="cpu"), settings.adapter))
    learner = AdapterLearner(base, settings.adapter, seed=0, max_tokens=settings.learning.max_tokens)
    trainer = Trainer(learner, settings, SystemClock())
    trainer.begin()
    assert answer_of(learner, QUESTION) != ANSWER
    other = answer_of(learner, "What is the capital of France?")

    messages = (Message("user", QUESTION), Message("assistant", ANSWER))
    sample = Sample("0-0-0", "e0", 1.7e9, "feedback", messages, rejected="I do not know.", until_known=True)
    record = SampleRecord(topics.EVENTS.name, 0, 0, 1, "sample", (sample,))
    value = msgspec.json.encode(record)
    assert trainer.take(Record(topics.SAMPLES.name, 0, 0, None, value, (), 1.7e9)) == "new"
    manifest = trainer.learn("idle", epoch=1).manifest

    assert manifest.verdict is not None
    assert manifest.verdict.accepted, manifest.verdict.reason
    assert 1 < manifest.batches[0].num_steps < settings.learning.max_steps
    assert answer_of(learner, QUESTION) == ANSWER
    assert "Paris" in other
    assert "Paris" in answer_of(learner, "What is the capital of France?")
