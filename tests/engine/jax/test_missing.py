"""Where JAX cannot be used, one line says so and what to do; these tests run without it."""

import sys
from pathlib import Path

import pytest

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.jax.load import load_jax
from p2pnode.errors import EngineError
from p2pnode.installing import install_extra
from p2pnode.testing.tiny_gguf import write_tiny_gguf


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def _load(path: Path, dtype: str = "f32") -> None:
    with GgufFile(path) as file:
        tree = hash_file(file)
    load_jax(path, range(4), tree, kv_budget_bytes=1 << 20, dtype=dtype)


def test_a_missing_jax_is_one_clear_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # what an import then says: there is no such one
    with pytest.raises(EngineError) as caught:
        _load(path)
    assert str(caught.value) == "the jax engine needs jax"
    assert caught.value.hint == install_extra("jax")


def test_a_broken_jax_says_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jax.py").write_text("raise RuntimeError('jaxlib is version 1\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    with pytest.raises(EngineError, match=r"jax cannot be imported: jaxlib is version 1$"):
        _load(path)


def test_an_unknown_type_of_weights_is_refused(path: Path) -> None:
    with pytest.raises(EngineError, match="no type 'f8'") as caught:
        _load(path, dtype="f8")
    assert "f32, bf16" in caught.value.hint
