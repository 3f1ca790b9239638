"""Matrices in a second form are the same matrices; which models have them, their headers decide."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, dequantize
from hypothesis import given, strategies as st

from p2pnode.engine.ggml.coded import coded, is_coded, put_as_q8_0
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import tile_rows
from p2pnode.engine.ggml.second_forms import has_second_forms, second_bytes
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo
from p2pnode.node.model_facts import facts_of
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CODED = [kind for kind in Type if is_coded(kind)]
_SCALES = {Type.Q5_0: 1, Type.Q5_1: 2, Type.Q6_K: 1, Type.IQ4_XS: 1}  # float16 of a block


def blocks_of(kind: Type, rows: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return any bytes of a type but for scales, which are finite: [rows, blocks, bytes]."""
    rng, of = np.random.default_rng(seed), TENSOR_TYPES[kind]
    stored = rng.integers(0, 256, (rows, width // of.block, of.size), np.uint8)
    scales = rng.standard_normal((*stored.shape[:2], _SCALES[kind])).astype(np.float16)
    at = of.size - 2 if kind == Type.Q6_K else 0
    stored[..., at : at + 2 * _SCALES[kind]] = scales.view(np.uint8)
    return stored


def test_every_type_that_is_slow_to_expand_and_common_has_one() -> None:
    assert CODED == [Type.Q5_1, Type.Q6_K, Type.IQ4_XS]


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.name)
@given(st.integers(1, 300), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_codes_are_the_matrix(kind: Type, out: int, blocks: int, seed: int) -> None:
    width = blocks * 256
    stored = blocks_of(kind, out, width, seed)
    known = dequantize(stored.reshape(out, -1), GGMLQuantizationType(int(kind)))  # [out, width]
    info = TensorInfo("blk.0.ffn_up.weight", (out, width), TENSOR_TYPES[kind], 0)
    room = np.empty(second_bytes(info), np.uint8)
    matrix = coded(info, memoryview(stored.tobytes()), room)
    picked = np.eye(width, dtype=np.float32)[:: width // 64]  # products with these are numbers
    inputs, floats = matrix.prepared(picked), np.empty(matrix.room, np.float32)
    for start in range(0, out, tile_rows(width)):
        columns = known[start : start + tile_rows(width)]
        product = np.empty((len(picked), len(columns)), np.float32)
        matrix.multiply(inputs, start, floats, product)
        np.testing.assert_allclose(product, columns.T[:: width // 64], rtol=2e-6, atol=1e-5)
    used = sum(
        tile.codes.nbytes + tile.scale.nbytes + (0 if tile.rest is None else tile.rest.nbytes)
        for tile in matrix.tiles
    )
    assert used == second_bytes(info)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_q5_0_is_q8_0_with_small_numbers(out: int, blocks: int, seed: int) -> None:
    stored = blocks_of(Type.Q5_0, out, 32 * blocks, seed)
    found = np.empty((out, 34 * blocks), np.uint8)
    put_as_q8_0(memoryview(stored.tobytes()), found)
    np.testing.assert_array_equal(
        dequantize(found, GGMLQuantizationType.Q8_0),
        dequantize(stored.reshape(out, -1), GGMLQuantizationType.Q5_0),
    )


def matrix_of(kind: Type, weights: int, name: str = "blk.0.ffn_up.weight") -> TensorInfo:
    return TensorInfo(name, (weights // 4096, 4096), TENSOR_TYPES[kind], 0)


@pytest.mark.parametrize(
    ("million_weights", "is_made"),
    [
        ({Type.Q6_K: 400}, True),  # small
        ({Type.Q6_K: 1000}, False),
        ({Type.Q4_K: 4000, Type.Q6_K: 1000}, True),  # a mixture as it is shipped
        ({Type.Q4_K: 1000, Type.Q6_K: 1000}, False),
    ],
)
def test_a_large_model_has_them_where_they_are_a_small_part(
    million_weights: dict[Type, int], is_made: bool
) -> None:
    tensors = [matrix_of(kind, count * 10**6) for kind, count in million_weights.items()]
    assert has_second_forms(tensors) is is_made


def test_what_never_sees_a_long_batch_has_none() -> None:
    for name in ("output.weight", "token_embd.weight"):
        assert second_bytes(matrix_of(Type.Q6_K, 10**6, name)) == 0
    experts = TensorInfo("blk.0.ffn_up_exps.weight", (8, 64, 256), TENSOR_TYPES[Type.Q6_K], 0)
    assert second_bytes(experts) == 0


def test_their_memory_is_counted_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path, tensor_type="Q5_0", n_layers=2)
    facts = facts_of(path, with_words=False)
    assert facts.layer_second_bytes[0] > facts.layer_bytes[0]
    held, _ = facts.held(0)
    assert held[0] == facts.layer_bytes[0] + facts.layer_second_bytes[0]
