"""The cheapest way through a run of layers, visiting one place after another.

One sweep over the boundaries relaxes every edge of the :mod:`~p2pnode.scheduler.terrain`. Edges
only lead forward, so one sweep is exact; it takes ``boundaries x places x (places + boundaries)``
steps at most. In Python that is quick enough for :data:`FEW` places; beyond,
:mod:`~p2pnode.scheduler.sweep` takes the same steps in arrays and finds the same way.

The sweep does not see that two visits of one place draw on the same memory; where that matters,
see :mod:`~p2pnode.scheduler.budgets`.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from p2pnode.scheduler import sweep
from p2pnode.scheduler.terrain import Cost, Terrain, Visit

FEW = 6
"""Places up to which plain Python is used: there it takes no longer than arrays. It is also the
reference that the arrays are held against."""


def cheapest(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    """Return the cheapest cover and its cost, or None if there is none.

    Of covers that cost the same the first found wins: lower places, longer visits early.
    """
    if len(terrain.windows) > FEW:
        return sweep.cheapest(terrain)
    return cheapest_in_python(terrain)


def cheapest_through(terrain: Terrain) -> list[Cost | None]:
    """Return, for each place, the cost of the cheapest cover that visits it."""
    if len(terrain.windows) > FEW:
        return sweep.cheapest_through(terrain)
    return cheapest_through_in_python(terrain)


def cheapest_in_python(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    """Do as :func:`cheapest`, whatever the number of places."""
    join = terrain.join()
    departures = _sweep(terrain).departures
    leave = terrain.leave.tolist()
    best: tuple[Cost, int] | None = None
    for place, departure in sorted(departures[terrain.layers.stop].items()):
        cost = (departure.rank, join(departure.us, leave[place]))
        if best is None or cost < best[0]:
            best = (cost, place)
    return None if best is None else (best[0], _walk_back(terrain, departures, best[1]))


def cheapest_through_in_python(terrain: Terrain) -> list[Cost | None]:
    """Do as :func:`cheapest_through`, whatever the number of places."""
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
                rank, us = terrain.tariff.cost(place, start, stop)
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
    enter, into = terrain.enter.tolist(), terrain.cross.T.tolist()
    join = terrain.join()
    for boundary in terrain.layers:
        left_here = sorted(departures[boundary].items())
        for place, window in enumerate(terrain.windows):
            if boundary not in window:
                continue
            if boundary == terrain.layers.start:
                arrival: _Arrival | None = _Arrival(0, enter[place], None)
            else:
                arrival = _arrive(left_here, into[place], place, join)
            if arrival is not None:
                arrivals[boundary][place] = arrival
                _depart(terrain, departures, arrival, boundary, place)
    return _Sweep(arrivals, departures)


def _arrive(
    left_here: list[tuple[int, _Departure]],
    hops: list[float],
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
        rank, us = terrain.tariff.cost(place, start, stop)
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
