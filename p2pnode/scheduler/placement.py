"""Who should hold which layers.

A layer is as strong as the tokens a second that its holders could compute together; the swarm is
as strong as its weakest layer. A newcomer takes the window whose layers, weakest first, are the
weakest of all windows of its size: holes have no strength at all and so come first (the rule of
Petals; Borzunov et al. 2023). Of equal windows it takes the one that leaves the fewest holes, then
the first.

Newcomers announce the run they intend to load. When several start at once their claims collide,
and :func:`settle_claims` says who moves. It is a function of the ads alone, so nodes with the
same ads agree without a word: each takes its own part of the answer and announces that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pnode.errors import ConfigError
from p2pnode.sansio import NodeId
from p2pnode.scheduler.cost import CostConfig, price_offers
from p2pnode.scheduler.directory import Offer, interval, runs_of
from p2pnode.wire.capability import AdState


@dataclass(frozen=True, slots=True)
class PlacementConfig:
    """When a serving node moves to other layers.

    Attributes:
        patience: Seconds a hole must have lasted before the first node moves into it; each
            further candidate waits as long again. Well above what a restart takes, as a node that
            comes back is cheaper than one that moves. A guess.
        costs: Prices of nodes that have not measured themselves.
    """

    patience: float = 20.0
    costs: CostConfig = field(default_factory=CostConfig)

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise ConfigError(f"patience is not negative, unlike {self.patience}")


@dataclass(frozen=True, slots=True)
class Placement:
    """Which layers to hold, and why in plain words."""

    layers: range
    reason: str


_DEFAULT = PlacementConfig()


def choose_layers(
    offers: Iterable[Offer],
    *,
    n_layers: int,
    capacity_layers: int,
    config: PlacementConfig = _DEFAULT,
) -> Placement:
    """Choose the layers of a newcomer.

    Args:
        offers: What the others of this space hold or intend to; the newcomer's own is not among
            them. Those that leave or are not believed to be alive count for nothing.
        n_layers: Layers of the model.
        capacity_layers: How many of them the newcomer can hold.
        config: Prices of those who have not measured themselves.
    """
    count = max(0, min(capacity_layers, n_layers))
    if count == 0:
        return Placement(range(0), "there is no room for a single layer")
    present = [offer for offer in offers if _counts(offer)]
    strength = _strength(present, n_layers, _rates(present, config))
    window = _best_window(strength, _windows(n_layers, count))
    return Placement(window, _why(strength, window))


def settle_claims(
    offers: Iterable[Offer], *, n_layers: int, config: PlacementConfig = _DEFAULT
) -> dict[NodeId, range]:
    """Say which layers each joining peer should load, given what all of them claim.

    Whoever serves already stays. Of colliding claims that of the lowest node id stands and the
    others choose anew, highest id first; claims that do not collide stand. If that leaves a hole
    which packing the claims side by side would not, they are packed. What this returns stands:
    asked again with these claims, it returns them.

    Args:
        offers: What the peers of this space hold or claim, the asking node's own claim included.
        n_layers: Layers of the model.
        config: Prices of those who have not measured themselves.
    """
    present = [offer for offer in offers if _counts(offer)]
    joining = sorted((o for o in present if o.state is AdState.JOINING), key=lambda o: o.peer)
    serving = [offer for offer in present if offer.state is not AdState.JOINING]
    by_size = sorted(joining, key=lambda offer: -len(offer.layers))
    rates = _rates(present, config)
    best: dict[NodeId, range] = {}
    best_cover = -1
    for attempt in (
        joining,
        _pack(serving, joining, n_layers, rates),
        _pack(serving, by_size, n_layers, rates),
    ):
        settled = _improve(serving, attempt, n_layers, rates)
        cover = n_layers - len(_holes([*serving, *settled], n_layers))
        if cover > best_cover:
            best, best_cover = {offer.peer: offer.layers for offer in settled}, cover
        if cover == n_layers:
            break
    return best


def should_move(
    offers: Iterable[Offer],
    *,
    us: NodeId,
    n_layers: int,
    capacity_layers: int,
    hole_seconds: float,
    config: PlacementConfig = _DEFAULT,
) -> Placement | None:
    """Say whether a serving node should move to fill a hole, and where to.

    It moves only if others serve every layer that it would leave, nobody has claimed the hole,
    and the hole has lasted. Of several nodes that could, the one that fills most goes first, then
    the highest id; the others wait their turn, in case it must not move (its owner may have fixed
    its layers).

    Args:
        offers: What the peers of this space hold, our own included.
        us: Our node id.
        n_layers: Layers of the model.
        capacity_layers: How many of them we can hold.
        hole_seconds: How long there has been a hole.
        config: Patience, and prices of those who have not measured themselves.
    """
    present = [offer for offer in offers if _counts(offer)]
    moves: list[tuple[int, NodeId, range]] = []
    holes = _holes(present, n_layers)
    rates = _rates(present, config)
    for offer in sorted(present, key=lambda offer: offer.peer):
        capacity = capacity_layers if offer.peer == us else len(offer.layers)
        window = _move(offer, present, n_layers, capacity, rates) if holes else None
        if window is not None:
            moves.append((len(holes & set(window)), offer.peer, window))
    moves.sort(reverse=True, key=lambda move: move[:2])
    for turn, (_, peer, window) in enumerate(moves, start=1):
        if peer == us and hole_seconds >= turn * config.patience:
            filled = " and ".join(interval(run) for run in runs_of(holes & set(window)))
            return Placement(window, f"fills the hole {filled}; others serve what it leaves")
    return None


def layer_strength(
    offers: Iterable[Offer], n_layers: int, config: PlacementConfig = _DEFAULT
) -> tuple[float, ...]:
    """Return the tokens a second that the holders of each layer could compute together.

    Those who are still loading count as if they served already.
    """
    present = [offer for offer in offers if _counts(offer)]
    return _strength(present, n_layers, _rates(present, config))


_Rates: TypeAlias = dict[NodeId, float]
"""Tokens a second of each peer, through all the layers it holds."""


def _counts(offer: Offer) -> bool:
    return offer.alive and bool(offer.layers) and offer.state is not AdState.DRAINING


def _rates(present: list[Offer], config: PlacementConfig) -> _Rates:
    prices = price_offers(present, config.costs)
    return {
        offer.peer: 1e6 / prices[offer.peer].visit_us(len(offer.layers), head=False)
        for offer in present
    }


def _strength(offers: list[Offer], n_layers: int, rates: _Rates) -> tuple[float, ...]:
    strength = [0.0] * n_layers
    # In order of ids: sums of floats depend on their order, and all nodes must agree.
    for offer in sorted(offers, key=lambda offer: offer.peer):
        for layer in _held(offer, n_layers):
            strength[layer] += rates[offer.peer]
    return tuple(round(of, 6) for of in strength)  # so that no rounding error moves anyone


def _held(offer: Offer, n_layers: int) -> range:
    return range(offer.layers.start, min(offer.layers.stop, n_layers))


def _windows(n_layers: int, count: int) -> list[range]:
    return [range(start, start + count) for start in range(n_layers - count + 1)]


def _best_window(strength: tuple[float, ...], windows: list[range]) -> range:
    urgencies = [_urgency(strength, window) for window in windows]
    most = min(urgencies)
    equal = [window for window, of in zip(windows, urgencies, strict=True) if of == most]
    if len(equal) == 1:
        return equal[0]
    return min(equal, key=lambda window: (_holes_left(strength, window), window.start))


def _urgency(strength: tuple[float, ...], window: range) -> list[float]:
    """Return what makes one window more urgent than another: the smaller, the more."""
    return sorted(strength[window.start : window.stop])


def _holes_left(strength: tuple[float, ...], window: range) -> int:
    return len(
        runs_of(layer for layer, of in enumerate(strength) if not of and layer not in window)
    )


def _why(strength: tuple[float, ...], window: range) -> str:
    filled = runs_of(layer for layer in window if strength[layer] == 0)
    if filled:
        runs = " and ".join(interval(run) for run in filled)
        return f"nobody else holds {runs}"
    weakest = min(strength[layer] for layer in window)
    return f"every layer is held; {interval(window)} is weakest, with {weakest:.1f} tokens a second"


def _holes(offers: Iterable[Offer], n_layers: int) -> set[int]:
    held = {layer for offer in offers for layer in _held(offer, n_layers)}
    return set(range(n_layers)) - held


def _pack(serving: list[Offer], joining: list[Offer], n_layers: int, rates: _Rates) -> list[Offer]:
    """Place the joining ones afresh, in this order, as if each came when the last had settled."""
    placed = list(serving)
    for offer in joining:
        windows = _windows(n_layers, min(len(offer.layers), n_layers))
        window = _best_window(_strength(placed, n_layers, rates), windows)
        placed.append(offer.holding(window))
    return placed[len(serving) :]


def _improve(
    serving: list[Offer], claims: list[Offer], n_layers: int, rates: _Rates
) -> list[Offer]:
    """Let each claim move to a weaker window, highest id first, until none wants to.

    This ends: the strengths of all layers, weakest first, only ever grow. The bound on the rounds
    is for rounding errors alone.
    """
    settled = {offer.peer: offer for offer in claims}
    for _ in range(8 * len(claims) + 8):
        moved = False
        for peer in sorted(settled, reverse=True):
            offer = settled[peer]
            others = [*serving, *(other for other in settled.values() if other.peer != peer)]
            better = _better_window(offer, others, n_layers, rates)
            if better is not None:
                settled[peer] = offer.holding(better)
                moved = True
        if not moved:
            break
    return list(settled.values())


def _better_window(offer: Offer, others: list[Offer], n_layers: int, rates: _Rates) -> range | None:
    """Return a window that needs the offer more than its own does, if there is one."""
    strength = _strength(others, n_layers, rates)
    windows = _windows(n_layers, min(len(offer.layers), n_layers))
    best = _best_window(strength, windows)
    if offer.layers not in windows:
        return best
    if _urgency(strength, best) < _urgency(strength, offer.layers):
        return best
    return None


def _move(
    offer: Offer, present: list[Offer], n_layers: int, capacity: int, rates: _Rates
) -> range | None:
    """Return where this serving node could go to fill holes without leaving one."""
    if offer.state is not AdState.SERVING:
        return None
    others = [other for other in present if other.peer != offer.peer]
    served = [other for other in others if other.state is AdState.SERVING]
    needed = set(_held(offer, n_layers)) & _holes(served, n_layers)
    holes = _holes(present, n_layers)
    windows = [
        window
        for window in _windows(n_layers, min(capacity, n_layers))
        if needed <= set(window) and holes & set(window)
    ]
    if not windows:
        return None
    return _best_window(_strength(others, n_layers, rates), windows)
