"""Texts into vectors: the file that a model comes in, and the real one against transformers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2pnode.errors import ModelError, UserError
from p2pnode.node import embedder as module
from p2pnode.node.catalogue import KNOWN_MODELS
from p2pnode.node.embedder import MOST_TEXTS, STEP_TOKENS, Embedder
from p2pnode.node.whole import sha256_of
from tests.engine.bert.small_bert import SMALL, plainly, small_tensors, write_small_bert
from tests.node.small_embedder import MOST, small_embedder
from tests.text.test_word_pieces import definition

REFERENCE = Path(__file__).parents[1] / "reference" / "minilm.json"


def test_texts_become_vectors_in_their_order(tmp_path: Path) -> None:
    made = small_embedder(tmp_path).embed(["the cat", "", "the " * 20])
    assert made.tokens == (4, 2, MOST)
    assert made.truncated == (False, False, True)
    expected = [[2, 7, 8, 3], [2, 3], [2, *[7] * 6, 3]]
    for vector, ids in zip(made.vectors, expected, strict=True):
        assert vector == pytest.approx(plainly(small_tensors(), SMALL, ids), abs=5e-6)


def test_no_text_has_no_vector(tmp_path: Path) -> None:
    made = small_embedder(tmp_path).embed([])
    assert made.vectors.shape == (0, SMALL.d_model)
    assert made.tokens == ()


def test_no_step_computes_more_tokens_than_it_may(tmp_path: Path) -> None:
    texts = ["the " * (number % 9) for number in range(300)]
    steps = [*small_embedder(tmp_path).steps(texts)]
    assert len(steps) > 1
    assert all(sum(step.tokens) <= STEP_TOKENS for step in steps)
    assert sum(len(step.tokens) for step in steps) == 300
    assert min(sum(step.tokens) for step in steps[:-1]) > STEP_TOKENS - MOST


def test_a_text_longer_than_a_step_is_computed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_TOKENS", 3)
    steps = small_embedder(tmp_path).steps(["the cat", "", "the cat"])
    assert [step.tokens for step in steps] == [(4,), (2,), (4,)]


def test_too_many_texts_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{MOST_TEXTS + 1} texts"):
        small_embedder(tmp_path).embed(["a"] * (MOST_TEXTS + 1))


@pytest.mark.parametrize("behind", [b"", b"no json", bytes(2**20 + 1)])
def test_a_file_without_its_vocabulary_is_refused(behind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.embedder"
    write_small_bert(path, small_tensors(), behind)
    with pytest.raises(ModelError, match="vocabulary"):
        Embedder.read(path, MOST, SMALL)


def test_a_model_that_is_not_here_or_broken_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path))
    known = KNOWN_MODELS["minilm"]
    with pytest.raises(ModelError, match="not on this machine") as caught:
        Embedder.open(known)
    assert caught.value.hint == "p2pnode models pull minilm"
    path = tmp_path / "models" / known.file
    path.parent.mkdir()
    write_small_bert(path, small_tensors(), definition())
    with pytest.raises(ModelError, match="is broken"):
        Embedder.open(known)
    sound = replace(known, size=path.stat().st_size, sha256=sha256_of(path))
    with pytest.raises(ModelError, match="not F32"):  # of another shape
        Embedder.open(sound)


def test_minilm_says_what_transformers_does() -> None:
    reference = json.loads(REFERENCE.read_text("utf-8"))
    made = Embedder.open(KNOWN_MODELS["minilm"]).embed([one["text"] for one in reference])
    assert made.tokens == tuple(one["tokens"] for one in reference)
    assert made.truncated == tuple(one["truncated"] for one in reference)
    expected = np.array([one["vector"] for one in reference])
    assert np.abs(made.vectors - expected).max() < 5e-7
