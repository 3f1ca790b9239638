"""What the connections of one endpoint share."""

from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.sansio import Address, NodeId, Transmit
from p2pnode.transport.events import TransportEvent
from p2pnode.transport.memory import Memory


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where datagrams and events go, and what memory there is.

    Attributes:
        outbox: Datagrams to send are appended to it.
        events: Events are appended to it.
        memory: What messages under way may take.
        count: Counts something under a reason.
        on_move: Told the peer's address before and after it moves.
        cleared: Peers for whom messages had to wait here, and none that is urgent does any more.
    """

    outbox: list[Transmit[Address]]
    events: list[TransportEvent]
    memory: Memory
    count: Callable[[str], None]
    on_move: Callable[[Address, Address], None]
    cleared: dict[NodeId, None]
