"""Frames that the programs of members send each other through their nodes: an Ask or a Critique.

No answer is made of such frames, so nothing that a program says can touch the protocol's own. They
are kept until the program takes them, so many bytes of each peer and so many in all; what is
beyond is dropped and counted here, and its sender does not hear of it.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final, TypeAlias

from p2pnode.errors import BusyError, RemoteProtocolError, UserError
from p2pnode.node.config import ProgramFramesConfig
from p2pnode.node.outbox import Outbox
from p2pnode.sansio import NodeId
from p2pnode.values import value
from p2pnode.wire.messages import Ask, Critique, parse_message_untrusted
from p2pnode.wire.vframe import Frame, MessageType

PERMITTED: Final = (MessageType.ASK, MessageType.CRITIQUE)
"""What a program may send. Thinks, Caches and Syncs are the nodes' own."""

ProgramMessage: TypeAlias = Ask | Critique

_OVERHEAD = 512  # bytes of a message beside its payloads; a guess


@value
class Received:
    """A message of the program that runs ``peer``."""

    peer: NodeId
    message: ProgramMessage


class ProgramFrames:
    """What our program sends, and what waits for it.

    Invariants: ``_held`` has the frames and bytes of each peer in ``_waiting``, and of no other.

    Attributes:
        is_open: Whether a program takes frames; before, they are refused as not served.
        counters: What came, and what was dropped, by reason.
    """

    def __init__(
        self,
        config: ProgramFramesConfig,
        node_id: NodeId,
        outbox: Outbox,
        is_connected: Callable[[NodeId], bool],
    ) -> None:
        self.is_open = False
        self.counters: Counter[str] = Counter()
        self._config = config
        self._node_id = node_id
        self._outbox = outbox
        self._is_connected = is_connected
        self._waiting: deque[tuple[Received, int]] = deque()
        self._held: dict[NodeId, tuple[int, int]] = {}
        self._bytes = 0

    def open(self) -> None:
        """Keep frames from here on."""
        self.is_open = True

    def close(self) -> None:
        """Keep none any more; those that wait are dropped."""
        self.is_open = False
        self.counters["program frame dropped: nobody took it"] += len(self._waiting)
        self._waiting.clear()
        self._held.clear()
        self._bytes = 0

    def send(self, peer: NodeId, frame: Frame, now: float) -> None:
        """Send a frame to the program of ``peer``, or to our own.

        Raises:
            UserError: It is of the nodes' own kinds, or no message.
            BusyError: There is no session with the peer, or too much is under way to it: a program
                must not fill the queue that answers need.
        """
        if frame.type not in PERMITTED:
            raise UserError(
                f"a program cannot send a {frame.type.name.lower()}: those are the nodes' own",
                hint="send an Ask or a Critique",
            )
        try:
            parse_message_untrusted(frame)
        except RemoteProtocolError as error:
            raise UserError(f"this frame is no message: {error}") from error
        if peer != self._node_id:
            self._refuse_unsendable(peer)
        if not self._outbox.send_frame(peer, frame, now):
            raise BusyError(
                "too much waits to be sent to this and other peers",
                hint="send less, or try again in a moment",
            )

    def concerns(self, frame: Frame) -> bool:
        """Whether a frame is for our program."""
        return self.is_open and frame.type in PERMITTED

    def receive_untrusted(self, frame: Frame, source: NodeId) -> bool:
        """Keep a frame that :meth:`concerns` our program; return whether it waits now as the first.

        Raises:
            RemoteProtocolError: It is no message.
        """
        message = parse_message_untrusted(frame)
        if not isinstance(message, Ask | Critique):
            raise RemoteProtocolError("no frame of a program's")
        size = _OVERHEAD + sum(len(piece.payload) for piece in frame.slices)
        if not self._has_room(source, size):
            return False
        frames, held = self._held.get(source, (0, 0))
        self._held[source] = frames + 1, held + size
        self._bytes += size
        self._waiting.append((Received(source, message), size))
        self.counters["program frame received"] += 1
        return len(self._waiting) == 1

    def take(self) -> Received | None:
        """Hand over the oldest message that waits, or None."""
        if not self._waiting:
            return None
        received, size = self._waiting.popleft()
        self._bytes -= size
        frames, held = self._held.pop(received.peer)
        if frames > 1:
            self._held[received.peer] = frames - 1, held - size
        return received

    def _refuse_unsendable(self, peer: NodeId) -> None:
        if not self._is_connected(peer):
            raise BusyError(
                "there is no session with this peer", hint="try again in a moment, if it is alive"
            )
        if self._outbox.under_way(peer) > self._config.under_way_bytes:
            raise BusyError(
                "the peer has yet to acknowledge what was sent before",
                hint="send less, or try again in a moment",
            )

    def _has_room(self, source: NodeId, size: int) -> bool:
        """Whether so many bytes more of ``source`` may wait; counts why they may not."""
        config = self._config
        frames, held = self._held.get(source, (0, 0))
        if frames >= config.most_each or held + size > config.bytes_each:
            self.counters["program frame dropped: too many of its peer wait"] += 1
            return False
        if self._bytes + size > config.bytes_total:
            self.counters["program frame dropped: too many wait"] += 1
            return False
        return True
