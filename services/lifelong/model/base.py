"""The base model: frozen, the same for every version of a line, named by its hash."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from safetensors import safe_open
from torch import nn

from lifelong.errors import MissingPartError
from lifelong.model.hashing import combined_sha256, tensor_sha256
from lifelong.model.loading import loading
from lifelong.model.packaged import cache_folder, packaged_model
from lifelong.model.settings import PACKAGED_MODEL, ModelSettings

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Code, and the same weights again in formats that can run code, are not fetched.
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, eq=False)
class BaseModel:
    """``model`` is in eval mode and no parameter of it asks for a gradient.

    ``sha256`` is over the weights as they are stored, so it does not depend on the dtype they are loaded in.
    """

    model: Any
    """A ``transformers.PreTrainedModel`` for causal language modelling."""
    tokenizer: Any
    """A ``transformers.PreTrainedTokenizerBase`` with a chat template."""
    name: str
    sha256: str

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def num_layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together that the model was made for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        return end_tokens(self.model, self.tokenizer)


def load_base(settings: ModelSettings, dtype: torch.dtype | None = None) -> BaseModel:
    """Load model and tokenizer; ``dtype`` overrides the setting (a reader takes the dtype a version was trained in).

    ``auto`` that nobody decided is bfloat16: half the memory, and the exact numbers that are stored.

    Raises:
        MissingPartError: no such folder, hub out of reach, or nothing usable there; says what to do.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folder = model_folder(settings)
    if dtype is None:
        dtype = DTYPES.get(settings.dtype, torch.bfloat16)
    with _mend(settings.name), loading():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        raise MissingPartError(
            f"model {settings.name!r} has no chat template; set model.name to an instruction-tuned model"
        )
    model.to(resolve_device(settings)).eval().requires_grad_(False)
    return BaseModel(model, tokenizer, settings.name, folder_sha256(folder))


def shared_tensors(base: BaseModel) -> dict[int, torch.Tensor]:
    """A memo for ``copy.deepcopy`` with which a copy gets modules of its own on the tensors of the base."""
    return {id(tensor): tensor for tensor in [*base.model.parameters(), *base.model.buffers()]}


def view_of(base: BaseModel) -> BaseModel:
    """Another model on the same tensors: its modules and configuration are its own, it takes no memory for weights."""
    return BaseModel(copy.deepcopy(base.model, shared_tensors(base)), base.tokenizer, base.name, base.sha256)


def decoder_layers(base: BaseModel) -> tuple[str, nn.ModuleList]:
    """Where the list of layers is, and the list.

    Raises:
        ValueError: the architecture has no such list.
    """
    for name, module in base.model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == base.num_layers:
            return name, module
    raise ValueError(f"{type(base.model).__name__} has no list of {base.num_layers} layers; it is not supported")


def model_folder(settings: ModelSettings) -> Path:
    """Where the files of the model are on this machine; fetches or converts them if need be.

    Raises:
        MissingPartError: as ``load_base``.
    """
    if settings.name == PACKAGED_MODEL:
        return packaged_model()
    path = Path(settings.name).expanduser()
    if path.is_dir():
        return path
    with _mend(settings.name):
        return Path(
            huggingface_hub.snapshot_download(settings.name, revision=settings.revision, allow_patterns=list(_WANTED))
        )


def resolve_device(settings: ModelSettings) -> torch.device:
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


def folder_sha256(folder: Path) -> str:
    """Over names and bytes of all tensors in the folder's safetensors; kept in the cache for unchanged files.

    Raises:
        MissingPartError: there are no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingPartError(f"{folder} has no *.safetensors; convert the weights (pickles are not read)")
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), stats]).encode()).hexdigest()
    kept = cache_folder() / "hashes" / key
    if kept.exists():
        return kept.read_text().strip()
    hashes: dict[str, str] = {}
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            names: list[str] = tensors.keys()
            for name in names:
                hashes[name] = tensor_sha256(tensors.get_tensor(name))
    value = combined_sha256(hashes)
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = kept.with_name(f".{key}.{os.getpid()}")
    scratch.write_text(value)
    os.replace(scratch, kept)
    return value


@contextmanager
def _mend(name: str) -> Iterator[None]:
    """Say what to do where transformers and the hub only say what went wrong."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise MissingPartError(
            f"model {name!r} cannot be loaded ({type(error).__name__}: {reason}); check model.name and "
            "model.revision, make the hub reachable, or set model.name to a folder that has the model"
        ) from error
