"""From frames to sealed datagrams: the one place where a connection's datagrams are made."""

from p2pnode.errors import LocalProtocolError
from p2pnode.sansio import Address, Transmit
from p2pnode.transport.acks import Arrivals
from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig
from p2pnode.transport.congestion import Pacer
from p2pnode.transport.frames import (
    ACK_ROOM,
    DATAGRAM,
    PING_FRAME,
    SHARD_HEADER,
    done_frame,
    probe_frame,
    shard_header,
)
from p2pnode.transport.messages import Outgoing
from p2pnode.transport.packets import DATA_OVERHEAD
from p2pnode.transport.path import Path
from p2pnode.transport.recovery import Recovery, SentPacket
from p2pnode.transport.session import Session
from p2pnode.transport.snapshot import Traffic

_DATAGRAM_FRAME = bytes([DATAGRAM])
BASE_ROOM = BASE_DATAGRAM - DATA_OVERHEAD - len(_DATAGRAM_FRAME)
"""Bytes of a DATAGRAM message that every ordinary path carries."""

_PING_ROOM = 200
_MOST_DONE = 64  # notices of rebuilt messages that may wait; they are only a courtesy
_DONE_SIZE = 5


class Outlet:
    """Seals frames, lets acknowledgements ride along, and notes what must be acknowledged.

    Attributes:
        address: Where the peer is; it may move.
        arrivals: What came from the peer, and is to be acknowledged.
        recovery: What is in flight.
        pacer: How fast it may leave.
        is_pressed: Whether the window is half full: acknowledgements are asked for at once.
    """

    def __init__(
        self,
        config: TransportConfig,
        session: Session,
        path: Path,
        recovery: Recovery,
        *,
        address: Address,
        traffic: Traffic,
        outbox: list[Transmit[Address]],
        now: float,
    ) -> None:
        """Datagrams are appended to ``outbox`` and counted in ``traffic``."""
        self.address = address
        self.arrivals = Arrivals(config.max_ack_delay, config.ack_every)
        self.pacer = Pacer(config.pacing_burst, now)
        self.recovery = recovery
        self._session = session
        self._path = path
        self._traffic = traffic
        self._outbox = outbox
        self.is_pressed = False
        self._done: list[int] = []

    @property
    def shard_size(self) -> int:
        """Bytes of a message that one datagram carries, an acknowledgement beside them."""
        return self._path.datagram - DATA_OVERHEAD - SHARD_HEADER - ACK_ROOM

    @property
    def datagram_room(self) -> int:
        """Bytes of a DATAGRAM message that the path carries."""
        return self._path.datagram - DATA_OVERHEAD - len(_DATAGRAM_FRAME)

    def owe_done(self, message: int) -> None:
        """Let the peer know, with the next acknowledgement, that it may stop."""
        if len(self._done) < _MOST_DONE:
            self._done.append(message)

    def send_shard(self, message: Outgoing, index: int, now: float, *, again: bool = False) -> None:
        """Send a shard; ``again`` when it is not the next one waiting."""
        data = message.shard(index)
        header = shard_header(
            message.delivery,
            message.id,
            message.size,
            message.count,
            index,
            immediate_ack=again
            or message.count > 1  # a large one, whose arrival tells what the path carries
            or not self.recovery.is_patient
            or self.is_pressed,
        )
        room = self._path.datagram - DATA_OVERHEAD - SHARD_HEADER - len(data)
        prefix, told = self._told(room, now)
        message.on_sent(index, again=again)
        self._track(prefix + header + data, message, index, told, now)

    def send_ping(self, now: float) -> None:
        """Ask for an acknowledgement."""
        prefix, told = self._told(_PING_ROOM, now)
        self._track(prefix + PING_FRAME, None, 0, told, now)

    def send_probe(self, size: int, now: float) -> None:
        """Send a datagram of padding, ``size`` bytes in all."""
        self._track(probe_frame(size - DATA_OVERHEAD), None, 0, -1, now, is_probe=True)

    def send_datagram(self, payload: bytes, now: float) -> None:
        """Send a message once.

        Raises:
            LocalProtocolError: It does not fit one datagram.
        """
        room = self.datagram_room
        if len(payload) > room:
            raise LocalProtocolError(f"{len(payload)} bytes do not fit one datagram of {room}")
        prefix, _ = self._told(room - len(payload), now)
        self.send_frames(prefix + _DATAGRAM_FRAME + payload, now)

    def send_ack(self, now: float) -> None:
        """Send the acknowledgement owed, alone."""
        prefix, _ = self._told(self._path.datagram - DATA_OVERHEAD, now)
        self.send_frames(prefix, now)

    def send_frames(self, frames: bytes, now: float, *, is_probe: bool = False) -> int:
        """Send frames whose loss does not matter; return the datagram's size."""
        datagram = self._session.seal(frames, now)
        size = len(datagram)
        self._outbox.append(Transmit(self.address, datagram, is_probe))
        self.pacer.spend(size)
        self._traffic.bytes_out += size
        self._traffic.datagrams_out += 1
        return size

    def _track(
        self,
        frames: bytes,
        message: Outgoing | None,
        index: int,
        told: int,
        now: float,
        *,
        is_probe: bool = False,
    ) -> None:
        """Send frames whose arrival matters."""
        number = self._session.next_number
        size = self.send_frames(frames, now, is_probe=is_probe)
        geometry = 0 if message is None else message.geometry
        self.recovery.sent(SentPacket(number, now, size, message, index, geometry, told, is_probe))

    def _told(self, room: int, now: float) -> tuple[bytes, int]:
        """Return what the peer is to know, if there is room, and the highest number told."""
        if self.arrivals.due is None or room < ACK_ROOM:
            return b"", -1
        if not self._done and (taken := self.arrivals.take_frame(now)) is not None:
            return taken
        ack = self.arrivals.take(now)
        if ack is None:
            return b"", -1
        if not self._done:
            return ack.encode(room), ack.largest
        done = self._done[: (room - ACK_ROOM) // _DONE_SIZE]
        del self._done[: len(done)]
        notices = b"".join(done_frame(message) for message in done)
        return notices + ack.encode(room - len(notices)), ack.largest
