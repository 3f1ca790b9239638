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

pytest.importorskip("libggml")

MODEL = ModelConfig(1, 64, 2, 1, 256, 64, 32, 64, 10_000.0, 1e-5, "phi3", rope_dims=64)


def write(path: Path) -> None:
    """Write a phi3 of which a quarter of each head turns; its divisors are the last in the file."""
    writer = gguf.GGUFWriter(path, MODEL.arch)
    writer.add_block_count(MODEL.n_layers)
    writer.add_context_length(MODEL.context_length)
    writer.add_embedding_length(MODEL.d_model)
    writer.add_feed_forward_length(MODEL.d_ff)
    writer.add_head_count(MODEL.n_heads)
    writer.add_head_count_kv(MODEL.n_kv_heads)
    writer.add_key_length(MODEL.head_dim)
    writer.add_value_length(MODEL.head_dim)
    writer.add_layer_norm_rms_eps(MODEL.norm_eps)
    writer.add_rope_dimension_count(MODEL.rope_dims)
    writer.add_sliding_window(0)
    shapes = {f"blk.0.{name}": shape for name, shape in layer_shapes(MODEL).items()}
    rng = np.random.default_rng(0)
    for name, shape in (shared_shapes(MODEL) | shapes).items():
        writer.add_tensor(name, 0.1 * rng.standard_normal(shape, np.float32))
    for name in (ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG):
        writer.add_tensor(name, np.ones(MODEL.rope_dims // 2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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
