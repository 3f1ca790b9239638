"""Rice codes, without a loop: for the rows of a decoding, too short for tables of their own.

R. F. Rice, "Some practical universal noiseless coding techniques", 1979. A number goes to
``u = 2 n``, or ``-2 n - 1`` below zero; its lowest ``k`` bits are sent as they are and the rest
``h`` as ``h`` zeros and a one. Both ends know each channel's ``k``. Reading needs no loop either:
the ones of the second part tell every ``h`` at once.

Block: the low bits, plane after plane, the lowest first, each of the rows of those channels
whose ``k`` exceeds it; then the zeros and ones. The first in the highest bits; zeros fill the
last byte.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import RemoteProtocolError

Codes: TypeAlias = npt.NDArray[np.int8]
Counts: TypeAlias = npt.NDArray[np.uint8]


def encode_rice(codes: Codes, low: Counts) -> bytes:
    """Return the block of ``codes``.

    Args:
        codes: [tokens, d], from -127 to 127.
        low: [d], how many low bits each channel's numbers have, 0 to 7, never rising.
    """
    folded = ((codes << 1) ^ (codes >> 7)).view(np.uint8)  # [tokens, d]
    ends = (folded >> low).reshape(-1).astype(np.int32)  # [tokens * d]
    ends += 1
    np.cumsum(ends, out=ends)
    stops = np.zeros(int(ends[-1]), np.uint8)
    ends -= 1
    stops[ends] = 1
    planes = [
        ((folded[:, :channels] >> plane) & 1).reshape(-1)  # [tokens * channels]
        for plane, channels in enumerate(_channels(low))
    ]
    return np.packbits(np.concatenate([*planes, stops])).tobytes()


def decode_rice_untrusted(block: bytes | memoryview, tokens: int, low: Counts) -> Codes:
    """Return the codes [tokens, d] of a block.

    Raises:
        RemoteProtocolError: It is not the block of exactly so many numbers.
    """
    wanted = tokens * len(low)
    bits = np.unpackbits(np.frombuffer(block, np.uint8))
    planes = _channels(low)
    stops_at = tokens * sum(planes)
    stops = np.flatnonzero(bits[stops_at:])  # [tokens * d]
    if len(stops) != wanted or stops_at + stops[-1] + 8 < len(bits):
        raise RemoteProtocolError("a block of Rice codes that does not come out even")
    high = np.diff(stops, prepend=-1)
    high -= 1
    high = high.reshape(tokens, -1)  # [tokens, d]
    high <<= low
    if high.max() > 254:
        raise RemoteProtocolError("a Rice code beyond its range")
    folded = high.astype(np.uint8)  # [tokens, d]
    at = 0
    for plane, channels in enumerate(planes):
        some = bits[at : at + tokens * channels].reshape(tokens, channels)
        folded[:, :channels] |= some << plane
        at += tokens * channels
    return (folded >> 1).view(np.int8) ^ -(folded & 1).view(np.int8)


def _channels(low: Counts) -> list[int]:
    """Return how many channels, the first ones, have a bit in each plane."""
    # Never rising: so those that have the bit stand first.
    return [int(np.count_nonzero(low > plane)) for plane in range(int(low[0]))]
