from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lifelong.model.adapter import adapter_state, add_adapter
from lifelong.model.base import BaseModel, decoder_layers
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.hashing import weights_sha256
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings
from lifelong.model.student import angular_distances, build_student, make_student
from lifelong.model.tiny import tiny_random_model

TEXTS = ["The cat sat on the mat.", "Rain fell in the night.", "", "Numbers: 1, 2, 3."]
IDS = torch.tensor([[5, 9, 70, 41, 8, 100]])


@pytest.fixture
def six_layers(tmp_path: Path) -> BaseModel:
    return tiny_random_model(0, tmp_path / "six", num_layers=6)


def _mute(base: BaseModel, layer: int) -> None:
    """A layer that adds nothing to what it is given."""
    block = decoder_layers(base)[1].get_submodule(str(layer))
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        block.get_submodule(name).weight.data.zero_()


def test_layers_that_do_nothing_are_the_ones_left_out(six_layers: BaseModel) -> None:
    _mute(six_layers, 2)
    _mute(six_layers, 3)
    before = six_layers.model(IDS).logits
    student = make_student(six_layers, 4, TEXTS)
    assert student.kept_layers == (0, 1, 4, 5)
    assert student.base.num_layers == 4
    torch.testing.assert_close(student.base.model(IDS).logits, before)
    assert six_layers.num_layers == 6
    assert torch.equal(six_layers.model(IDS).logits, before)


def test_distances_are_angles_of_what_enters_and_leaves(six_layers: BaseModel) -> None:
    hidden = six_layers.model(
        torch.tensor([six_layers.tokenizer(TEXTS[0])["input_ids"]]), output_hidden_states=True
    ).hidden_states
    angles = [
        math.acos(float(enters @ leaves / enters.norm() / leaves.norm()))
        for enters, leaves in zip(hidden[1][0, 1:], hidden[3][0, 1:], strict=True)
    ]
    distances = angular_distances(six_layers, 2, TEXTS[:1])
    assert len(distances) == 4
    assert distances[1] == pytest.approx(sum(angles) / len(angles) / math.pi, rel=1e-4)


def test_the_same_layers_make_the_same_student_on_the_tensors_of_the_base(six_layers: BaseModel) -> None:
    made = make_student(six_layers, 3, TEXTS)
    again = build_student(six_layers, made.kept_layers)
    assert again.base.sha256 == made.base.sha256 != six_layers.sha256
    assert torch.equal(made.base.model(IDS).logits, again.base.model(IDS).logits)
    theirs = {parameter.data_ptr() for parameter in six_layers.model.parameters()}
    assert {parameter.data_ptr() for parameter in made.base.model.parameters()} < theirs
    assert build_student(six_layers, (0, 1, 2, 5)).base.name.endswith("[0-2,5]")


def test_a_student_with_its_cache_generates_what_it_does_without(six_layers: BaseModel) -> None:
    student = build_student(six_layers, (0, 1, 4, 5)).base
    whole = student.model.generate(
        input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=20, do_sample=False
    )
    with torch.no_grad():
        chosen = student.model(whole, use_cache=False).logits[0, IDS.shape[1] - 1 : -1].argmax(-1)
    assert whole[0, IDS.shape[1] :].tolist() == chosen.tolist()


def test_a_student_learns_and_is_served_beside_its_teacher(six_layers: BaseModel) -> None:
    adapter = AdapterSettings(rank=2, fraction=1.0)
    student = build_student(six_layers, (0, 1, 4, 5))
    engine = BatchingEngine(six_layers, AdapterSettings(), EngineSettings(cache_tokens=256))
    try:
        generator = torch.Generator().manual_seed(0)
        learner = add_adapter(build_student(six_layers, student.kept_layers).base, adapter, seed=0)
        state = {
            name: 0.3 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in adapter_state(learner).items()
        }
        assert {name.split(".layers.")[1].split(".")[0] for name in state} == {"0", "1", "2", "3"}
        generation = engine.load("lifelong-student@1", state, base=student.base, adapter=adapter)
        teacher = engine.load("lifelong@0", None)
        params = SamplingParams(max_tokens=12)
        answers = [engine.submit(g, IDS[0].tolist(), params).result(60).tokens for g in (generation, teacher)]
    finally:
        engine.close()
    learner.load_state_dict(
        {name.replace(".weight", ".default.weight"): tensor for name, tensor in state.items()}, strict=False
    )
    assert weights_sha256(adapter_state(learner)) == weights_sha256(state)
    for tokens, model in zip(answers, (learner, six_layers.model), strict=True):
        whole = model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=12, do_sample=False)
        assert list(tokens) == whole[0, IDS.shape[1] :].tolist()


@pytest.mark.parametrize("layers", [(), (1, 0), (0, 0), (0, 6), (-1, 2)])
def test_what_is_no_list_of_layers_is_refused(six_layers: BaseModel, layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are not layers of"):
        build_student(six_layers, layers)


def test_a_size_that_is_impossible_is_refused(six_layers: BaseModel) -> None:
    for num_layers in (0, 7):
        with pytest.raises(ValueError, match="6 layers"):
            make_student(six_layers, num_layers, TEXTS)
    with pytest.raises(ValueError, match="two tokens"):
        make_student(six_layers, 3, [""])
    assert make_student(six_layers, 6, []).kept_layers == tuple(range(6))
