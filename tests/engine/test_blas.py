import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from p2pnode.engine.base import MOST_NUMERICS_BYTES
from p2pnode.engine.blas import blas_threads, limit_blas_threads
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.errors import ConfigError
from p2pnode.testing.tiny_gguf import write_tiny_gguf


def test_the_limit_can_be_lowered_and_raised() -> None:
    try:
        assert limit_blas_threads(2) in {0, 1, 2}
    finally:
        assert limit_blas_threads(1) in {0, 1}
    with pytest.raises(ConfigError):
        limit_blas_threads(0)


def test_the_limit_holds_for_a_numpy_not_yet_imported() -> None:
    """Limiting before numpy was loaded limited nothing, and cost a busy machine thirtyfold."""
    script = """
from p2pnode.engine.blas import limit_blas_threads
limit_blas_threads(1)
import numpy, threadpoolctl
print([pool["num_threads"] for pool in threadpoolctl.threadpool_info()])
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(said.stdout.strip("[] \n").split(", ")) <= {"1", ""}


def test_engines_that_round_differently_have_different_numerics(tmp_path: Path) -> None:
    """Two threads share a product's columns out otherwise than one does."""
    path = tmp_path / "wide.gguf"
    write_tiny_gguf(path, tensor_type="F32", n_layers=1, d_model=576, n_heads=9, n_kv_heads=3)
    rows = np.arange(64)
    bits: dict[str, set[bytes]] = {}
    try:
        for threads in (1, 2, 1):
            engine = NumpyEngine.load(path, range(1), blas_threads=threads)
            [hidden] = engine.forward(b"s", range(1), [rows], 0)
            bits.setdefault(engine.numerics, set()).add(hidden.tobytes())
            assert engine.device == f"cpu x{max(1, blas_threads())}"
    finally:
        limit_blas_threads(1)
    assert [len(each) for each in bits.values()] == [1] * len(bits)


def test_a_library_with_a_long_name_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pool = {
        "user_api": "blas",
        "internal_api": "mkl",
        "version": "2025.0\n\u00fc/" + 99 * "9",
        "num_threads": 1,
    }
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    engine = NumpyEngine.load(path, range(1))
    assert len(engine.numerics) <= MOST_NUMERICS_BYTES
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [pool])
    numerics = NumpyEngine.load(path, range(1)).numerics
    assert len(numerics.encode()) == MOST_NUMERICS_BYTES
    assert numerics.isprintable()
    assert "/x1 mkl 2025.0999" in numerics
    assert numerics.endswith("/kv-f32")
