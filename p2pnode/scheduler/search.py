"""The cheapest way through a run of layers, visiting one place after another.

The graph has a node for each (layer boundary, place just left). One sweep over the boundaries
relaxes two kinds of edges: a hop to another place, and a visit there of every length that the
place allows. Edges only lead forward, so one sweep is exact; it takes
``boundaries x places x (places + boundaries)`` steps at most.

Costs are pairs ``(rank, microseconds)``, compared in this order. The rank counts what may only
happen if nothing else does (the use of a peer that is to be spared), and always adds up. The
microseconds add up or, for the slowest stage, the larger one counts. Both ways a cheaper beginning
never makes a dearer whole, which is all that the sweep asks for.

The sweep does not see that two visits of one place draw on the same memory; where that matters,
see :mod:`~p2pnode.scheduler.budgets`.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

Cost: TypeAlias = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Visit:
    """A stay at one place, for a run of layers."""

    place: int
    layers: range


@dataclass(frozen=True, slots=True)
class Terrain:
    """What is searched; all hops in microseconds.

    Attributes:
        layers: The run to cover.
        windows: The part of it that each place can do.
        budgets: The most layers a place does in all its visits, by place.
        once: Whether a place may be visited but once.
        enter: The hop to the first place, by place.
        cross: The hop from one place (first index) to another.
        leave: The hop from the last place, by place.
        visit: Cost of a visit: (place, first layer, one past the last).
        paced: Whether the slowest counts, instead of the sum.
    """

    layers: range
    windows: tuple[range, ...]
    budgets: tuple[int, ...]
    once: bool
    enter: tuple[float, ...]
    cross: tuple[tuple[float, ...], ...]
    leave: tuple[float, ...]
    visit: Callable[[int, int, int], Cost]
    paced: bool

    def join(self) -> Callable[[float, float], float]:
        """Return how two times make one."""
        return max if self.paced else operator.add

    def stops(self, place: int, start: int, spent: int = 0) -> range:
        """Return where a visit that begins at ``start`` may end."""
        if start not in self.windows[place]:
            return range(0)
        furthest_stop = start + self.budgets[place] - spent
        return range(start + 1, min(self.windows[place].stop, furthest_stop) + 1)

    def reversed(self) -> "Terrain":
        """Return the same terrain, walked from its end: the mirror image of every edge."""
        total = self.layers.start + self.layers.stop
        return replace(
            self,
            windows=tuple(range(total - w.stop, total - w.start) for w in self.windows),
            enter=self.leave,
            leave=self.enter,
            cross=tuple(zip(*self.cross, strict=True)),
            visit=lambda place, a, b: self.visit(place, total - b, total - a),
        )


def cheapest(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    """Return the cheapest cover and its cost, or None if there is none.

    Of covers that cost the same the first found wins: lower places, longer visits early.
    """
    join = terrain.join()
    departures = _sweep(terrain).departures
    best: tuple[Cost, int] | None = None
    for place, departure in sorted(departures[terrain.layers.stop].items()):
        cost = (departure.rank, join(departure.us, terrain.leave[place]))
        if best is None or cost < best[0]:
            best = (cost, place)
    return None if best is None else (best[0], _walk_back(terrain, departures, best[1]))


def cheapest_through(terrain: Terrain) -> list[Cost | None]:
    """Return, for each place, the cost of the cheapest cover that visits it."""
    join = terrain.join()
    before, after = _sweep(terrain).arrivals, _sweep(terrain.reversed()).arrivals
    total = terrain.layers.start + terrain.layers.stop
    best: list[Cost | None] = [None] * len(terrain.windows)
    for start, arrivals in before.items():
        for place, arrival in arrivals.items():
            for stop in terrain.stops(place, start):
                rest = after[total - stop].get(place)
                if rest is None:
                    continue
                rank, us = terrain.visit(place, start, stop)
                cost = (arrival.rank + rank + rest.rank, join(join(arrival.us, us), rest.us))
                known = best[place]
                if known is None or cost < known:
                    best[place] = cost
    return best


class _Arrival(NamedTuple):
    """The best way to begin a visit somewhere, and the place that was left for it."""

    rank: int
    us: float
    previous: int | None


class _Departure(NamedTuple):
    """The best way to end a visit somewhere: where it began, and the place before it."""

    rank: int
    us: float
    start: int
    previous: int | None


_Departures: TypeAlias = dict[int, dict[int, _Departure]]


class _Sweep(NamedTuple):
    """The best arrival and the best departure, by boundary and place."""

    arrivals: dict[int, dict[int, _Arrival]]
    departures: _Departures


def _sweep(terrain: Terrain) -> _Sweep:
    boundaries = range(terrain.layers.start, terrain.layers.stop + 1)
    arrivals: dict[int, dict[int, _Arrival]] = {boundary: {} for boundary in boundaries}
    departures: _Departures = {boundary: {} for boundary in boundaries}
    into = tuple(zip(*terrain.cross, strict=True))
    join = terrain.join()
    for boundary in terrain.layers:
        left_here = sorted(departures[boundary].items())
        for place, window in enumerate(terrain.windows):
            if boundary not in window:
                continue
            if boundary == terrain.layers.start:
                arrival: _Arrival | None = _Arrival(0, terrain.enter[place], None)
            else:
                arrival = _arrive(left_here, into[place], place, join)
            if arrival is not None:
                arrivals[boundary][place] = arrival
                _depart(terrain, departures, arrival, boundary, place)
    return _Sweep(arrivals, departures)


def _arrive(
    left_here: list[tuple[int, _Departure]],
    hops: tuple[float, ...],
    place: int,
    join: Callable[[float, float], float],
) -> _Arrival | None:
    best: tuple[int, float, int] | None = None
    for previous, departure in left_here:
        if previous == place:
            continue  # to stay is a longer visit, not another one
        arrival = (departure.rank, join(departure.us, hops[previous]), previous)
        if best is None or arrival < best:
            best = arrival
    return best and _Arrival(*best)


def _depart(
    terrain: Terrain, departures: _Departures, arrival: _Arrival, start: int, place: int
) -> None:
    join = terrain.join()
    for stop in terrain.stops(place, start):
        rank, us = terrain.visit(place, start, stop)
        cost = (arrival.rank + rank, join(arrival.us, us))
        known = departures[stop].get(place)
        if known is None or cost < known[:2]:
            departures[stop][place] = _Departure(*cost, start, arrival.previous)


def _walk_back(terrain: Terrain, departures: _Departures, last: int) -> tuple[Visit, ...]:
    visits: list[Visit] = []
    stop, place = terrain.layers.stop, last
    while True:
        departure = departures[stop][place]
        visits.append(Visit(place, range(departure.start, stop)))
        if departure.previous is None:
            return tuple(reversed(visits))
        stop, place = departure.start, departure.previous
