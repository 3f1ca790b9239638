"""Which connection wakes next, without looking at all of them for each datagram.

Every packet moves its connection's timers, so the two *in hand* (the last ones touched; a stage of
a chain has one before it and one after) are looked at directly, and take their place in a heap only
when others are taken in hand. An entry that turns out too early is put back where it belongs once
it comes to the top; one that is no longer its connection's is dropped there.
"""

from heapq import heappop, heappush, heapreplace
from math import inf
from typing import Generic, Protocol, TypeVar

from p2pnode.transport.timers import Timers


class Timed(Protocol):
    """What is known of a connection here.

    Attributes:
        timers: They may change while it is in hand.
        wake: The moment of its entry; infinity without one. Nobody else writes it.
        ended: None while it lives.
    """

    timers: Timers
    wake: float
    ended: str | None


_IN_HAND = 2

ConnectionT = TypeVar("ConnectionT", bound=Timed)


class Schedule(Generic[ConnectionT]):
    """The connections of an endpoint by the moment of their next timer.

    Attributes:
        in_hand: The connections touched last; :meth:`take` another before touching it.
    """

    def __init__(self) -> None:
        self.in_hand: list[ConnectionT] = []
        self._heap: list[tuple[float, int, ConnectionT]] = []
        self._entries = 0  # told apart by number: the same moments, the same order

    def take(self, connection: ConnectionT) -> None:
        """``connection`` is about to be touched."""
        in_hand = self.in_hand
        if connection in in_hand:
            return
        if len(in_hand) == _IN_HAND:
            self._file(in_hand.pop(0))
        in_hand.append(connection)

    def drop(self, connection: ConnectionT) -> None:
        """``connection`` has ended; its entries go when they come to the top."""
        if connection in self.in_hand:
            self.in_hand.remove(connection)

    def next_timeout(self) -> float:
        """Return when something is due; infinity when nothing is."""
        earliest = self._top()
        for connection in self.in_hand:
            moment = connection.timers.earliest
            if moment < earliest and connection.ended is None:
                earliest = moment
        return earliest

    def take_due(self, now: float) -> list[ConnectionT]:
        """Return the connections with a timer due, the earliest first; each wakes once."""
        for connection in self.in_hand:
            self._file(connection)
        self.in_hand.clear()
        due: list[ConnectionT] = []
        while self._top() <= now:
            connection = heappop(self._heap)[2]
            connection.wake = inf
            due.append(connection)
        return due

    def _file(self, connection: ConnectionT) -> None:
        moment = connection.timers.earliest
        if moment < connection.wake and connection.ended is None:
            connection.wake = moment
            self._entries += 1
            heappush(self._heap, (moment, self._entries, connection))

    def _top(self) -> float:
        """Return the heap's earliest moment, after putting right what stands at the top."""
        heap = self._heap
        while heap:
            moment, entry, connection = heap[0]
            if moment != connection.wake or connection.ended is not None:
                heappop(heap)
            elif connection in self.in_hand:
                heappop(heap)
                connection.wake = inf
            elif (earliest := connection.timers.earliest) > moment:
                if earliest == inf:
                    heappop(heap)
                else:
                    heapreplace(heap, (earliest, entry, connection))
                connection.wake = earliest
            else:
                return moment
        return inf
