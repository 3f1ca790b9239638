"""What a fuzz target is, and the tools that all of them share."""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from zlib import crc32

from p2pnode.errors import P2PNodeError, RemoteProtocolError

T = TypeVar("T")
U = TypeVar("U")

MIB = 1 << 20
PEER_ONLY: tuple[type[Exception], ...] = (RemoteProtocolError,)


@dataclass(frozen=True, slots=True)
class Target:
    """One way in for hostile bytes.

    Attributes:
        name: Names its corpus, too.
        run: Reads an input, and asserts what holds of every input that is not refused.
        seeds: Inputs made by the real encoders.
        refusals: What ``run`` may raise; anything else is a finding.
        max_len: The longest input tried, in bytes.
        memory: The most bytes that reading one input may hold at any moment.
        words: What a mutator should know of the format.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    refusals: tuple[type[Exception], ...] = PEER_ONLY
    max_len: int = 4096
    memory: int = MIB
    words: tuple[bytes, ...] = ()

    def feed(self, data: bytes) -> bool:
        """Run one input; return whether it was accepted."""
        try:
            self.run(data)
        except self.refusals:
            return False
        return True


class Script:
    """Takes an input apart into the steps of a story, for targets that keep state."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.take(1)[0] if self else 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or what is left of them."""
        self._at += size
        return self._data[self._at - size : self._at]

    def blob(self) -> bytes:
        """Return the next run of bytes, which two bytes of length precede."""
        return self.take(int.from_bytes(self.take(2), "little"))


def surely(read: Callable[[T], U], what: T) -> U:
    """Return ``read(what)``, where a refusal would be a finding: we have written ``what``."""
    try:
        return read(what)
    except P2PNodeError as error:
        raise AssertionError(f"what was read cannot be read again: {error}") from error


def blob(data: bytes) -> bytes:
    """Return ``data`` as :meth:`Script.blob` reads it."""
    return struct.pack("<H", len(data)) + data


def with_crc(data: bytes) -> bytes:
    """Return ``data`` and the CRC32 that ends a V-Frame: no mutator would guess it."""
    return data + struct.pack("<I", crc32(data))
