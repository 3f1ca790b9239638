"""Whose turn it is: requesters share an engine by deficit round robin, counted in its time.

Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", 1995. Each visit gives
a requester a quantum of microseconds, its part of a step; it is served while what it has saved
covers the cost of what comes next, and what is left it keeps for the next visit. So whoever has two
hundred sessions gets no more than whoever has a few, and whoever sends large batches no more than
who sends small ones.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from p2pnode.sansio import NodeId
from p2pnode.scheduler.waiting import Group, SessionName, Waiting

MOST_LOOKED: Final = 256
"""Requesters looked at for one step; their sessions cost nothing until it is their turn."""


class Room(Protocol):
    """What there is room for in a step."""

    group: Group | None

    def takes(self, one: Waiting) -> bool:
        """Put ``one`` into the step; False where the step is full."""


@dataclass(slots=True)
class _Party:
    """One requester: what its sessions have, by what that may be computed with, oldest first.

    Attributes:
        deficit: Microseconds saved.
        is_visited: Whether its visit was interrupted by the end of a step, and goes on.
    """

    queues: dict[Group, OrderedDict[SessionName, Waiting]] = field(default_factory=dict)
    deficit: float = 0.0
    is_visited: bool = False

    def oldest(self, group: Group | None) -> Waiting | None:
        """Return what has waited longest, of a group or of all."""
        if group is not None:
            queue = self.queues.get(group)
            return None if queue is None else next(iter(queue.values()))
        heads = [next(iter(queue.values())) for queue in self.queues.values()]
        return min(heads, key=_since)


class FairRound:
    """What waits of one urgency and one model.

    Invariants: every requester in the round has something that waits, and nobody else keeps a
    deficit; of a session one thing waits at a time.
    """

    def __init__(self, cost: Callable[[Waiting], float]) -> None:
        """``cost`` says how many microseconds something takes by itself."""
        self._cost = cost
        self._round: OrderedDict[NodeId, _Party] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Return how many sessions wait."""
        return self._count

    @property
    def parties(self) -> int:
        """How many requesters wait."""
        return len(self._round)

    def first(self) -> Waiting | None:
        """Return what is served next, if anything waits; an empty step has room for it."""
        for party in self._round.values():
            return party.oldest(None)
        return None

    def add(self, one: Waiting) -> None:
        party = self._round.setdefault(one.requester, _Party())
        party.queues.setdefault(one.group, OrderedDict())[one.session] = one
        self._count += 1

    def remove(self, one: Waiting) -> None:
        """Take out what waits, whoever's turn it is."""
        party = self._round[one.requester]
        queue = party.queues[one.group]
        del queue[one.session]
        self._count -= 1
        if not queue:
            del party.queues[one.group]
        if not party.queues:
            del self._round[one.requester]

    def take(self, room: Room, quantum: float) -> list[Waiting]:
        """Fill ``room`` with what waits, in turns of ``quantum``; what is returned waits no more.

        Turns go on while nobody who was served has nothing left: else the others would fill what
        is one's share, and whoever comes back with the next token would wait for that.
        """
        taken: list[Waiting] = []
        names = self._with_work(room)
        while names:
            for name in names:
                if not self._visit(name, room, quantum, taken):
                    return taken
            names = self._with_work(room)
            if not {one.requester for one in taken} <= set(names):
                return taken
            if not taken:
                self._save(names, quantum)
        return taken

    def _with_work(self, room: Room) -> list[NodeId]:
        """Return who has something for ``room``, in their turns."""
        parties = islice(self._round.items(), MOST_LOOKED)
        return [name for name, party in parties if party.oldest(room.group) is not None]

    def _visit(self, name: NodeId, room: Room, quantum: float, taken: list[Waiting]) -> bool:
        """Serve one requester as far as it has saved; False where the step is full."""
        party = self._round[name]
        if party.oldest(room.group) is None:
            return True  # the step turned out to be for what others have
        if not party.is_visited:
            party.is_visited, party.deficit = True, party.deficit + quantum
        while (one := party.oldest(room.group)) is not None:
            cost = self._cost(one)
            if cost > party.deficit:
                break
            if not room.takes(one):
                self._round.move_to_end(name, last=False)  # its visit goes on in the next step
                return False
            party.deficit -= cost
            taken.append(one)
            self.remove(one)
            if not party.queues:
                return True
        party.is_visited = False
        self._round.move_to_end(name)
        return True

    def _save(self, names: list[NodeId], quantum: float) -> None:
        """Give as many quanta at once as the first to be served lacks beside the next visit's."""
        heads = [(name, self._round[name].oldest(None)) for name in names]
        lacks = [self._cost(one) - self._round[name].deficit for name, one in heads if one]
        quanta = max(0, math.ceil(min(lacks) / quantum) - 1)
        for name in names:
            self._round[name].deficit += quanta * quantum


def _since(one: Waiting) -> float:
    return one.since
