"""Two threads compute the bits that one does, on every path that a batch can take."""

from pathlib import Path

import numpy as np
import pytest

from p2pnode.engine.base import Engine
from p2pnode.engine.ggml import threads
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.errors import ConfigError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytest.importorskip("libggml")

ALL = range(2)
SIZES = (40, 1, 200, 3, 1, 64, 230, 1, 1)
"""Rows of one batch after the other: alone, few, in tiles, and beyond 512 positions."""


@pytest.mark.parametrize(
    ("tensor_type", "n_kv_heads"), [("Q4_1", 1), ("Q8_0", 2), ("F16", 4), ("Q4_0", 4)]
)
def test_two_threads_compute_what_one_does(
    tensor_type: str, n_kv_heads: int, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(
        path, tensor_type=tensor_type, n_layers=2, n_kv_heads=n_kv_heads, context_length=1024
    )
    one, two = (
        load_engine(path, ALL, EngineOptions("ggml", "cpu", count, tmp_path)) for count in (1, 2)
    )
    assert (one.device, two.device) == ("cpu x1", "cpu x2")
    assert one.numerics == two.numerics
    rng, start = np.random.default_rng(0), 0
    for size in SIZES:
        ids = rng.integers(0, one.info.vocab_size, size)
        np.testing.assert_array_equal(run(one, ids, start), run(two, ids, start))
        start += size
    one.shut()
    two.shut()


def test_more_threads_than_cores_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, n_layers=2)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    for count in (5, 1024):
        with pytest.raises(ConfigError, match=f"{count} threads cannot compute on 4 cores"):
            load_engine(path, ALL, EngineOptions("ggml", "cpu", count, tmp_path))


def run(engine: Engine, ids: "np.ndarray[tuple[int], np.dtype[np.int64]]", start: int) -> object:
    (hidden,) = engine.forward(b"s", ALL, [ids], start)
    return engine.logits(hidden)
