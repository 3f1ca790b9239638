"""XChaCha20-Poly1305 over a frame's body, under nonces that both sides derive.

The 24-byte nonce never travels: it is the session's salt (12) | stream_id (4) | frame_seq (8).
One key serves one session and one direction, so two frames share a nonce only if a writer
repeats a (stream_id, frame_seq), which :class:`FrameSealer` refuses.
"""

import struct
from bisect import bisect_right

from p2pnode.errors import LocalProtocolError, NonceReuseError, RemoteProtocolError
from p2pnode.wire.xchacha import XChaCha20Poly1305

KEY_SIZE = 32
SALT_SIZE = 12
MAC_SIZE = 16

_MOST_STREAMS = 256
"""Streams whose ciphers are kept: deriving one costs as much as sealing two frames."""

_STREAM = struct.Struct("<I")
_NUMBER = struct.Struct("<Q")


class FrameSealer:
    """The writing side of one session and direction."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._ciphers = _Ciphers(key, salt)
        self._used: dict[int, _UsedNumbers] = {}

    def seal(self, body: bytes, header: bytes, *, stream_id: int, frame_seq: int) -> bytes:
        """Return the ciphertext of ``body`` and its MAC, which covers ``header`` too.

        Raises:
            NonceReuseError: This (stream_id, frame_seq) was sealed before.
        """
        cipher = self._ciphers.of(stream_id)
        number = _number(frame_seq)
        used = self._used.get(stream_id)
        if used is None:
            used = self._used[stream_id] = _UsedNumbers()
        used.add(frame_seq)
        return cipher.seal(body, header, number)


class FrameOpener:
    """The reading side of one session and direction.

    It keeps no memory of what it opened: a frame that comes twice opens twice, and telling the
    two apart is the transport's work.
    """

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._ciphers = _Ciphers(key, salt)

    def open_untrusted(
        self, sealed: bytes, header: bytes, *, stream_id: int, frame_seq: int
    ) -> bytes:
        """Return the plain body.

        Raises:
            RemoteProtocolError: Too short for a MAC, or the MAC does not match.
        """
        if len(sealed) < MAC_SIZE:
            raise RemoteProtocolError("a sealed body is shorter than its MAC")
        cipher = self._ciphers.of(stream_id)
        try:
            return cipher.open_untrusted(sealed, header, _number(frame_seq))
        except RemoteProtocolError as error:
            raise RemoteProtocolError("a sealed body's MAC does not match") from error


class _Ciphers:
    """A cipher for each stream: the first 16 bytes of a nonce are the salt and the stream's id."""

    __slots__ = ("_by_stream", "_key", "_salt")

    def __init__(self, key: bytes, salt: bytes) -> None:
        if len(key) != KEY_SIZE or len(salt) != SALT_SIZE:
            raise LocalProtocolError(f"a key has {KEY_SIZE} bytes and a salt {SALT_SIZE}")
        self._key = key
        self._salt = salt
        self._by_stream: dict[int, XChaCha20Poly1305] = {}

    def of(self, stream_id: int) -> XChaCha20Poly1305:
        cipher = self._by_stream.get(stream_id)
        if cipher is not None:
            return cipher
        if stream_id >> 32:
            raise LocalProtocolError(f"no nonce for stream {stream_id}")
        if len(self._by_stream) >= _MOST_STREAMS:  # the peer chooses ids, and not our memory
            self._by_stream.clear()
        cipher = XChaCha20Poly1305(self._key, self._salt + _STREAM.pack(stream_id))
        self._by_stream[stream_id] = cipher
        return cipher


class _UsedNumbers:
    """Every frame_seq used so far, as sorted runs [start, stop); one run while in order."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, number: int) -> None:
        starts, stops = self._starts, self._stops
        at = bisect_right(starts, number)  # the run that could hold it is at - 1
        if at and number < stops[at - 1]:
            raise NonceReuseError(f"frame_seq {number} of this stream was sealed before")
        joins_before = at > 0 and stops[at - 1] == number
        joins_after = at < len(starts) and starts[at] == number + 1
        if joins_before and joins_after:
            stops[at - 1] = stops.pop(at)
            del starts[at]
        elif joins_before:
            stops[at - 1] = number + 1
        elif joins_after:
            starts[at] = number
        else:
            starts.insert(at, number)
            stops.insert(at, number + 1)


def _number(frame_seq: int) -> bytes:
    if frame_seq >> 64:
        raise LocalProtocolError(f"no nonce for frame {frame_seq}")
    return _NUMBER.pack(frame_seq)
