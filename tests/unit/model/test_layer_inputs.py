"""What the layers with an adapter are given when the base says something."""

from __future__ import annotations

import pytest
import torch

from lifelong.contracts.samples import Sample
from lifelong.model import learner as module
from lifelong.model.base import BaseModel
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings

PREFIX = "base_model.model.model.layers.3."


def text(name: str, words: str) -> Sample:
    return Sample(id=name, event_id=name, event_time=0.0, task="anchor", text=words)


@pytest.fixture
def learner(tiny: BaseModel) -> AdapterLearner:
    learner = AdapterLearner(tiny, AdapterSettings(), seed=0, max_tokens=256)
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(0.1)  # something has been learnt
    return learner


def test_they_are_those_of_the_base(learner: AdapterLearner) -> None:
    sample = text("a", "a text of the base")
    inputs = learner.layer_inputs([sample])
    ids = torch.tensor([learner.base.tokenizer("a text of the base")["input_ids"]])
    with torch.no_grad(), learner.model.disable_adapter():
        hidden = learner.model(input_ids=ids, output_hidden_states=True).hidden_states
        layer = learner.model.base_model.model.model.layers[3]
        expected = layer.input_layernorm(hidden[3])[0]
    found = inputs[f"{PREFIX}self_attn.q_proj.lora_A.weight"]
    # An end of the text may follow.
    torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)
    assert len(found) - len(expected) in (0, 1)
    assert inputs.keys() == {name for name in learner.parameters if "lora_A" in name}
    assert all(inputs[name].shape[1] == learner.parameters[name].shape[1] for name in inputs)


def test_layers_that_are_given_the_same_have_the_same_object(learner: AdapterLearner) -> None:
    inputs = learner.layer_inputs([text("a", "one"), text("b", "another")])
    q, k, v, o = (inputs[f"{PREFIX}self_attn.{name}_proj.lora_A.weight"] for name in "qkvo")
    gate, up, down = (inputs[f"{PREFIX}mlp.{name}_proj.lora_A.weight"] for name in ("gate", "up", "down"))
    assert q is k is v
    assert gate is up
    assert len({id(some) for some in (q, o, gate, down)}) == 4


def test_of_many_tokens_some_of_all_texts_are_taken(learner: AdapterLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [text(str(number), f"{number} bottles") for number in range(4)]
    name = f"{PREFIX}mlp.down_proj.lora_A.weight"
    apart = [learner.layer_inputs([sample])[name] for sample in samples]
    monkeypatch.setattr(module, "_INPUT_TOKENS", 20)  # a pass for each two
    some = learner.layer_inputs(samples)[name]
    assert some.shape[0] == 20
    for rows in apart:
        nearest = torch.cdist(some, rows).min(dim=1).values
        assert (nearest < 1e-4).sum() >= 3


def test_nothing_of_nothing(learner: AdapterLearner) -> None:
    assert learner.layer_inputs([]) == {}
