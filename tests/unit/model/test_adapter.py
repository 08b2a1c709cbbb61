from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch

from lifelong.errors import CorruptVersionError
from lifelong.model.adapter import (
    adapted_layers,
    adapter_files,
    adapter_parameters,
    adapter_state,
    add_adapter,
    load_adapter_state,
    pack_state,
    unpack_settings,
    unpack_state,
    without_adapter,
)
from lifelong.model.base import BaseModel, load_base
from lifelong.model.hashing import combined_sha256, tensor_hashes, weights_sha256
from lifelong.model.settings import AdapterSettings, ModelSettings

SETTINGS = AdapterSettings(rank=4, alpha=8, fraction=0.75)
IDS = torch.tensor([[5, 9, 70, 41, 8, 100]])


def _changed(model: peft.PeftModel, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = adapter_state(model)
    load_adapter_state(
        model,
        {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()},
    )


def test_a_fresh_adapter_changes_nothing_and_sits_on_the_upper_layers(tiny: BaseModel) -> None:
    before = tiny.model(IDS).logits
    model = add_adapter(tiny, SETTINGS, seed=3)
    assert torch.equal(model(IDS).logits, before)
    names = list(adapter_state(model))
    assert names == sorted(names)
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in names}
    assert layers == {1, 2, 3}
    assert len(names) == 3 * 7 * 2
    assert not any("embed" in name or "lm_head" in name for name in names)


def test_without_the_adapter_it_is_the_base_and_then_learns_on(tiny: BaseModel) -> None:
    base = tiny.model(IDS).logits
    model = add_adapter(tiny, SETTINGS, seed=3)
    _changed(model)
    learnt = model(IDS).logits
    layers = adapted_layers(model)
    with without_adapter(layers):
        assert torch.equal(model(IDS).logits, base)
    assert torch.equal(model(IDS).logits, learnt)
    # Between a pass and its gradient the base may be asked.
    with without_adapter(layers):
        model(IDS)
    learnt.sum().backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(model).values())


def test_only_the_adapter_learns_and_it_is_float32_on_a_bfloat16_base(tiny_folder: Path) -> None:
    base = load_base(ModelSettings(name=str(tiny_folder), dtype="bfloat16", device="cpu"))
    model = add_adapter(base, SETTINGS, seed=3)
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trainable == {id(parameter) for parameter in adapter_parameters(model).values()}
    assert {parameter.dtype for parameter in adapter_parameters(model).values()} == {torch.float32}
    model(input_ids=IDS, labels=IDS).loss.backward()
    # With B at zero the gradient reaches B only.
    assert all(
        bool(parameter.grad is not None and parameter.grad.abs().sum() > 0) == ("lora_B" in name)
        for name, parameter in adapter_parameters(model).items()
    )


def test_the_seed_decides_the_adapter(tiny_folder: Path) -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        base = load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))
        return adapter_state(add_adapter(base, SETTINGS, seed=seed))

    torch.manual_seed(0)
    first = weights_sha256(state(7))
    torch.manual_seed(1)
    assert weights_sha256(state(7)) == first
    assert weights_sha256(state(8)) != first


def test_a_state_is_a_copy_and_comes_back_exactly(tiny: BaseModel) -> None:
    model = add_adapter(tiny, SETTINGS, seed=3)
    _changed(model)
    kept, logits = adapter_state(model), model(IDS).logits
    _changed(model, seed=2)
    assert not torch.equal(model(IDS).logits, logits)
    load_adapter_state(model, unpack_state(pack_state(kept)))
    assert torch.equal(model(IDS).logits, logits)


def test_a_state_that_does_not_fit_changes_nothing(tiny: BaseModel) -> None:
    model = add_adapter(tiny, SETTINGS, seed=3)
    before = adapter_state(model)
    last = list(before)[-1]
    wrong_shape = {name: tensor + 1 for name, tensor in before.items()}
    wrong_shape[last] = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=last):
        load_adapter_state(model, wrong_shape)
    with pytest.raises(ValueError, match="only one of adapter and state"):
        load_adapter_state(model, {**before, "extra": torch.zeros(1)})
    assert weights_sha256(adapter_state(model)) == weights_sha256(before)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_itself_loads_the_files(tiny: BaseModel, tiny_folder: Path, tmp_path: Path) -> None:
    model = add_adapter(tiny, SETTINGS, seed=3)
    _changed(model)
    files = adapter_files(model)
    assert files == adapter_files(model)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    fresh = load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))
    theirs = peft.PeftModel.from_pretrained(fresh.model, tmp_path)
    assert torch.equal(theirs(IDS).logits, model(IDS).logits)
    assert weights_sha256(adapter_state(theirs)) == weights_sha256(adapter_state(model))
    assert f'"base_model_name_or_path": "{tiny.name}"'.encode() in files["adapter_config.json"]
    assert unpack_settings(files["adapter_config.json"], fresh.num_layers) == SETTINGS


def test_hashes_name_the_tensor_that_changed(tiny: BaseModel) -> None:
    model = add_adapter(tiny, SETTINGS, seed=3)
    before = adapter_state(model)
    name = list(before)[5]
    after = {**before, name: before[name].clone().index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(9.0))}
    hashes, changed = tensor_hashes(before), tensor_hashes(after)
    assert [key for key in hashes if hashes[key] != changed[key]] == [name]
    assert weights_sha256(before) == combined_sha256(hashes) != weights_sha256(after)
    renamed = {key if key != name else key + "x": value for key, value in before.items()}
    assert weights_sha256(renamed) != weights_sha256(before)


def test_bytes_that_are_no_adapter_are_refused() -> None:
    with pytest.raises(CorruptVersionError):
        unpack_state(b"not safetensors")
    with pytest.raises(CorruptVersionError):
        unpack_settings(b"[]", 4)
    with pytest.raises(CorruptVersionError):
        unpack_settings(b"{}", 4)
