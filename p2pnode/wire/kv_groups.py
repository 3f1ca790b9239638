"""Keys and values in groups, each with a scale of its own: nothing is known beforehand.

Half the size of half precision at a KL of .0001 (SmolLM2-135M, whole caches of 256 positions).
"""

from math import prod
from typing import Final

import numpy as np

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.compression import compress, decompress_untrusted
from p2pnode.wire.tensor import F32Array, fits_f16

_GROUP: Final = 64  # neighbours that share a scale, where a head parts into such


def encode_groups(array: F32Array) -> bytes:
    """Return an array [..., head_dim] as one zstd frame of codes i8 and scales f16.

    Raises:
        LocalProtocolError: A value is no number, or beyond what a scale can say.
    """
    if not array.size:
        return b""
    grouped = array.reshape(*array.shape[:-1], -1, group_length(array.shape[-1]))
    scales = np.abs(grouped).max(axis=-1) / np.float32(127)  # [..., groups]
    if not fits_f16(scales):
        raise LocalProtocolError("a key or value is no number, or absurdly large")
    scales = scales.astype(np.float16)
    per_step = scales.astype(np.float32)
    inverse = np.divide(1, per_step, out=np.zeros_like(per_step), where=per_step > 0)
    codes = np.clip(np.rint(grouped * inverse[..., None]), -127, 127)  # [..., groups, group]
    return compress(codes.astype(np.int8).tobytes() + scales.astype("<f2").tobytes())


def decode_groups_untrusted(data: bytes, shape: tuple[int, ...]) -> F32Array:
    """Return the array of this shape that :func:`encode_groups` was given.

    Raises:
        RemoteProtocolError: The bytes hold no such array.
    """
    count = prod(shape)
    if not count:
        if data:
            raise RemoteProtocolError("bytes where no position is coded in groups")
        return np.zeros(shape, np.float32)
    length = group_length(shape[-1])
    size = count + 2 * (count // length)
    body = decompress_untrusted(data, at_least=size, at_most=size)
    codes = np.frombuffer(body, np.int8, count).reshape(-1, length)  # [groups, group]
    scales = np.frombuffer(body, "<f2", offset=count).astype(np.float32)  # [groups]
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile scale may be infinite
        return (codes * scales[:, None]).reshape(shape)


def group_length(head_dim: int) -> int:
    """Return how many neighbours share a scale: 64, or the head where that does not part it."""
    return head_dim if head_dim % _GROUP else _GROUP
