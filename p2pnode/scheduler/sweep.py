"""The sweep of :mod:`~p2pnode.scheduler.search` in arrays, for swarms of hundreds.

Every step is the same as there, in the same order, so the way and its cost come out the same to the
last bit, ties included; a property test holds both against each other. Thirty places of thirty
layers take some milliseconds, a thousand a fifth of a second.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from p2pnode.scheduler.terrain import Cost, Floats, Ints, Terrain, Visit

_NONE = -1
_Bools = npt.NDArray[np.bool_]


def cheapest(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    """Return the cheapest cover and its cost, or None if there is none."""
    left = _swept(terrain).left
    there, rank = left.there[-1], left.rank[-1]
    if not there.any():
        return None
    us = _join(terrain, left.us[-1], terrain.leave)
    least = there & (rank == rank[there].min())
    place = int(np.nonzero(least & (us == us[least].min()))[0][0])
    return (int(rank[place]), float(us[place])), _walk_back(terrain, left, place)


def cheapest_through(terrain: Terrain) -> list[Cost | None]:
    """Return, for each place, the cost of the cheapest cover that visits it."""
    before, after = _swept(terrain).come, _swept(terrain.reversed()).come
    edges = _Edges(terrain)
    best = _States.nowhere(1, len(terrain.windows))
    for number, start in enumerate(terrain.layers):
        ranks, us = edges.visits(start)  # [stops, places]
        rests = slice(len(terrain.layers) - number - 1, None, -1)  # where what is left begins
        there = before.there[number] & after.there[rests] & edges.allows(start)
        rank = before.rank[number] + ranks + after.rank[rests]
        took = _join(terrain, _join(terrain, before.us[number], us), after.us[rests])
        least = np.where(there, rank, _FAR).min(axis=0)  # [places]
        quickest = np.where(there & (rank == least), took, np.inf).min(axis=0)
        best.take_better(
            slice(0, 1), there.any(axis=0)[None], least[None], quickest[None], 0, best.previous[0]
        )
    return [
        (int(rank), float(us)) if there else None
        for there, rank, us in zip(best.there[0], best.rank[0], best.us[0], strict=True)
    ]


def furthest(terrain: Terrain) -> int:
    """Return the last boundary that is reached if memory is no matter between two visits."""
    reached = np.nonzero(_swept(terrain).left.there.any(axis=1))[0]
    return terrain.layers.start + int(reached[-1]) if len(reached) else 0


_FAR = 1 << 62


@dataclass(slots=True, eq=False)
class _States:
    """The best way to be at each place, at each boundary; all arrays are [boundaries, places].

    Attributes:
        there: Whether there is any.
        rank: Its rank.
        us: Its time.
        start: Where the visit began that ended there.
        previous: The place before that; -1 for none.
    """

    there: _Bools
    rank: Ints
    us: Floats
    start: Ints
    previous: Ints

    @classmethod
    def nowhere(cls, boundaries: int, places: int) -> "_States":
        shape = (boundaries, places)
        return cls(
            np.zeros(shape, bool),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.float64),
            np.zeros(shape, np.int64),
            np.full(shape, _NONE),
        )

    def take_better(
        self, rows: slice, there: _Bools, rank: Ints, us: Floats, start: int, previous: Ints
    ) -> None:
        """Replace what is dearer at some boundaries; of equals, what was first stays."""
        cheaper = (rank < self.rank[rows]) | ((rank == self.rank[rows]) & (us < self.us[rows]))
        better = there & (cheaper | ~self.there[rows])
        if better.any():
            self.there[rows] |= better
            np.copyto(self.rank[rows], rank, where=better)
            np.copyto(self.us[rows], us, where=better)
            np.copyto(self.start[rows], start, where=better)
            np.copyto(self.previous[rows], previous, where=better)


class _Edges:
    """Windows and prices of a terrain as arrays."""

    def __init__(self, terrain: Terrain) -> None:
        tariff, layers = terrain.tariff, terrain.layers
        self._layers = layers
        self._head_at = tariff.head_at
        self._first: Ints = np.array([window.start for window in terrain.windows], np.int64)
        self._last: Ints = np.array([window.stop for window in terrain.windows], np.int64)
        counts = np.arange(1, len(layers) + 1)[:, None]  # [counts, 1]
        fits: _Bools = counts <= np.array(terrain.budgets, np.int64)
        layer_us = np.array(tariff.layer_us, np.float64)
        took: Floats = np.array(tariff.fixed_us, np.float64) + layer_us * counts
        headed: Floats = took + np.array(tariff.head_us, np.float64)
        for some in (took, headed):
            some[some > tariff.limit_us] = np.inf
        self._fits, self._took, self._headed = fits, took, headed  # [counts, places]
        layer_rank = np.array(tariff.layer_rank, np.int64)
        self._rank: Ints = tariff.visit_rank + layer_rank * counts

    def holds(self, boundary: int) -> _Bools:
        """Return which places have the layer that begins here, [places]."""
        return (self._first <= boundary) & (boundary < self._last)

    def allows(self, start: int) -> _Bools:
        """Return which places may be visited from here to each later boundary, [stops, places]."""
        stops = np.arange(start + 1, self._layers.stop + 1)[:, None]
        return self.holds(start) & (stops <= self._last) & self._fits[: len(stops)]

    def visits(self, start: int) -> tuple[Ints, Floats]:
        """Return the ranks and times of these visits, [stops, places]."""
        count = self._layers.stop - start
        if self._head_at == start:
            return self._rank[:count], self._headed[:count]
        if self._head_at != self._layers.stop:
            return self._rank[:count], self._took[:count]
        us = self._took[:count].copy()
        us[-1] = self._headed[count - 1]
        return self._rank[:count], us


class _Sweep:
    """One walk over the boundaries.

    Attributes:
        come: The best ways to begin a visit.
        left: The best ways to have ended one.
    """

    def __init__(self, terrain: Terrain) -> None:
        self._terrain = terrain
        self._edges = _Edges(terrain)
        self._places = len(terrain.windows)
        self._into: Floats = np.ascontiguousarray(terrain.cross.T)  # [to, from]
        self._arrivals: Floats = np.empty_like(self._into)
        boundaries = len(terrain.layers) + 1
        self.come = _States.nowhere(boundaries, self._places)
        self.left = _States.nowhere(boundaries, self._places)
        for number, boundary in enumerate(terrain.layers):
            if number == 0:
                self.come.us[0], self.come.there[0] = terrain.enter, True
            elif self.left.there[number].any():
                self._arrive(number)
            self.come.there[number] &= self._edges.holds(boundary)
            if self.come.there[number].any():
                self._depart(number, boundary)
        self._into = self._arrivals = np.empty((0, 0))  # they held much memory: of no more use

    def _arrive(self, number: int) -> None:
        """Find the best hop into every place: the least rank, then the least time."""
        there, rank = self.left.there[number], self.left.rank[number]
        least = rank[there].min()
        best: _Bools = there & (rank == least)
        self._hop(number, best, slice(None))
        self.come.rank[number] = least
        if best.sum() > 1:
            return
        place = int(best.argmax())  # whoever alone has the least rank cannot come from itself
        others: _Bools = there & ~best
        self.come.there[number, place] = others.any()
        if others.any():
            second = rank[others].min()
            self._hop(number, others & (rank == second), slice(place, place + 1))
            self.come.rank[number, place] = second

    def _hop(self, number: int, sources: _Bools, places: slice) -> None:
        departures = np.where(sources, self.left.us[number], np.inf)  # [from]
        arrivals = self._arrivals[places]  # [to, from]
        combine = np.maximum if self._terrain.paced else np.add
        combine(self._into[places], departures, out=arrivals)
        numbers = np.arange(self._places)[places]
        rows = np.arange(len(numbers))
        arrivals[rows, numbers] = np.inf  # to stay is a longer visit, no hop
        previous = arrivals.argmin(axis=1)
        us = arrivals[rows, previous]
        endless = np.isinf(us)
        if endless.any():  # as dear as can be, but a way
            first, *more = np.nonzero(sources)[0][:2]
            second = more[0] if more else first
            previous[endless] = np.where(numbers == first, second, first)[endless]
        come = self.come
        come.us[number, places], come.previous[number, places] = us, previous
        come.there[number, places] = True

    def _depart(self, number: int, start: int) -> None:
        come = self.come
        ranks, us = self._edges.visits(start)
        self.left.take_better(
            slice(number + 1, None),
            come.there[number] & self._edges.allows(start),
            come.rank[number] + ranks,
            _join(self._terrain, come.us[number], us),
            start,
            come.previous[number],
        )


def _swept(terrain: Terrain) -> _Sweep:
    known = terrain.memo.get(_Sweep)
    if isinstance(known, _Sweep):
        return known
    swept = terrain.memo[_Sweep] = _Sweep(terrain)
    return swept


def _join(terrain: Terrain, one: Floats, other: Floats) -> Floats:
    return np.maximum(one, other) if terrain.paced else one + other


def _walk_back(terrain: Terrain, left: _States, place: int) -> tuple[Visit, ...]:
    visits: list[Visit] = []
    stop = terrain.layers.stop
    while place != _NONE:
        number = stop - terrain.layers.start
        start = int(left.start[number, place])
        visits.append(Visit(place, range(start, stop)))
        stop, place = start, int(left.previous[number, place])
    return tuple(reversed(visits))
