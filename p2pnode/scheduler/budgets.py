"""The cheapest chain when what a place spends on all its visits together is bounded.

Then a cheap beginning that has spent much may make a dearer whole than a dear one that has spared.
So each (boundary, place) keeps every beginning that no other beats both in cost and in what it
has spent: label setting with dominance, as for shortest paths with resources (Irnich and
Desaulniers, "Shortest Path Problems with Resource Constraints", 2005). How many are kept is
bounded by the time that may be spent, since it can grow exponentially: in small swarms the answer
is the best, in large ones a good guess. Among hundreds only the most promising places are tried,
and if those have no way, one that visits no place twice.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from p2pnode.scheduler import sweep
from p2pnode.scheduler.terrain import Cost, Terrain, Visit

_STEPS = 300_000
"""About how many steps a search may take: half a second. A guess at what a person will wait."""

MOST = 30
"""Places searched in full. A guess: chains of a home have three stages, and ten rivals for each."""

_ROUNDS = 8
"""Sweeps in search of a way that visits no place too much: each settles one place at least."""


def overspends(terrain: Terrain, visits: tuple[Visit, ...]) -> bool:
    """Tell whether the visits of one place together take more than there is."""
    spent: dict[int, int] = {}
    for visit in visits:
        if terrain.once and visit.place in spent:
            return True
        spent[visit.place] = spent.get(visit.place, 0) + len(visit.layers)
    return any(count > terrain.budgets[place] for place, count in spent.items())


def cheapest_within_budgets(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    """Return the cheapest cover found and its cost, or None if none was found."""
    if len(terrain.windows) <= MOST:
        return _cheapest(terrain)
    places = _promising(terrain)
    found = _cheapest(terrain.of(places))
    if found is None:
        return _without_returning(terrain)
    cost, visits = found
    return cost, tuple(Visit(places[visit.place], visit.layers) for visit in visits)


def furthest(terrain: Terrain) -> int:
    """Return the last boundary that any chain of visits reaches from the start.

    Among hundreds of places this is what is reached if their memory is no matter between visits.
    """
    if len(terrain.windows) > MOST:
        return sweep.furthest(terrain)
    return max((boundary for boundary, left in _sweep(terrain).items() if left), default=0)


def _cheapest(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    join = terrain.join()
    leave = terrain.leave.tolist()
    best: _Label | None = None
    for place, labels in _sweep(terrain)[terrain.layers.stop].items():
        for label in labels:
            rank, us = label.cost
            cost = (rank, join(us, leave[place]))
            if best is None or cost < best.cost:
                best = _Label(cost, (), label.visit, label.before)
    return None if best is None else (best.cost, _walk_back(best))


def _promising(terrain: Terrain) -> list[int]:
    """Return the places that the cheapest covers lead through, were there memory enough."""
    through = sweep.cheapest_through(terrain)
    priced = sorted((cost, place) for place, cost in enumerate(through) if cost is not None)
    return sorted(place for _, place in priced[:MOST])


def _without_returning(terrain: Terrain) -> tuple[Cost, tuple[Visit, ...]] | None:
    """Take the cheapest way, and from each place visited too much all but its longest visit."""
    for _ in range(_ROUNDS):
        found = sweep.cheapest(terrain)
        if found is None or not overspends(terrain, found[1]):
            return found
        windows = list(terrain.windows)
        for visit in sorted(found[1], key=lambda visit: len(visit.layers)):
            windows[visit.place] = visit.layers  # the longest comes last
        terrain = replace(terrain, windows=tuple(windows))
    return None


_Spent: TypeAlias = tuple[tuple[int, int], ...]
"""What was taken from the budgets that may run out: (place, layers), in order of places."""


@dataclass(frozen=True, slots=True, eq=False)
class _Label:
    """One way to have come here: what it cost, what it spent, and its last visit."""

    cost: Cost
    spent: _Spent
    visit: Visit | None
    before: "_Label | None"


_Labels: TypeAlias = dict[int, dict[int, list[_Label]]]
"""By boundary and place."""


def _sweep(terrain: Terrain) -> _Labels:
    """Return the ways to have left each place at each boundary."""
    boundaries, places = len(terrain.layers), len(terrain.windows)
    kept = max(1, math.isqrt(_STEPS // max(1, boundaries * places * (boundaries + places))))
    left: _Labels = {boundary: {} for boundary in (*terrain.layers, terrain.layers.stop)}
    enter, into = terrain.enter.tolist(), terrain.cross.T.tolist()
    for boundary in terrain.layers:
        left_here = [
            (place, label.cost, _what_matters(terrain, label.spent, boundary), label)
            for place, labels in sorted(left[boundary].items())
            for label in labels
        ]
        for place in range(places):
            if boundary == terrain.layers.start:
                arrivals = [_Label((0, enter[place]), (), None, None)]
            else:
                arrivals = _arrive(terrain, left_here, place, into[place], kept)
            for arrival in arrivals:
                _depart(terrain, left, arrival, boundary, place, kept)
    return left


def _arrive(
    terrain: Terrain,
    left_here: list[tuple[int, Cost, _Spent, _Label]],
    place: int,
    hops: list[float],
    kept: int,
) -> list[_Label]:
    join = terrain.join()
    arrivals: list[_Label] = []
    for previous, (rank, us), spent, label in left_here:
        if previous != place:
            cost = (rank, join(us, hops[previous]))
            if _is_news(arrivals, cost, spent):
                _keep(arrivals, _Label(cost, spent, None, label), kept)
    return arrivals


def _depart(
    terrain: Terrain, left: _Labels, arrival: _Label, start: int, place: int, kept: int
) -> None:
    join = terrain.join()
    for stop in terrain.stops(place, start, dict(arrival.spent).get(place, 0)):
        rank, us = terrain.tariff.cost(place, start, stop)
        cost = (arrival.cost[0] + rank, join(arrival.cost[1], us))
        spent = _spend(terrain, arrival.spent, place, stop - start)
        there = left[stop].setdefault(place, [])
        if _is_news(there, cost, spent):
            visit = Visit(place, range(start, stop))
            _keep(there, _Label(cost, spent, visit, arrival.before), kept)


def _spend(terrain: Terrain, spent: _Spent, place: int, count: int) -> _Spent:
    """Note what a visit takes from a budget, if that can ever run out."""
    budget = terrain.budgets[place]
    if terrain.once:
        count = budget
    elif budget >= len(terrain.windows[place]):
        return spent
    before = dict(spent)
    return tuple(sorted((before | {place: before.get(place, 0) + count}).items()))


def _what_matters(terrain: Terrain, spent: _Spent, boundary: int) -> _Spent:
    """Leave out what was spent at places that lie behind."""
    return tuple(pair for pair in spent if terrain.windows[pair[0]].stop > boundary)


def _is_news(labels: list[_Label], cost: Cost, spent: _Spent) -> bool:
    """Tell whether no known label is at least as good in both."""
    return not any(old.cost <= cost and _spares(old.spent, spent) for old in labels)


def _keep(labels: list[_Label], new: _Label, kept: int) -> None:
    """Add a label, drop those that it beats, and the dearest of too many."""
    labels[:] = [
        old for old in labels if not (new.cost <= old.cost and _spares(new.spent, old.spent))
    ]
    labels.append(new)
    if len(labels) > kept:
        labels.remove(max(labels, key=lambda label: label.cost))


def _spares(one: _Spent, other: _Spent) -> bool:
    """Tell whether ``one`` has spent at no place more than ``other``."""
    if not one or one == other:
        return True
    others = dict(other)
    return all(count <= others.get(place, 0) for place, count in one)


def _walk_back(last: _Label) -> tuple[Visit, ...]:
    visits: list[Visit] = []
    label: _Label | None = last
    while label is not None:
        if label.visit is not None:
            visits.append(label.visit)
        label = label.before
    return tuple(reversed(visits))
