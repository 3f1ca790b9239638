"""Where a node should go, asked with all that the answer depends on.

The questions are those of :mod:`p2pnode.scheduler.placement`, each a pure function of frozen
offers. So whoever holds one may answer it at once or hand it to a thread, as ``is_brief`` advises.
"""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.placement import Placement, choose_layers, settle_claims, should_move
from p2pnode.scheduler.resizing import Resizing
from p2pnode.scheduler.view import BRIEF
from p2pnode.wire.ad import AdState

_BRIEF_CHOICE = 20 * BRIEF
"""Layers times offers up to which a newcomer chooses within 5 ms: it looks at each but once."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """Asks which layers a newcomer should claim.

    Attributes:
        offers: What the others hold or claim.
        n_layers: Layers of the model.
        capacity: How many of them the newcomer can hold.
    """

    offers: tuple[Offer, ...]
    n_layers: int
    capacity: int

    @property
    def is_brief(self) -> bool:
        """Whether an answer takes less than 5 ms, so that it may be had at once."""
        return len(self.offers) * self.n_layers <= _BRIEF_CHOICE

    def __call__(self) -> Placement | None:
        return choose_layers(self.offers, n_layers=self.n_layers, capacity_layers=self.capacity)


@dataclass(frozen=True, slots=True)
class Settling:
    """Asks whether our claim stands against those of others; if not, which layers instead.

    Attributes:
        offers: What all hold or claim, ourselves included.
        us: Our node id.
        n_layers: Layers of the model.
        claimed: The layers that we claim.
    """

    offers: tuple[Offer, ...]
    us: NodeId
    n_layers: int
    claimed: range

    @property
    def is_brief(self) -> bool:
        """Whether an answer takes less than 5 ms; the claims take the time, each a look at all."""
        claims = sum(offer.state is AdState.JOINING for offer in self.offers)
        choosing = Choosing(self.offers, self.n_layers, 0)
        return claims * self.n_layers <= BRIEF and choosing.is_brief

    def __call__(self) -> Placement | None:
        """Return None if it stands."""
        settled = settle_claims(self.offers, n_layers=self.n_layers)
        layers = settled.get(self.us, self.claimed)
        if layers == self.claimed:
            return None
        return Placement(layers, "others had claimed the same layers")


@dataclass(frozen=True, slots=True)
class Moving:
    """Asks whether we, who serve, should move into a hole.

    Attributes:
        offers: What all hold or claim, ourselves included.
        us: Our node id.
        n_layers: Layers of the model.
        capacity: How many of them we can hold.
        hole_seconds: How long there has been a hole.
        with_last: How many of the last layers we can hold; None for as many.
    """

    offers: tuple[Offer, ...]
    us: NodeId
    n_layers: int
    capacity: int
    hole_seconds: float
    with_last: int | None = None

    @property
    def is_brief(self) -> bool:
        """Whether an answer takes less than 5 ms: each that serves is looked at as a rival."""
        return len(self.offers) * self.n_layers <= BRIEF

    def __call__(self) -> Placement | None:
        """Return None if we stay."""
        return should_move(
            self.offers,
            us=self.us,
            n_layers=self.n_layers,
            capacity_layers=self.capacity,
            hole_seconds=self.hole_seconds,
            capacity_with_last=self.with_last,
        )


PlacementTask: TypeAlias = Choosing | Settling | Moving | Resizing
