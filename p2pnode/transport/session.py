"""Sealing and opening the datagrams of one connection.

A packet number is a 16-bit key epoch above a 48-bit counter that never restarts, so nonces differ
even across keys and the replay window outlives a rekey. A sender moves to the next key whenever it
likes, by time or count; the receiver follows on the first packet that opens under it and keeps the
key before for latecomers: no pause, no message about it (as QUIC's key update, RFC 9001, section 6,
with the epoch written out instead of one bit). Keys follow from one another one way: whoever steals
today's cannot read yesterday's.
"""

import hashlib

from p2pnode.errors import NonceReuseError, RemoteProtocolError
from p2pnode.transport.packets import DATA_HEADER, DroppedError, Kind
from p2pnode.transport.replay import ReplayWindow
from p2pnode.wire.xchacha import XChaCha20Poly1305

_COUNTER_BITS = 48
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_LAST_EPOCH = 0xFFFF
_INDEX_END = 5  # kind and index; the packet number after them is the end of the nonce


class Session:
    """Both directions' keys; made by a finished handshake."""

    def __init__(
        self,
        sending: bytes,
        receiving: bytes,
        remote_index: int,
        *,
        rekey_seconds: float,
        rekey_packets: int,
        now: float,
    ) -> None:
        self._remote_index = remote_index
        self._rekey_seconds = rekey_seconds
        self._rekey_packets = rekey_packets
        self._next_counter = 0
        self._epoch = 0
        self._key = _DataKey(sending)
        self._rekey_at = now + rekey_seconds
        self._rekey_from = rekey_packets
        self._newest_epoch = 0
        self._opening = {0: _DataKey(receiving)}
        self._opening[1] = self._opening[0].next()
        self._replay = ReplayWindow()

    @property
    def epochs(self) -> tuple[int, int]:
        """How often our sending and the peer's sending key were replaced."""
        return self._epoch, self._newest_epoch

    @property
    def newest(self) -> int:
        """The highest counter opened so far, -1 before the first."""
        return self._replay.newest

    @property
    def next_number(self) -> int:
        """The counter the next sealed packet will bear."""
        return self._next_counter

    def seal(self, frames: bytes, now: float) -> bytes:
        """Return the datagram that carries ``frames`` under the next packet number."""
        counter = self._next_counter
        if now >= self._rekey_at or counter >= self._rekey_from:
            self._advance(now)
        number = self._epoch << _COUNTER_BITS | counter
        self._next_counter = counter + 1
        header = DATA_HEADER.pack(Kind.DATA, self._remote_index, number)
        return header + self._key.cipher.seal(frames, header, header[_INDEX_END:])

    def open_untrusted(self, datagram: bytes) -> tuple[int, bytes]:
        """Return the counter and the frames of a datagram that only the peer can have made.

        Raises:
            DroppedError: It is too short, forged, or was opened before; nothing changed.
        """
        if len(datagram) < DATA_HEADER.size + 16:
            raise DroppedError("data_malformed")
        number: int = DATA_HEADER.unpack_from(datagram)[2]
        counter, epoch = number & _COUNTER_MASK, number >> _COUNTER_BITS
        key = self._opening.get(epoch)
        if key is None:
            raise DroppedError("data_forged", f"no key has epoch {epoch}")
        if not self._replay.is_fresh(counter):
            raise DroppedError("data_replayed", f"packet {counter} came twice or far too late")
        header, sealed = datagram[: DATA_HEADER.size], datagram[DATA_HEADER.size :]
        try:
            frames = key.cipher.open_untrusted(sealed, header, header[_INDEX_END:])
        except RemoteProtocolError as error:
            raise DroppedError("data_forged") from error
        self._replay.mark(counter)
        if epoch > self._newest_epoch:
            self._follow(epoch)
        return counter, frames

    def _advance(self, now: float) -> None:
        if self._epoch == _LAST_EPOCH or self._next_counter >= _COUNTER_MASK:
            raise NonceReuseError("a connection has used up its packet numbers")
        self._epoch += 1
        self._key = self._key.next()
        self._rekey_at = now + self._rekey_seconds
        self._rekey_from = self._next_counter + self._rekey_packets

    def _follow(self, epoch: int) -> None:
        """Keep the key before, the current, and the next one; forget older ones."""
        self._newest_epoch = epoch
        self._opening.pop(epoch - 2, None)
        self._opening[epoch + 1] = self._opening[epoch].next()


class _DataKey:
    """A key, and the 16 bytes its nonces begin with, as a cipher."""

    __slots__ = ("_chain", "cipher")

    def __init__(self, chain: bytes) -> None:
        self._chain = chain
        key = hashlib.blake2s(b"p2pnode data key", key=chain).digest()
        prefix = hashlib.blake2s(b"p2pnode nonce", key=chain, digest_size=16).digest()
        self.cipher = XChaCha20Poly1305(key, prefix)

    def next(self) -> "_DataKey":
        return _DataKey(hashlib.blake2s(b"p2pnode next key", key=self._chain).digest())
