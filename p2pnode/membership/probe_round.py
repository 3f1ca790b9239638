"""In which order members are probed."""

from p2pnode.sansio import NodeId, Rng


class ProbeRound:
    """A shuffled round robin: everyone once a round, in an order of our own.

    SWIM shuffles the whole list after each round (section 4.3), so a member may be first in one
    round and last in the next, and wait two rounds. Shuffling each half by itself keeps a member
    in its half: the longest wait is a round and a half, which for two members means none at all.
    """

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._order: list[NodeId] = []
        self._present: set[NodeId] = set()
        self._next = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, peer: object) -> bool:
        return peer in self._present

    def add(self, peer: NodeId) -> None:
        """Put a member somewhere in the round, if it is not there."""
        if peer in self._present:
            return
        self._present.add(peer)
        place = self._rng.randrange(0, len(self._order) + 1)
        self._order.insert(place, peer)
        if place < self._next:
            self._next += 1

    def remove(self, peer: NodeId) -> None:
        """Take a member out of the round, if it is there."""
        if peer not in self._present:
            return
        self._present.remove(peer)
        place = self._order.index(peer)
        del self._order[place]
        if place < self._next:
            self._next -= 1

    def advance(self) -> NodeId | None:
        """Return the next member; None when there is none."""
        if not self._order:
            return None
        if self._next >= len(self._order):
            self._reshuffle()
        self._next += 1
        return self._order[self._next - 1]

    def sample(self, count: int, without: NodeId) -> list[NodeId]:
        """Return up to ``count`` random members other than ``without``."""
        drawn = self._rng.sample(self._order, min(count + 1, len(self._order)))
        return [peer for peer in drawn if peer != without][:count]

    def _reshuffle(self) -> None:
        middle = len(self._order) // 2
        first, second = self._order[:middle], self._order[middle:]
        self._rng.shuffle(first)
        self._rng.shuffle(second)
        self._order = first + second
        self._next = 0
