"""A smaller model from the base: the block of layers that does least is left out (Gromov et al., arXiv 2403.17887).

For each block of n layers, d(x_l, x_{l+n}) = 1/π · arccos(x_l · x_{l+n} / ‖x_l‖‖x_{l+n}‖) says how far what enters the
block is turned by the time it leaves. The block that turns it least is dropped. The student shares the tensors of the
base, so a version of it is the list of layers it kept and its adapter.

The paper takes d at the last token of each text, from many texts. With few, most end in a full stop, and that misleads:
of SmolLM2-135M it dropped 3 layers that raised the loss from 3.46 to 6.05 nats, while d averaged over all tokens but
the first (which hardly turns) found the block that cost least of all, 3.69; of 6 layers, 6.05 against 4.09. So average.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lifelong.model.base import BaseModel, decoder_layers, view_of

_CALIBRATION_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Student:
    base: BaseModel
    """Loads, learns and generates as any base does; its hash and name say which layers of what it is."""
    kept_layers: tuple[int, ...]


def make_student(base: BaseModel, num_layers: int, texts: Sequence[str]) -> Student:
    """Choose and leave out layers until ``num_layers`` are left; the same base and texts give the same student.

    The last layer always stays, as in the paper: it prepares what the head reads.

    Raises:
        ValueError: ``num_layers`` is not in 1 … those of the base, or there are no texts.
    """
    if not 1 <= num_layers <= base.num_layers:
        raise ValueError(f"a student of a base with {base.num_layers} layers cannot have {num_layers}")
    num_dropped = base.num_layers - num_layers
    first = _least_needed_block(base, num_dropped, texts) if num_dropped else 0
    kept = tuple(layer for layer in range(base.num_layers) if not first <= layer < first + num_dropped)
    return build_student(base, kept)


def build_student(base: BaseModel, kept_layers: Sequence[int]) -> Student:
    """The student with just these layers. ``base`` must not carry an adapter (``view_of`` makes a bare one beforehand).

    Raises:
        ValueError: not a rising list of layers of the base.
    """
    kept = tuple(kept_layers)
    if not kept or list(kept) != sorted(set(kept) & set(range(base.num_layers))):
        raise ValueError(f"{list(kept)} are not layers of {base.name}, in their order")
    model = view_of(base).model
    student = BaseModel(model, base.tokenizer, f"{base.name}[{_spans(kept)}]", _sha256(base, kept))
    path, layers = decoder_layers(student)
    model.set_submodule(path, nn.ModuleList(layers[index] for index in kept))
    for index, layer in enumerate(model.get_submodule(path)):
        for module in layer.modules():
            if "layer_idx" in vars(module):  # where the layer finds its part of the cache
                module.layer_idx = index
    config = model.config.get_text_config()
    if "layer_types" in vars(config) and config.layer_types is not None:
        config.layer_types = [config.layer_types[index] for index in kept]
    config.num_hidden_layers = len(kept)
    return Student(student, kept)


@torch.no_grad()
def angular_distances(base: BaseModel, block: int, texts: Sequence[str]) -> list[float]:
    """d(x_l, x_{l+block}) for every l whose block leaves the last layer alone, averaged over
    tokens and texts; in 0 … 1.

    Raises:
        ValueError: no text has two tokens.
    """
    sums_L = torch.zeros(base.num_layers - block, dtype=torch.float64)
    num_texts = 0
    for text in texts:
        ids = base.tokenizer(text, add_special_tokens=False)["input_ids"][:_CALIBRATION_TOKENS]
        if len(ids) < 2:
            continue
        hidden = base.model(
            torch.tensor([ids], device=base.device), output_hidden_states=True, use_cache=False
        ).hidden_states
        # The last of these has been through the final norm; x_l is what enters layer l.
        x_LTD = torch.stack([state[0, 1:].double().cpu() for state in hidden[:-1]])
        cosine_LT = torch.cosine_similarity(x_LTD[: len(x_LTD) - block], x_LTD[block:], dim=-1)
        sums_L += torch.arccos(cosine_LT.clamp(-1, 1)).mean(1) / math.pi
        num_texts += 1
    if not num_texts:
        raise ValueError("layers can only be chosen by a text of two tokens or more")
    distances: list[float] = (sums_L / num_texts).tolist()
    return distances


def _least_needed_block(base: BaseModel, num_dropped: int, texts: Sequence[str]) -> int:
    distances = angular_distances(base, num_dropped, texts)
    return min(range(len(distances)), key=lambda first: distances[first])


def _sha256(base: BaseModel, kept: tuple[int, ...]) -> str:
    return hashlib.sha256(f"{base.sha256} layers {','.join(map(str, kept))}\n".encode()).hexdigest()


def _spans(kept: tuple[int, ...]) -> str:
    """0, 1, 2, 5 → ``0-2,5``."""
    spans: list[list[int]] = []
    for layer in kept:
        if spans and spans[-1][-1] == layer - 1:
            spans[-1] = [spans[-1][0], layer]
        else:
            spans.append([layer])
    return ",".join("-".join(map(str, span)) for span in spans)
