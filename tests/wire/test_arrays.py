"""Tensors of other libraries reach the wire and come back bit for bit, and where they lie."""

import subprocess
import sys
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.arrays import (
    as_numpy,
    bf16_slice,
    into,
    slice_view_untrusted,
    tensor_slice,
)
from p2pnode.wire.dtypes import DType
from p2pnode.wire.tensor import slices_to_tensor_untrusted
from p2pnode.wire.vframe import Frame, MessageType, Slice, decode_frame_untrusted, encode_frame

BF16_BITS = np.array([[0x0000, 0x8000, 0x3F80], [0x0001, 0x7F7F, 0xC2F7]], np.uint16)
"""0, -0, 1; the smallest, the largest, and -123.5."""

BF16_NAN = np.array([0x3F80, 0x7FC1], np.uint16)


def address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def payload_address(piece: Slice) -> int:
    return address(np.frombuffer(piece.payload, np.uint8))


def landed(piece: Slice, *, behind: int) -> Slice:
    """Send a slice, let its frame land so many bytes behind a multiple of 64, and read it."""
    data = encode_frame(Frame(MessageType.THINK, 1, 1, 1, slices=(piece,)))
    room = bytearray(len(data) + 128)
    start = -address(np.frombuffer(room, np.uint8)) % 64 + behind
    room[start : start + len(data)] = data
    return decode_frame_untrusted(memoryview(room)[start : start + len(data)]).slices[0]


class Foreign:
    """A tensor of some library that speaks DLPack and nothing else."""

    def __init__(self, array: npt.NDArray[Any], device: int = 1) -> None:
        self._array = array
        self._device = device

    def __dlpack__(self, **how: Any) -> object:
        return self._array.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0


# numpy alone


@pytest.mark.parametrize("kind", ["f2", "f4", "i1"])
@pytest.mark.parametrize("shape", [(2, 3), (7,), (), (0, 4)])
def test_an_array_is_sent_from_where_it_lies(kind: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, kind)
    piece = tensor_slice(array)
    assert piece.shape == shape
    assert np.shares_memory(as_numpy(array), array) == (array.size > 0)
    if array.size:
        assert payload_address(piece) == address(array)
    back = slice_view_untrusted(piece)
    assert back.dtype == array.dtype
    assert (back == array).all()


def test_whatever_speaks_dlpack_is_looked_at_and_not_copied() -> None:
    array = np.arange(6, dtype=np.float32)
    assert address(as_numpy(Foreign(array))) == address(array)
    assert payload_address(tensor_slice(Foreign(array))) == address(array)


def test_a_buffer_is_looked_at_and_not_copied() -> None:
    array = np.arange(6, dtype=np.float32)
    assert address(as_numpy(array.data)) == address(array)


def test_a_tensor_elsewhere_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="device"):
        as_numpy(Foreign(np.zeros(3, np.float32), device=2))


@pytest.mark.parametrize("dtype", ["c8", "?", "O", "U1", "M8[s]"])
def test_what_is_no_real_number_is_refused(dtype: str) -> None:
    with pytest.raises(LocalProtocolError, match="real"):
        as_numpy(np.zeros(3, dtype))


@pytest.mark.parametrize("dtype", ["f8", "i4", "u1", "u2"])
def test_what_has_no_code_is_left_to_conversion(dtype: str) -> None:
    array = np.zeros(3, dtype)
    assert np.shares_memory(as_numpy(array), array)
    with pytest.raises(LocalProtocolError, match="code of its own"):
        tensor_slice(array)


def test_what_does_not_lie_row_by_row_is_sent_row_by_row() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for view in (array.T, array[:, ::-1], array[:, ::2], array[::-1]):
        assert np.shares_memory(as_numpy(view), array)
        assert (slices_to_tensor_untrusted([tensor_slice(view)]) == view).all()


def test_big_endian_numbers_are_turned_around() -> None:
    array = np.array([1.5, -2], ">f4")
    assert as_numpy(array).dtype.str == "<f4"
    assert slices_to_tensor_untrusted([tensor_slice(array)]).tolist() == [1.5, -2]


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_are_not_sent(dtype: str, value: float) -> None:
    with pytest.raises(LocalProtocolError, match="NaN"):
        tensor_slice(np.array([1, value], dtype))


def test_the_bits_of_bf16_are_sent_as_they_are() -> None:
    piece = bf16_slice(BF16_BITS)
    assert (piece.dtype, piece.shape) == (DType.BF16, (2, 3))
    assert payload_address(piece) == address(BF16_BITS)
    assert (slice_view_untrusted(piece) == BF16_BITS).all()
    assert slices_to_tensor_untrusted([piece])[1, 2] == -123.5
    with pytest.raises(LocalProtocolError, match="uint16"):
        bf16_slice(cast(Any, BF16_BITS.astype(np.int32)))
    with pytest.raises(LocalProtocolError, match="NaN"):
        bf16_slice(BF16_NAN)


@given(st.integers(0, 0xFFFF))
def test_a_bf16_is_sent_if_it_is_a_number(bits: int) -> None:
    array = np.array([bits], np.uint16)
    number = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if np.isfinite(number).all():
        assert (slice_view_untrusted(bf16_slice(array)) == array).all()
    else:
        with pytest.raises(LocalProtocolError):
            bf16_slice(array)


@pytest.mark.parametrize("kind", ["f2", "f4"])
def test_a_frame_that_lands_well_is_looked_at_where_it_landed(kind: str) -> None:
    array = np.arange(6).astype(kind).reshape(2, 3)
    piece = landed(tensor_slice(array), behind=1)
    view = slice_view_untrusted(piece)
    assert view.flags.aligned
    assert address(into(view, np.from_dlpack)) == payload_address(piece)
    assert (view == array).all()


@pytest.mark.parametrize("kind", ["f2", "f4"])
def test_a_frame_that_lands_anyhow_costs_one_copy(kind: str) -> None:
    array = np.arange(6).astype(kind).reshape(2, 3)
    piece = landed(tensor_slice(array), behind=0)
    view = slice_view_untrusted(piece)
    assert not view.flags.aligned
    other = into(view, np.from_dlpack)
    assert other.flags.aligned
    assert not np.shares_memory(other, view)
    assert (other == array).all()


def test_memory_that_is_read_only_is_copied_for_a_library_without_a_word_for_it() -> None:
    view = slice_view_untrusted(Slice(DType.F32, (2,), bytes(8)))

    def picky(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.from_dlpack(cast(Any, Old(array)))

    class Old(Foreign):
        def __dlpack__(self, **how: Any) -> object:
            return self._array.__dlpack__()

    assert not view.flags.writeable
    assert into(view, picky).tolist() == [0, 0]


def test_what_is_to_be_written_into_is_copied() -> None:
    received = bytearray(8)
    view = slice_view_untrusted(Slice(DType.F32, (2,), memoryview(received)))
    into(view, np.asarray, own=True)[0] = 1
    assert received == bytes(8)


@pytest.mark.parametrize(
    "piece",
    [
        Slice(DType.Q4, (2,), b"\0"),
        Slice(DType.Q2, (4,), b"\0"),
        Slice(DType.COO, (4,), bytes(2)),
        Slice(DType.F16, (1,) * 65, bytes(2)),
        Slice(DType.I8, (0, *(0xFFFFFFFF,) * 3), b""),
    ],
)
def test_what_is_no_plain_array_is_refused(piece: Slice) -> None:
    with pytest.raises(RemoteProtocolError):
        slice_view_untrusted(piece)


def test_neither_library_is_imported() -> None:
    code = (
        "import sys, p2pnode.wire.arrays; sys.exit(any(n in sys.modules for n in ('torch', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# torch


@pytest.mark.parametrize("name", ["float16", "float32", "int8"])
def test_a_tensor_of_torch_goes_and_comes_back(name: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    assert address(as_numpy(tensor)) == tensor.data_ptr()
    piece = tensor_slice(tensor)
    assert payload_address(piece) == tensor.data_ptr()
    received = landed(piece, behind=1)
    back = into(slice_view_untrusted(received), torch.from_dlpack)
    assert back.dtype == tensor.dtype
    assert back.data_ptr() == payload_address(received)
    assert torch.equal(back, tensor)


def test_bf16_of_torch_goes_and_comes_back_bit_for_bit() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_dlpack(BF16_BITS.copy()).view(torch.bfloat16)
    piece = tensor_slice(tensor)
    assert payload_address(piece) == tensor.data_ptr()
    assert bytes(piece.payload) == BF16_BITS.tobytes()
    received = landed(piece, behind=1)
    back = into(slice_view_untrusted(received), torch.from_dlpack).view(torch.bfloat16)
    assert back.data_ptr() == payload_address(received)
    assert torch.equal(back.view(torch.uint16), tensor.view(torch.uint16))
    assert (as_numpy(tensor) == tensor.float().numpy()).all()
    assert bytes(tensor_slice(tensor.T).payload) == BF16_BITS.T.tobytes()


def test_received_bytes_become_a_tensor_of_torch_where_they_lie() -> None:
    torch = pytest.importorskip("torch")
    view = slice_view_untrusted(Slice(DType.F32, (4,), bytes(16)))
    assert not view.flags.writeable
    assert into(view, torch.from_dlpack).data_ptr() == address(view)
    assert into(view, torch.from_dlpack, own=True).data_ptr() != address(view)


def test_what_torch_cannot_show_is_refused() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.ones(2, requires_grad=True),
        torch.ones(2, requires_grad=True, dtype=torch.bfloat16),
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, dtype=torch.complex64),
        torch.tensor([1 + 2j]).conj().imag,
    ):
        for look in (as_numpy, tensor_slice):
            with pytest.raises(LocalProtocolError):
                look(tensor)
    assert tensor_slice(torch.ones(2, requires_grad=True).detach()).shape == (2,)


# JAX


@pytest.mark.parametrize("name", ["float16", "float32", "int8"])
def test_an_array_of_jax_goes_and_comes_back(name: str) -> None:
    jax = pytest.importorskip("jax")
    tensor = jax.numpy.arange(6, dtype=name).reshape(2, 3)
    assert address(as_numpy(tensor)) == tensor.unsafe_buffer_pointer()
    piece = tensor_slice(tensor)
    assert payload_address(piece) == tensor.unsafe_buffer_pointer()
    received = landed(piece, behind=64 - 43)
    assert payload_address(received) % 64 == 0
    back = into(slice_view_untrusted(received), jax.dlpack.from_dlpack)
    assert back.unsafe_buffer_pointer() == payload_address(received)
    assert back.dtype == tensor.dtype
    assert (back == tensor).all()


def test_bf16_of_jax_goes_and_comes_back_bit_for_bit() -> None:
    jax = pytest.importorskip("jax")
    tensor = jax.numpy.asarray(BF16_BITS).view(jax.numpy.bfloat16)
    piece = tensor_slice(tensor)
    assert payload_address(piece) == tensor.unsafe_buffer_pointer()
    assert bytes(piece.payload) == BF16_BITS.tobytes()
    bits = into(slice_view_untrusted(landed(piece, behind=1)), jax.dlpack.from_dlpack)
    assert (bits.view(jax.numpy.bfloat16) == tensor).all()


def test_received_bytes_are_copied_for_jax() -> None:
    jax = pytest.importorskip("jax")
    view = slice_view_untrusted(Slice(DType.F32, (4,), bytes(16)))
    back = into(view, jax.dlpack.from_dlpack)
    assert back.unsafe_buffer_pointer() != address(view)
    assert back.tolist() == [0] * 4
