"""Matrices in a second form are the same matrices; which models have them, their headers decide."""

import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, dequantize
from hypothesis import given, settings, strategies as st

from p2pnode.engine.ggml import coded as coded_module
from p2pnode.engine.ggml.coded import AS_Q8_0, coded, is_coded, put_as_q8_0
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import tile_rows
from p2pnode.engine.ggml.second_forms import second_bytes, second_types
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo
from p2pnode.node.model_facts import facts_of
from p2pnode.testing.random_blocks import random_blocks, set_scales
from p2pnode.testing.tiny_gguf import write_tiny_gguf

CODED = [kind for kind in Type if is_coded(kind)]
EIGHT = sorted(AS_Q8_0)
UNPACK = coded_module._UNPACK


def known(kind: Type, stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return what gguf expands blocks [rows, bytes] to: [rows, width]."""
    with np.errstate(all="ignore"):
        return np.asarray(dequantize(stored, GGMLQuantizationType(int(kind))), np.float32)


def info_of(kind: Type, out: int, width: int) -> TensorInfo:
    return TensorInfo("blk.0.ffn_up.weight", (out, width), TENSOR_TYPES[kind], 0)


def stored_of(kind: Type, out: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return any bytes of a type but for scales: [out, bytes of a row]."""
    of = TENSOR_TYPES[kind]
    blocks = random_blocks(of, out * width // of.block, np.random.default_rng(seed))
    return blocks.reshape(out, -1)


def as_q8_0(info: TensorInfo, stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    found = np.empty(second_bytes(info), np.uint8)
    put_as_q8_0(info, memoryview(stored.tobytes()), found)
    return known(Type.Q8_0, found.reshape(info.rows, -1))


def test_every_type_that_is_slow_to_expand_has_one() -> None:
    names = ["Q5_1", "Q2_K", "Q3_K", "Q6_K", "IQ2_XXS", "IQ2_XS"]
    names += ["IQ1_S", "IQ2_S", "IQ4_XS", "IQ1_M"]
    assert [kind.name for kind in CODED] == names
    assert [Type(kind).name for kind in EIGHT] == ["Q5_0", "IQ3_XXS", "IQ3_S"]


@pytest.mark.parametrize("kind", UNPACK, ids=lambda kind: kind.name)
def test_unpacked_blocks_are_what_any_bytes_mean(kind: Type) -> None:
    of, rng = TENSOR_TYPES[kind], np.random.default_rng(1)
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, None], of.size, axis=1)
    any_bytes = rng.integers(0, 256, (2**16 // of.block, of.size), np.uint8)
    set_scales(of, any_bytes[:3], np.array([np.inf, -np.inf, np.nan], np.float16))
    blocks = np.concatenate([every, any_bytes])
    with np.errstate(all="ignore"):
        found = UNPACK[kind](blocks)
        count, groups = found.scale.shape
        numbers = found.codes.reshape(count, groups, -1) * found.scale[..., None]
        if found.rest is not None:
            numbers = numbers.reshape(*found.rest.shape, -1) + found.rest[..., None]
    expected = known(kind, blocks)
    np.testing.assert_array_equal(numbers.reshape(count, -1), expected)
    assert not np.isfinite(expected).all()


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.name)
@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_codes_are_the_matrix(kind: Type, out: int, blocks: int, seed: int) -> None:
    width = blocks * 256
    stored, info = stored_of(kind, out, width, seed), info_of(kind, out, width)
    expected = known(kind, stored)  # [out, width]
    room = np.empty(second_bytes(info), np.uint8)
    matrix = coded(info, memoryview(stored.tobytes()), room)
    picked = np.arange(0, width, width // 64)
    for ones in (picked, np.resize(picked, 300)):
        floats = np.empty(matrix.room(len(ones)), np.float32)
        plain = np.eye(width, dtype=np.float32)[ones]  # so products are numbers
        inputs = matrix.prepared(plain, floats)
        for start in range(0, out, tile_rows(width)):
            columns = expected[start : start + tile_rows(width)]
            product = np.empty((len(ones), len(columns)), np.float32)
            matrix.multiply(inputs, start, floats, product)
            np.testing.assert_allclose(product, columns.T[ones], rtol=2e-6, atol=1e-5)
    used = sum(
        tile.codes.nbytes + tile.scale.nbytes + (0 if tile.rest is None else tile.rest.nbytes)
        for tile in matrix.tiles
    )
    assert used == second_bytes(info)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_q5_0_is_q8_0_with_small_numbers(out: int, blocks: int, seed: int) -> None:
    info = info_of(Type.Q5_0, out, 32 * blocks)
    stored = stored_of(Type.Q5_0, out, 32 * blocks, seed)
    np.testing.assert_array_equal(as_q8_0(info, stored), known(Type.Q5_0, stored))


@pytest.mark.parametrize("kind", EIGHT, ids=lambda kind: Type(kind).name)
@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_scales_of_q8_0_are_rounded_and_numbers_are_not(
    kind: Type, out: int, blocks: int, seed: int
) -> None:
    info, stored = info_of(kind, out, 256 * blocks), stored_of(kind, out, 256 * blocks, seed)
    expected = known(kind, stored)
    np.testing.assert_allclose(as_q8_0(info, stored), expected, rtol=2**-11, atol=31 * 2**-25)


@pytest.mark.parametrize("kind", EIGHT, ids=lambda kind: Type(kind).name)
@pytest.mark.parametrize("scale", [2**-24, 2**-20, 1000 * 2**-24])
def test_scales_below_the_precision_of_float16(kind: Type, scale: float) -> None:
    info, stored = info_of(kind, 4, 256), stored_of(kind, 4, 256)
    set_scales(info.type, stored.reshape(-1, info.type.size), scale)
    found, expected = as_q8_0(info, stored), known(kind, stored)
    if kind in (Type.Q5_0, Type.IQ3_S):
        rounding = 0.0 if scale < 2**-18 else 2**-11  # beyond, a multiple is a normal number
        np.testing.assert_allclose(found, expected, rtol=rounding)
    else:
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=31 * 2**-25)


@pytest.mark.parametrize("kind", EIGHT[1:], ids=lambda kind: Type(kind).name)
def test_scales_beyond_float16_are_no_numbers(kind: Type) -> None:
    info, stored = info_of(kind, 4, 256), stored_of(kind, 4, 256)
    set_scales(info.type, stored.reshape(-1, info.type.size), 60_000)
    found, expected = as_q8_0(info, stored), known(kind, stored)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found[np.isfinite(found)], expected[np.isfinite(found)], rtol=2**-11)
    assert not np.isfinite(found).all()
    assert (np.abs(expected[~np.isfinite(found)]) > 2 * 65_504).all()


@pytest.mark.parametrize("kind", [*CODED, *EIGHT], ids=lambda kind: Type(kind).name)
def test_unpacking_takes_as_much_memory_for_a_matrix_of_any_height(kind: Type) -> None:
    most = []
    for out in (256, 1024):
        info = info_of(kind, out, 2048)
        stored = memoryview(stored_of(kind, out, 2048).tobytes())
        kept = np.empty(second_bytes(info), np.uint8)
        tracemalloc.start()
        if kind in AS_Q8_0:
            put_as_q8_0(info, stored, kept)
        else:
            coded(info, stored, kept)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < most[0] + 2**16
    assert most[1] < 2**23


def matrix_of(kind: Type, weights: int, name: str = "blk.0.ffn_up.weight") -> TensorInfo:
    return TensorInfo(name, (weights // 4096, 4096), TENSOR_TYPES[kind], 0)


@pytest.mark.parametrize(
    ("million_weights", "made"),
    [
        ({Type.Q6_K: 400}, {Type.Q6_K}),  # small
        ({Type.Q6_K: 1000}, ()),
        ({Type.Q4_K: 4000, Type.Q6_K: 1000}, {Type.Q6_K}),  # a mixture as it is shipped
        ({Type.Q4_K: 1000, Type.Q6_K: 1000}, ()),
        ({Type.IQ3_S: 400, Type.Q6_K: 50}, {Type.IQ3_S, Type.Q6_K}),  # all of a small one
        ({Type.Q3_K: 5000, Type.Q5_K: 1000, Type.Q6_K: 500}, {Type.Q6_K}),  # as Q3_K_M
        ({Type.IQ3_S: 5000, Type.IQ4_XS: 600}, {Type.IQ4_XS}),
        ({Type.Q2_K: 300, Type.Q3_K: 300, Type.IQ2_XXS: 200}, {Type.IQ2_XXS, Type.Q3_K}),
    ],
)
def test_those_types_have_them_that_gain_most_and_fit(
    million_weights: dict[Type, int], made: set[Type]
) -> None:
    tensors = [matrix_of(kind, count * 10**6) for kind, count in million_weights.items()]
    assert second_types(tensors) == second_types(tensors[::-1]) == set(made)


def test_every_kind_is_made_of_a_small_model() -> None:
    for kind in UNPACK:
        assert second_types([matrix_of(kind, 10**7)]) == {kind}


def test_what_never_sees_a_long_batch_has_none() -> None:
    for name in ("output.weight", "token_embd.weight"):
        assert second_bytes(matrix_of(Type.Q6_K, 10**6, name)) == 0
        assert not second_types([matrix_of(Type.IQ3_S, 10**6, name)])
    experts = TensorInfo("blk.0.ffn_up_exps.weight", (8, 64, 256), TENSOR_TYPES[Type.Q6_K], 0)
    assert second_bytes(experts) == 0


def test_their_memory_is_counted_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path, tensor_type="Q5_0", n_layers=2)
    facts = facts_of(path, with_words=False)
    assert facts.layer_second_bytes[0] > facts.layer_bytes[0]
    held, _ = facts.held(0)
    assert held[0] == facts.layer_bytes[0] + facts.layer_second_bytes[0]
