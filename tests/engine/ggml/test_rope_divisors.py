"""Divisors of the rotary embedding have the room that ggml reads, wherever the file ends."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.engine.variations import (
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    layer_shapes,
    shared_shapes,
)
from tests.engines.gguf_sizes import add_sizes, end

pytest.importorskip("libggml")

MODEL = ModelConfig(1, 64, 2, 1, 256, 64, 32, 64, 10_000.0, 1e-5, "phi3", rope_dims=64)


def write(path: Path) -> None:
    """Write a phi3 of which a quarter of each head turns; its divisors are the last in the file."""
    writer = gguf.GGUFWriter(path, MODEL.arch)
    add_sizes(
        writer,
        layers=MODEL.n_layers,
        context=MODEL.context_length,
        d_model=MODEL.d_model,
        d_ff=MODEL.d_ff,
        heads=MODEL.n_heads,
        kv_heads=MODEL.n_kv_heads,
        norm_eps=MODEL.norm_eps,
        head_dim=MODEL.head_dim,
    )
    writer.add_rope_dimension_count(MODEL.rope_dims)
    writer.add_sliding_window(0)
    shapes = {f"blk.0.{name}": shape for name, shape in layer_shapes(MODEL).items()}
    rng = np.random.default_rng(0)
    for name, shape in (shared_shapes(MODEL) | shapes).items():
        writer.add_tensor(name, 0.1 * rng.standard_normal(shape, np.float32))
    for name in (ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG):
        writer.add_tensor(name, np.ones(MODEL.rope_dims // 2, np.float32))
    end(writer)


def test_divisors_have_room_for_every_pair_of_a_head(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write(path)
    engine = load_engine(path, range(1), EngineOptions("ggml", "cpu", 1, tmp_path))
    assert isinstance(engine, GgmlEngine)
    share = engine._shares[0]
    for name in (ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG):
        room = share.backend.ggml.nbytes(share.weights[name])
        assert room >= MODEL.head_dim // 2 * 4
    (hidden,) = engine.forward(b"s", range(1), [np.arange(5)], 0)
    assert np.isfinite(hidden).all()
    engine.shut()
