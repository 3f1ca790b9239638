"""Round trips between any two nodes at one moment: measured where we are one, else estimated."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from p2pnode.membership.coordinates import DIMENSIONS, Coordinate
from p2pnode.sansio import NodeId
from p2pnode.scheduler.cost import Peers
from p2pnode.scheduler.terrain import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """A frozen picture of what is known of distances. Safe to use in a thread.

    Attributes:
        us: Our node id.
        places: Where nodes say they lie, ours included.
        measured: Our own round trips to others, in seconds.
    """

    us: NodeId
    places: Mapping[NodeId, Coordinate]
    measured: Mapping[NodeId, float]

    def rtt_us(self, one: NodeId, other: NodeId) -> float | None:
        """Return a round trip in microseconds, or None if nothing is known of it."""
        if one == other:
            return 0.0
        if self.us in (one, other):
            measured = self.measured.get(other if one == self.us else one)
            if measured is not None:
                return measured * 1e6
        here, there = self.places.get(one), self.places.get(other)
        return None if here is None or there is None else here.distance(there) * 1e6

    def rtts_us(self, sources: Peers, destinations: Peers) -> Floats:
        """Return the round trips from each source to each destination; NaN for the unknown."""
        here, there = self._table(sources), self._table(destinations)
        squares = np.zeros((len(sources), len(destinations)))
        apart = np.empty_like(squares)  # [from, to]
        for axis in range(DIMENSIONS):
            np.subtract(here[axis][:, None], there[axis], out=apart)
            apart *= apart
            squares += apart
        plain: Floats = np.sqrt(squares)
        plain += np.add.outer(here[DIMENSIONS], there[DIMENSIONS])
        adjusted: Floats = plain + np.add.outer(here[DIMENSIONS + 1], there[DIMENSIONS + 1])
        adjusted[adjusted <= 0] = plain[adjusted <= 0]
        adjusted *= 1e6
        for number, peer in enumerate(sources):
            if peer == self.us:
                adjusted[number] = [self._or_nan(peer, other) for other in destinations]
        for number, peer in enumerate(destinations):
            if peer == self.us:
                adjusted[:, number] = [self._or_nan(other, peer) for other in sources]
        return adjusted

    def _or_nan(self, one: NodeId, other: NodeId) -> float:
        known = self.rtt_us(one, other)
        return np.nan if known is None else known

    def _table(self, peers: Peers) -> Floats:
        """Return the coordinates, then the heights, then the adjustments, [10, peers]."""
        rows = [
            _UNKNOWN if place is None else (*place.vector, place.height, place.adjustment)
            for place in map(self.places.get, peers)
        ]
        table: Floats = np.array(rows, np.float64).reshape(len(peers), DIMENSIONS + 2)
        return np.ascontiguousarray(table.T)


_UNKNOWN = (np.nan,) * (DIMENSIONS + 2)
