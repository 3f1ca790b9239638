"""Tensors of other libraries onto the wire and back, without a copy where they allow it.

Nothing here imports torch or JAX: a tensor is whatever supports DLPack or the buffer protocol, and
the library that shall have one is passed in as its ``from_dlpack``. What costs a copy, as found
with numpy 2.4, torch 2.13 and JAX 0.10:

- Towards the wire: what does not lie row by row, and big-endian numbers. BF16, which numpy does
  not know, is looked at as its bits: nothing is converted, nothing rounded.
- From the wire, misaligned payloads. In a frame at an even address the first payload begins at
  an odd one (31 bytes, and multiples of 4, precede it): a receiver that wants F16 and F32 without
  a copy lets the frame begin one byte behind a multiple of 4. In an inflated or opened body it
  begins 2 bytes behind one, which suits F16 alone.
- From the wire, JAX copies what does not begin at a multiple of 64 bytes, and refuses memory that
  is read only, as received ``bytes`` are; :func:`into` copies for it. torch takes both as they are.
"""

import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

Array: TypeAlias = npt.NDArray[Any]
T = TypeVar("T")

_CPU, _PINNED = 1, 3  # kDLCPU, and kDLCUDAHost: memory of the host, too (dlpack.h)
_BF16_EXPONENT = np.uint16(0x7F80)  # all ones: an infinity or NaN
_ON_THE_WIRE = {"f2": DType.F16, "f4": DType.F32, "i1": DType.I8}
_LAYOUTS: dict[int, str] = {DType.F16: "<f2", DType.F32: "<f4", DType.I8: "i1", DType.BF16: "<u2"}


class SupportsDLPack(Protocol):
    """A tensor of any library, as the array API standard has it."""

    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


def as_numpy(tensor: SupportsDLPack | npt.ArrayLike) -> Array:
    """Return a view of a tensor on the CPU, little-endian, of its own shape and strides.

    BF16 becomes float32, exactly, and that is a copy; :func:`tensor_slice` sends it as it is.

    Raises:
        LocalProtocolError: It is on another device, requires grad, or is not of real numbers.
    """
    array, is_bf16 = _viewed(tensor)
    if is_bf16:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return _real(array)


def tensor_slice(tensor: SupportsDLPack | npt.ArrayLike) -> Slice:
    """Return a tensor as the slice of its own type: F16, BF16, F32 or I8.

    The payload is the tensor's memory where that lies row by row: encode the frame before
    anything else is written there.

    Raises:
        LocalProtocolError: As :func:`as_numpy`; or the type has no code of its own on the wire
            (:func:`~p2pnode.wire.tensor.tensor_to_slices` converts), or holds NaN or infinities.
    """
    array, is_bf16 = _viewed(tensor)
    if is_bf16:
        return bf16_slice(array)
    array = _real(array)
    dtype = _ON_THE_WIRE.get(array.dtype.str[1:])
    if dtype is None:
        raise LocalProtocolError(f"{array.dtype} has no code of its own on the wire")
    if not np.isfinite(array).all():
        raise LocalProtocolError("NaN and infinities are not sent")
    return Slice(dtype, array.shape, _memory(array))


def bf16_slice(bits: npt.NDArray[np.uint16]) -> Slice:
    """Return the slice of a BF16 tensor given as its bits, of the same shape.

    Raises:
        LocalProtocolError: They are not 16 bits each, or hold NaN or infinities.
    """
    if bits.dtype.str[1:] != "u2":
        raise LocalProtocolError(f"the bits of BF16 are uint16, not {bits.dtype}")
    if ((bits & _BF16_EXPONENT) == _BF16_EXPONENT).any():
        raise LocalProtocolError("NaN and infinities are not sent")
    return Slice(DType.BF16, bits.shape, _memory(_little_endian(bits)))


def slice_view_untrusted(piece: Slice) -> Array:
    """Return the values of an F16, F32 or I8 slice, or the bits of a BF16 one, as uint16.

    A view of what was received, read only where that is ``bytes``, and perhaps misaligned.

    Raises:
        RemoteProtocolError: Another type, or a shape that no array has.
    """
    layout = _LAYOUTS.get(piece.dtype)
    if layout is None:
        raise RemoteProtocolError(f"dtype 0x{piece.dtype:02x} is no plain array")
    try:
        return np.frombuffer(piece.payload, layout).reshape(piece.shape)
    except ValueError as error:  # numpy's word for a shape it cannot have
        raise RemoteProtocolError(f"an impossible shape: {error}") from error


def into(array: Array, from_dlpack: Callable[[Array], T], *, own: bool = False) -> T:
    """Hand an array to another library: ``into(array, torch.from_dlpack)``.

    The result shares the array's memory where alignment and that library allow it. The bits of
    BF16 go over as uint16; ``.view(torch.bfloat16)`` there makes them numbers again.

    Args:
        array: For instance :func:`slice_view_untrusted` of a received slice.
        from_dlpack: The other library's function of this name.
        own: Copy first, so that operations in place do not write into what was received: torch
            has no tensors that are read only, and does not warn.

    Raises:
        BufferError: The library refuses even a copy.
    """
    if own or not array.flags.aligned:
        return from_dlpack(array.copy())
    try:
        return from_dlpack(array)
    except BufferError:  # it has no word for memory that is read only
        return from_dlpack(array.copy())


# Looking at a tensor


def _viewed(tensor: object) -> tuple[Array, bool]:
    """Return a tensor's numbers, or the bits of a BF16 one and true."""
    _refuse_unshown(tensor)
    if str(getattr(tensor, "dtype", "")).removeprefix("torch.") != "bfloat16":
        return _array(tensor), False
    torch = sys.modules.get("torch")  # no tensor of torch's is there without it
    if torch is not None and isinstance(tensor, torch.Tensor):
        return _array(tensor.view(torch.uint16)), True
    # JAX's, or numpy's own with the type of ml_dtypes: to numpy two opaque bytes.
    return np.asarray(cast(Any, tensor)).view(np.uint16), True


def _refuse_unshown(tensor: object) -> None:
    """Refuse what its library would hide, or show wrongly."""
    try:
        where = getattr(tensor, "__dlpack_device__", None)
        device = _CPU if where is None else int(where()[0])
    except ValueError as error:  # such as torch's "meta": a shape without memory
        raise LocalProtocolError(f"a tensor nowhere: {error}") from error
    if device not in (_CPU, _PINNED):
        raise LocalProtocolError(f"a tensor on DLPack's device {device}: copy it to the CPU")
    if getattr(tensor, "requires_grad", False):
        raise LocalProtocolError("a tensor that requires grad: detach() it")
    if getattr(tensor, "is_neg", bool)():  # torch 2.13 exports it without its sign
        raise LocalProtocolError("a tensor whose sign is pending: resolve_neg() it")


def _array(tensor: object) -> Array:
    if isinstance(tensor, np.ndarray) or not hasattr(tensor, "__dlpack__"):
        return np.asarray(cast(Any, tensor))
    try:
        return np.from_dlpack(cast(Any, tensor))
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise LocalProtocolError(f"a tensor that cannot be looked at: {error}") from error


def _real(array: Array) -> Array:
    if array.dtype.kind not in "fiu":
        raise LocalProtocolError(f"{array.dtype} are no real numbers")
    return _little_endian(array)


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _memory(array: Array) -> memoryview:
    """Return an array's bytes row by row: its own memory where it lies so, else a copy."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
