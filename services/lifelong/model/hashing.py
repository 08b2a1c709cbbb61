"""Hashes of weights that are the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Over the bytes of the elements in row-major order; neither dtype nor shape goes in."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def tensor_hashes(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """sha256 by tensor name, in the order of the names."""
    return {name: tensor_sha256(state[name]) for name in sorted(state)}


def combined_sha256(hashes: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """One hash over the names and hashes of all tensors: of the lines ``NAME SHA256\\n`` in the order of the names."""
    whole = hashlib.sha256()
    for name, value in sorted(dict(hashes).items()):
        whole.update(f"{name} {value}\n".encode())
    return whole.hexdigest()


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """``combined_sha256`` of ``tensor_hashes``."""
    return combined_sha256(tensor_hashes(state))
