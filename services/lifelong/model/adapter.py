"""The part of the model that learns: a LoRA adapter (arXiv 2106.09685) in float32 on the frozen base.

A state is a dict from tensor name to float32 CPU tensor in the order of the names, which are those of PEFT's files:
what is hashed, stored and loaded by other programs are the same tensors under the same names.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import peft
import safetensors.torch
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from lifelong.errors import CorruptVersionError
from lifelong.model.base import BaseModel, decoder_layers
from lifelong.model.settings import AdapterSettings

AdapterState = dict[str, torch.Tensor]

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def adapter_config(base: BaseModel, settings: AdapterSettings) -> peft.LoraConfig:
    """Where the adapter sits. All linear projections inside the upper layers; so never embeddings or the head."""
    layers_path, layers = decoder_layers(base)
    num_adapted = max(1, round(settings.fraction * len(layers)))
    projections = sorted(
        {name.rpartition(".")[2] for name, module in layers.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    )
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        # As others write it, and so that equal settings give equal files.
        lora_alpha=int(settings.alpha) if settings.alpha == int(settings.alpha) else settings.alpha,
        lora_dropout=0.0,  # a version must be a function of the log
        target_modules=projections,
        layers_to_transform=list(range(len(layers) - num_adapted, len(layers))),
        layers_pattern=layers_path.rpartition(".")[2],
    )


def add_adapter(base: BaseModel, settings: AdapterSettings, *, seed: int) -> Any:
    """Put a fresh adapter on the base, in place: A is random from ``seed``, B is zero, so nothing changes yet.

    Returns a ``peft.PeftModel`` in which only the adapter, in float32, asks for gradients. The base can carry one
    adapter this way; ``adapter_state`` and ``load_adapter_state`` exchange what is in it. The caller's random state is
    left alone.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 asks for this attribute by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        torch.manual_seed(seed)
        model = peft.get_peft_model(base.model, adapter_config(base, settings))
    # peft takes the folder that the base was read from, which is another on every machine.
    model.peft_config["default"].base_model_name_or_path = base.name
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def adapted_layers(model: Any) -> list[BaseTunerLayer]:
    """The layers that the adapter sits on."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def without_adapter(layers: Sequence[BaseTunerLayer]) -> Iterator[None]:
    """Inside, the model is the base.

    As ``PeftModel.disable_adapter``, which first looks for all its layers and at the state of each: for a small model
    that takes as long as the pass of a short sample.
    """
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def adapter_parameters(model: Any) -> dict[str, nn.Parameter]:
    """The trainable tensors by the names of a state, in that order."""
    named = {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }
    return {name: named[name] for name in sorted(named)}


def adapter_state(model: Any) -> AdapterState:
    """A copy of the adapter's tensors."""
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, parameter in adapter_parameters(model).items()
    }


def load_adapter_state(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Copy a state into the adapter that the model carries.

    Raises:
        ValueError: a name or a shape does not fit; nothing was changed then.
    """
    parameters = adapter_parameters(model)
    if different := sorted(parameters.keys() ^ state.keys()):
        raise ValueError(f"{len(different)} tensors are in only one of adapter and state, first {different[0]!r}")
    for name, parameter in parameters.items():
        if parameter.shape != state[name].shape:
            raise ValueError(f"{name}: adapter {tuple(parameter.shape)}, state {tuple(state[name].shape)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def adapter_files(model: Any) -> dict[str, bytes]:
    """The adapter in PEFT's format, by file name: ``peft.PeftModel.from_pretrained`` loads a folder with these.

    Equal adapters give equal bytes.
    """
    return {
        WEIGHTS_FILE: pack_state(adapter_state(model)),
        CONFIG_FILE: _pack_config(model.peft_config["default"]),
    }


def pack_state(state: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors as safetensors; equal states give equal bytes."""
    return bytes(safetensors.torch.save({name: state[name] for name in sorted(state)}, metadata={"format": "pt"}))


def unpack_state(data: bytes) -> AdapterState:
    """
    Raises:
        CorruptVersionError: these bytes are not safetensors.
    """
    try:
        state = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CorruptVersionError(f"not safetensors: {error}") from error
    return {name: state[name] for name in sorted(state)}


def unpack_settings(data: bytes, num_layers: int) -> AdapterSettings:
    """What ``adapter_config.json`` says, as settings for a base of ``num_layers``.

    Raises:
        CorruptVersionError: not an adapter's configuration.
    """
    try:
        config = msgspec.json.decode(data, type=dict[str, Any])
        return AdapterSettings(
            rank=config["r"],
            alpha=config["lora_alpha"],
            fraction=len(config["layers_to_transform"]) / num_layers,
        )
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise CorruptVersionError(f"{CONFIG_FILE}: {error!r}") from error


def _pack_config(config: peft.LoraConfig) -> bytes:
    # What from_pretrained expects of an adapter that is only read; sets have no order of their own.
    fields = {**config.to_dict(), "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(fields.items())}
    return (json.dumps(plain, indent=2) + "\n").encode()
