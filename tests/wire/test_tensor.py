"""Arrays survive the wire, as exactly as their type allows; anything else is refused."""

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.tensor import (
    MAX_DENSE,
    fits_f16,
    group_slices,
    slices_to_tensor_untrusted,
    tensor_to_slices,
)
from p2pnode.wire.vframe import Slice

Array = npt.NDArray[np.float32]
QUANTISED = [DType.I8, DType.Q4, DType.Q2]
CODINGS = [dtype for dtype in DType if dtype is not DType.CENTRED]


def some_array(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    values = np.random.default_rng(seed).normal(size=shape) * scale
    return values.astype(np.float32)


def through(array: Array, dtype: DType, group: int | None = None) -> Array:
    return slices_to_tensor_untrusted(tensor_to_slices(array, dtype, group=group))


def f16(*values: float, shape: tuple[int, ...] | None = None) -> Slice:
    return Slice(DType.F16, shape or (len(values),), np.array(values, "<f2").tobytes())


def indices(*values: int) -> Slice:
    data = np.array(values, "<u4").tobytes()
    return Slice(DType.I8, (len(data),), data)


@pytest.mark.parametrize("dtype", CODINGS)
@pytest.mark.parametrize("shape", [(1, 576), (7, 33), (3, 4, 64), (5,), (1, 1), (0, 8), (3, 0)])
def test_a_tensor_keeps_its_shape(dtype: DType, shape: tuple[int, ...]) -> None:
    array = through(some_array(*shape), dtype)
    assert array.shape == shape
    assert array.dtype == np.float32
    assert array.flags.writeable


def test_states_that_need_a_calibration_are_no_tensor() -> None:
    piece = Slice(DType.CENTRED, (2, 33), bytes(40))
    with pytest.raises(RemoteProtocolError, match="CENTRED is no tensor"):
        slices_to_tensor_untrusted([piece])
    with pytest.raises(LocalProtocolError, match="CENTRED"):
        tensor_to_slices(some_array(2, 33), DType.CENTRED)
    assert group_slices([piece, f16(1, 2, shape=(2, 1))]) == [(piece,), (f16(1, 2, shape=(2, 1)),)]


def test_f32_is_exact_and_f16_is_numpys_rounding() -> None:
    array = some_array(3, 100)
    assert (through(array, DType.F32) == array).all()
    assert (through(array, DType.F16) == array.astype(np.float16)).all()


def test_bf16_rounds_to_nearest() -> None:
    array = some_array(1000, scale=1e30)
    assert (np.abs(through(array, DType.BF16) - array) <= np.abs(array) * 2.0**-8).all()
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert through(ties, DType.BF16).tolist() == [1.0, 1 + 2**-6]


@given(
    st.integers(1, 80), st.integers(1, 80), st.integers(0, 99), st.sampled_from([1e-2, 1.0, 1e3])
)
def test_a_quantised_value_is_within_a_step(last: int, group: int, seed: int, scale: float) -> None:
    array = some_array(2, last, seed=seed, scale=scale)
    for dtype, top in ((DType.I8, 127), (DType.Q4, 15), (DType.Q2, 3)):
        with contextlib.suppress(LocalProtocolError):
            slices = tensor_to_slices(array, dtype, group=group)
            reach = np.abs(array).max() if dtype is DType.I8 else np.ptp(array, axis=-1).max()
            error = np.abs(slices_to_tensor_untrusted(slices) - array).max()
            assert error <= reach / top * 0.56 + np.abs(array).max() * 2.0**-10


@given(
    dtype=st.sampled_from([DType.Q4, DType.Q2]),
    last=st.integers(1, 70),
    seed=st.integers(0, 2**16),
    scale=st.floats(1e-3, 1e3),
)
def test_a_symmetric_code_has_no_minima_and_is_within_half_a_step(
    dtype: DType, last: int, seed: int, scale: float
) -> None:
    array = some_array(3, last, seed=seed, scale=scale)
    slices = tensor_to_slices(array, dtype, group=last, symmetric=True)
    assert len(slices) == 2
    steps = np.frombuffer(slices[1].payload, "<f2").astype(np.float32)[:, None]  # [3, 1]
    error = np.abs(slices_to_tensor_untrusted(slices) - array)
    assert (error <= 0.51 * steps + 1e-6).all()


def test_one_scale_for_each_group() -> None:
    slices = tensor_to_slices(some_array(2, 100), DType.I8, group=32)
    assert [piece.shape for piece in slices] == [(2, 100), (2, 4)]
    slices = tensor_to_slices(some_array(2, 100), DType.Q4)
    assert [piece.shape for piece in slices] == [(2, 100), (2, 4), (2, 4)]


def test_the_first_of_two_codes_is_in_the_high_nibble() -> None:
    codes = Slice(DType.Q4, (3,), b"\x1f\x80")
    one, zero = f16(1.0), f16(0.0)
    assert slices_to_tensor_untrusted([codes, one, zero]).tolist() == [1, 15, 8]
    assert slices_to_tensor_untrusted([codes, one]).tolist() == [-7, 7, 0]
    assert slices_to_tensor_untrusted([codes]).tolist() == [-7, 7, 0]


def test_an_outlier_spoils_its_own_group_alone() -> None:
    array = some_array(1, 128)
    array[0, 0] = 26000
    error = np.abs(through(array, DType.I8) - array)[0, 64:]
    assert error.max() < 0.02


def test_values_beyond_half_precision_are_told_and_not_sent() -> None:
    assert fits_f16(np.array([65504, -65504], np.float32))
    assert fits_f16(np.zeros((0, 4), np.float32))
    for value in (65505.0, -1e6, float("inf"), float("nan")):
        array = np.array([value, 1], np.float32)
        assert not fits_f16(array)
        with pytest.raises(LocalProtocolError):
            tensor_to_slices(array)


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e38])
def test_what_has_no_code_is_not_quantised(dtype: DType, value: float) -> None:
    with pytest.raises(LocalProtocolError):
        tensor_to_slices(np.array([value, 0], np.float32), dtype)


def test_a_sparse_tensor_carries_its_non_zeros_alone() -> None:
    array = np.zeros((40, 50), np.float32)
    array[3, 4], array[39, 49] = 1.5, -2
    values, where = tensor_to_slices(array, DType.COO)
    assert (len(values.payload), len(where.payload)) == (4, 8)
    assert (slices_to_tensor_untrusted([values, where]) == array).all()


@pytest.mark.parametrize(
    "where",
    [indices(1, 1), indices(2, 1), indices(0, 6), indices(0, 2**32 - 1), indices(0), f16(0, 0)],
)
def test_sparse_indices_out_of_order_or_range_are_refused(where: Slice) -> None:
    values = Slice(DType.COO, (2, 3), bytes(4))
    with pytest.raises(RemoteProtocolError):
        slices_to_tensor_untrusted([values, where])


@pytest.mark.parametrize("shape", [(MAX_DENSE + 1,), (2**32 - 1,) * 40, (2**32 - 1, 0)])
def test_a_sparse_tensor_cannot_make_us_allocate(shape: tuple[int, ...]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        array = slices_to_tensor_untrusted([Slice(DType.COO, shape, b""), indices()])
        assert array.size == 0


@pytest.mark.parametrize(
    "slices",
    [
        [],
        [f16(1, 2), f16(1, 2)],
        [Slice(DType.I8, (2, 4), bytes(8)), f16(1, shape=(1, 1))],
        [Slice(DType.I8, (1, 4), bytes(4)), f16(1, 1, 1, shape=(1, 3))],
        [Slice(DType.I8, (1, 4), bytes(4)), f16(*[1] * 5, shape=(1, 5))],
        [Slice(DType.I8, (4,), bytes(4)), f16(1), f16(1, 1)],
        [Slice(DType.I8, (4,), bytes(4)), f16(1), f16(1), f16(1)],
        [Slice(DType.I8, (4,), bytes(4)), Slice(DType.I8, (1,), b"\1")],
        [Slice(DType.I8, (), b"\0"), f16(1)],
        [Slice(DType.F16, (1,) * 65, bytes(2))],
        [Slice(DType.COO, (4,), b"")],
    ],
)
def test_what_is_not_one_tensor_is_refused(slices: list[Slice]) -> None:
    with pytest.raises(RemoteProtocolError):
        slices_to_tensor_untrusted(slices)


def test_nan_and_infinities_are_refused_on_request() -> None:
    slices = [f16(1, float("inf"))]
    assert np.isinf(slices_to_tensor_untrusted(slices)).any()
    with pytest.raises(RemoteProtocolError):
        slices_to_tensor_untrusted(slices, finite=True)
    hostile = [Slice(DType.I8, (2,), b"\x00\x7f"), f16(float("inf")), f16(float("-inf"))]
    with pytest.raises(RemoteProtocolError):
        slices_to_tensor_untrusted(hostile, finite=True)


@pytest.mark.parametrize("dtype", CODINGS)
def test_several_tensors_part_again(dtype: DType) -> None:
    arrays = [some_array(3, 4, 64, seed=seed) for seed in range(4)]
    coded = [tensor_to_slices(array, dtype) for array in arrays]
    assert group_slices([piece for slices in coded for piece in slices]) == coded


@st.composite
def any_slices(draw: st.DrawFn) -> Slice:
    dtype: Any = draw(st.sampled_from(CODINGS))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    count = int(np.prod(shape, dtype=int))
    if dtype is DType.COO:
        size = 2 * draw(st.integers(0, count))
    else:
        bits = {DType.I8: 8, DType.Q4: 4, DType.F32: 32, DType.Q2: 2}.get(dtype, 16)
        size = (count * bits + 7) // 8
    return Slice(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


@given(st.lists(any_slices(), max_size=4))
def test_any_slices_are_read_or_refused(slices: list[Slice]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert slices_to_tensor_untrusted(slices).shape == slices[0].shape
    assert [piece for group in group_slices(slices) for piece in group] == slices
