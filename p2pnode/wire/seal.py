"""XChaCha20-Poly1305 over a frame's body, under nonces that both sides derive.

The 24-byte nonce never travels: it is the session's salt (12) | stream_id (4) | frame_seq (8).
One key serves one session and one direction, so two frames share a nonce only if a writer
repeats a (stream_id, frame_seq), which :class:`FrameSealer` refuses.
"""

import struct
from bisect import bisect_right

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from p2pnode.errors import LocalProtocolError, NonceReuseError, RemoteProtocolError

KEY_SIZE = 32
SALT_SIZE = 12
MAC_SIZE = 16

_COUNTERS = struct.Struct("<IQ")  # stream_id, frame_seq: little-endian, as V-Frame is


class FrameSealer:
    """The writing side of one session and direction."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        _check_key(key, salt)
        self._key = key
        self._salt = salt
        self._used: dict[int, _UsedNumbers] = {}

    def seal(self, body: bytes, header: bytes, *, stream_id: int, frame_seq: int) -> bytes:
        """Return the ciphertext of ``body`` and its MAC, which covers ``header`` too.

        Raises:
            NonceReuseError: This (stream_id, frame_seq) was sealed before.
        """
        nonce = _nonce(self._salt, stream_id, frame_seq)
        self._used.setdefault(stream_id, _UsedNumbers()).add(frame_seq)
        return crypto_aead_xchacha20poly1305_ietf_encrypt(body, header, nonce, self._key)


class FrameOpener:
    """The reading side of one session and direction.

    It keeps no memory of what it opened: a frame that comes twice opens twice, and telling the
    two apart is the transport's work.
    """

    def __init__(self, key: bytes, salt: bytes) -> None:
        _check_key(key, salt)
        self._key = key
        self._salt = salt

    def open_untrusted(
        self, sealed: bytes, header: bytes, *, stream_id: int, frame_seq: int
    ) -> bytes:
        """Return the plain body.

        Raises:
            RemoteProtocolError: Too short for a MAC, or the MAC does not match.
        """
        if len(sealed) < MAC_SIZE:
            raise RemoteProtocolError("a sealed body is shorter than its MAC")
        nonce = _nonce(self._salt, stream_id, frame_seq)
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, self._key)
        except CryptoError as error:
            raise RemoteProtocolError("a sealed body's MAC does not match") from error


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


def _nonce(salt: bytes, stream_id: int, frame_seq: int) -> bytes:
    try:
        return salt + _COUNTERS.pack(stream_id, frame_seq)
    except struct.error as error:
        raise LocalProtocolError(f"no nonce for {stream_id}, {frame_seq}") from error


def _check_key(key: bytes, salt: bytes) -> None:
    if len(key) != KEY_SIZE or len(salt) != SALT_SIZE:
        raise LocalProtocolError(f"a key has {KEY_SIZE} bytes and a salt {SALT_SIZE}")
