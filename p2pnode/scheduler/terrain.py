"""What a search for a chain walks on: places, their windows of layers, hops, and prices of visits.

The graph has a node for each (layer boundary, place just left). Edges are a hop to another place,
and a visit there of every length that the place allows; they only lead forward.

Costs are pairs ``(rank, microseconds)``, compared in this order. The rank counts what may only
happen if nothing else does (the use of a peer that is to be spared), and always adds up. The
microseconds add up or, for the slowest stage, the larger one counts. Both ways a cheaper beginning
never makes a dearer whole, which is all that a sweep over the boundaries asks for.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Cost: TypeAlias = tuple[int, float]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Visit:
    """A stay at one place, for a run of layers."""

    place: int
    layers: range


@dataclass(frozen=True, slots=True)
class Tariff:
    """What visits cost.

    Attributes:
        fixed_us: Each visit, by place.
        layer_us: Each layer of it, by place.
        head_us: On top, when the visit touches ``head_at``, by place.
        visit_rank: Rank of each visit.
        layer_rank: Rank of each layer, by place.
        head_at: The boundary where the model's head is.
        limit_us: What takes longer is infinitely dear.
    """

    fixed_us: tuple[float, ...]
    layer_us: tuple[float, ...]
    head_us: tuple[float, ...]
    visit_rank: int
    layer_rank: tuple[int, ...]
    head_at: int
    limit_us: float = float("inf")

    def cost(self, place: int, start: int, stop: int) -> Cost:
        """Return what one visit costs."""
        count = stop - start
        head = self.head_us[place] if self.head_at in (start, stop) else 0.0
        took = self.fixed_us[place] + self.layer_us[place] * count + head
        rank = self.visit_rank + self.layer_rank[place] * count
        return rank, took if took <= self.limit_us else float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Terrain:
    """What is searched; all hops in microseconds.

    Attributes:
        layers: The run to cover.
        windows: The part of it that each place can do.
        budgets: The most layers a place does in all its visits, by place.
        once: Whether a place may be visited but once.
        enter: The hop to the first place.  # [places]
        cross: The hop from one place to another.  # [from, to]
        leave: The hop from the last place.  # [places]
        tariff: What visits cost.
        paced: Whether the slowest counts, instead of the sum.
        memo: What was computed from this terrain, so that it is computed once.
    """

    layers: range
    windows: tuple[range, ...]
    budgets: tuple[int, ...]
    once: bool
    enter: Floats
    cross: Floats
    leave: Floats
    tariff: Tariff
    paced: bool
    memo: dict[object, object] = field(default_factory=dict, init=False)

    def join(self) -> Callable[[float, float], float]:
        """Return how two times make one."""
        return max if self.paced else operator.add

    def stops(self, place: int, start: int, spent: int = 0) -> range:
        """Return where a visit that begins at ``start`` may end."""
        if start not in self.windows[place]:
            return range(0)
        furthest_stop = start + self.budgets[place] - spent
        return range(start + 1, min(self.windows[place].stop, furthest_stop) + 1)

    def cost_of(self, visits: tuple[Visit, ...]) -> Cost:
        """Return what a cover costs."""
        join = self.join()
        rank, us, before = 0, 0.0, -1
        for visit in visits:
            place = visit.place
            hop = self.enter[place] if before < 0 else self.cross[before, place]
            more, took = self.tariff.cost(place, visit.layers.start, visit.layers.stop)
            rank, us, before = rank + more, join(join(us, float(hop)), took), place
        return rank, join(us, float(self.leave[before]))

    def mixing_for(self, kinds: Ints, us: float) -> "Terrain":
        """Return the same terrain where each hop between two kinds of places costs more."""
        differ = kinds[:, None] != kinds[None, :]  # [from, to]
        return replace(self, cross=self.cross + us * differ)

    def reversed(self) -> "Terrain":
        """Return the same terrain, walked from its end: the mirror image of every edge."""
        total = self.layers.start + self.layers.stop
        return replace(
            self,
            windows=tuple(range(total - w.stop, total - w.start) for w in self.windows),
            enter=self.leave,
            leave=self.enter,
            cross=self.cross.T,
            tariff=replace(self.tariff, head_at=total - self.tariff.head_at),
        )

    def of(self, places: list[int]) -> "Terrain":
        """Return the terrain of these places alone."""
        tariff = self.tariff
        return replace(
            self,
            windows=tuple(self.windows[place] for place in places),
            budgets=tuple(self.budgets[place] for place in places),
            enter=self.enter[places],
            cross=self.cross[np.ix_(places, places)],
            leave=self.leave[places],
            tariff=replace(
                tariff,
                fixed_us=tuple(tariff.fixed_us[place] for place in places),
                layer_us=tuple(tariff.layer_us[place] for place in places),
                head_us=tuple(tariff.head_us[place] for place in places),
                layer_rank=tuple(tariff.layer_rank[place] for place in places),
            ),
        )
