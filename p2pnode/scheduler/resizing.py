"""Which layers a serving node keeps or adds where it has less or more memory for a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer, interval
from p2pnode.scheduler.placement import Placement, choose_layers
from p2pnode.scheduler.view import BRIEF
from p2pnode.wire.ad import AdState


@dataclass(frozen=True, slots=True)
class Resizing:
    """Asks which run of layers a serving node should hold, now that it may have another many.

    Attributes:
        offers: What all hold or claim, ourselves included.
        us: Our node id.
        n_layers: Layers of the model.
        held: What we hold.
        capacity: How many we can hold now.
        is_wanted: Whether anybody asks the model: then no layer is left that only we serve.
    """

    offers: tuple[Offer, ...]
    us: NodeId
    n_layers: int
    held: range
    capacity: int
    is_wanted: bool

    @property
    def is_brief(self) -> bool:
        """Whether an answer takes less than 5 ms, so that it may be had at once."""
        return len(self.offers) * self.n_layers <= BRIEF

    def __call__(self) -> Placement | None:
        """Return None if what is held stays."""
        others = [offer for offer in self.offers if offer.peer != self.us]
        if self.capacity < len(self.held):
            kept = self._kept(others)
            return None if kept == self.held else Placement(kept, f"keeps {interval(kept)}")
        if self.capacity == len(self.held) or len(self.held) == self.n_layers:
            return None
        chosen = choose_layers(others, n_layers=self.n_layers, capacity_layers=self.capacity)
        if set(self.held) <= set(chosen.layers):
            return Placement(chosen.layers, f"has more memory for it; {chosen.reason}")
        grown = _around(self.held, self.capacity, self.n_layers)
        return Placement(grown, "has more memory for it")

    def _kept(self, others: Sequence[Offer]) -> range:
        """Return the part of what is held that can be left least, with no more than fits."""
        served = [0] * self.n_layers
        for offer in others:
            if offer.alive and offer.state is AdState.SERVING:
                for layer in offer.layers:
                    served[layer] += 1
        first, last = self.held.start, self.held.stop
        while last - first > max(1, self.capacity):
            ends = (served[first], served[last - 1])
            if self.is_wanted and not any(ends):
                break  # whichever went, answers would wait for it
            if ends[0] > ends[1]:
                first += 1
            else:
                last -= 1
        return range(first, last)


def _around(held: range, capacity: int, n_layers: int) -> range:
    """Return a run of ``capacity`` layers with ``held`` in it, towards the end first."""
    stop = min(n_layers, held.start + capacity)
    return range(max(0, stop - capacity), stop)
