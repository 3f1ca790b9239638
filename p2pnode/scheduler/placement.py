"""Who should hold which layers.

A layer is as strong as the tokens a second that its holders could compute together; the swarm is
as strong as its weakest layer. A newcomer takes the window whose layers, weakest first, are the
weakest of all windows of its size: holes have no strength at all and so come first (the rule of
Petals; Borzunov et al. 2023). Of equal windows it takes the one that leaves the fewest holes, then
the first. Where it fills holes it takes no more than them: what others hold already would cost it
memory and time to load, and the swarm gains most by being whole soon.

Newcomers announce the run they intend to load. When several start at once their claims collide,
and :func:`settle_claims` says who moves. It is a function of the ads alone, so nodes with the
same ads agree without a word: each takes its own part of the answer and announces that.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from p2pnode.errors import ConfigError
from p2pnode.sansio import NodeId
from p2pnode.scheduler.cost import CostConfig, price_offers
from p2pnode.scheduler.directory import Offer, interval, runs_of
from p2pnode.wire.ad import AdState


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
    window = _without_ends_held(strength, window)
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
    claims = {offer.peer: offer.layers for offer in joining}
    serving = [offer for offer in present if offer.state is not AdState.JOINING]
    by_size = dict(sorted(claims.items(), key=lambda claim: -len(claim[1])))
    rates = _rates(present, config)
    base = _strength(serving, n_layers, rates)
    best: _Claims = {}
    best_cover = -1
    for packed in (None, claims, by_size):
        first = claims if packed is None else _pack(base, packed, rates)
        settled = _improve(base, first, rates)
        strength = base.copy()
        for peer, layers in settled.items():
            _add(strength, layers, rates[peer])
        cover = n_layers - strength.count(0)
        if cover > best_cover:
            best, best_cover = settled, cover
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
    capacity_with_last: int | None = None,
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
        capacity_with_last: How many of the last ones we can hold, with the output matrix beside
            them; None for as many.
        config: Patience, and prices of those who have not measured themselves.
    """
    present = [offer for offer in offers if _counts(offer)]
    holes = _holes(present, n_layers)
    ours = next((offer for offer in present if offer.peer == us), None)
    if not holes or ours is None or hole_seconds < config.patience:
        return None
    moves = _Moves(present, holes, n_layers, config)
    window = moves.of(ours, capacity_layers, capacity_with_last)
    if window is None:
        return None
    turn = 1
    filled = holes & set(window)
    for offer in present:
        if offer.peer != us:
            theirs = moves.of(offer, len(offer.layers))
            first = theirs is not None and (len(holes & set(theirs)), offer.peer) > (
                len(filled),
                us,
            )
            turn += first
    if hole_seconds < turn * config.patience:
        return None
    runs = " and ".join(interval(run) for run in runs_of(filled))
    return Placement(window, f"fills the hole {runs}; others serve what it leaves")


_SCALE = 1_000_000_000
"""Strengths are whole numbers of billionths of a token a second: their sums depend on no order, so
all nodes agree, and no rounding error moves anyone."""

_LOOKS = 4_000
"""About how often a settlement may look for a better window: a quarter of a second. Swarms of
dozens never need as many; in larger ones it may end early, and goes on when it is asked again."""

_Rates: TypeAlias = dict[NodeId, int]
"""Billionths of a token a second of each peer, through all the layers it holds."""


def _counts(offer: Offer) -> bool:
    return offer.alive and bool(offer.layers) and offer.state is not AdState.DRAINING


def _rates(present: list[Offer], config: PlacementConfig) -> _Rates:
    prices = price_offers(present, config.costs)
    return {
        offer.peer: round(
            _SCALE * 1e6 / max(1.0, prices[offer.peer].visit_us(len(offer.layers), head=False))
        )
        for offer in present
    }


def _strength(offers: Iterable[Offer], n_layers: int, rates: _Rates) -> list[int]:
    strength = [0] * n_layers
    for offer in offers:
        _add(strength, offer.layers, rates[offer.peer])
    return strength


def _add(strength: list[int], layers: range, rate: int) -> None:
    for layer in layers[: len(strength) - layers.start] if layers.start < len(strength) else ():
        strength[layer] += rate


def _held(offer: Offer, n_layers: int) -> range:
    return range(offer.layers.start, min(offer.layers.stop, n_layers))


def _windows(n_layers: int, count: int, with_last: int | None = None) -> list[range]:
    last = count if with_last is None else min(count, with_last)
    before = [range(start, start + count) for start in range(n_layers - count)]
    return [*before, range(n_layers - last, n_layers)]


def _best_window(strength: list[int], windows: list[range]) -> range:
    longest = max(map(len, windows))
    urgencies = [_urgency(strength, window, longest) for window in windows]
    most = min(urgencies)
    equal = [window for window, of in zip(windows, urgencies, strict=True) if of == most]
    if len(equal) == 1:
        return equal[0]
    return min(equal, key=lambda window: (_holes_left(strength, window), window.start))


def _urgency(strength: list[int], window: range, length: int = 0) -> list[float]:
    """Return what makes one window more urgent than another: the smaller, the more.

    ``length`` is that of the longest it is compared with: layers that it lacks are not urgent.
    """
    return [*sorted(strength[window.start : window.stop]), *[inf] * (length - len(window))]


def _holes_left(strength: list[int], window: range) -> int:
    return len(
        runs_of(layer for layer, of in enumerate(strength) if not of and layer not in window)
    )


def _without_ends_held(strength: list[int], window: range) -> range:
    """Return the part of a window from its first hole to its last; all of it if it has none."""
    holes = [layer for layer in window if strength[layer] == 0]
    return range(holes[0], holes[-1] + 1) if holes else window


def _why(strength: list[int], window: range) -> str:
    filled = runs_of(layer for layer in window if strength[layer] == 0)
    if filled:
        runs = " and ".join(interval(run) for run in filled)
        return f"nobody else holds {runs}"
    weakest = min(strength[layer] for layer in window) / _SCALE
    return f"every layer is held; {interval(window)} is weakest, with {weakest:.1f} tokens a second"


def _holes(offers: Iterable[Offer], n_layers: int) -> set[int]:
    held = {layer for offer in offers for layer in _held(offer, n_layers)}
    return set(range(n_layers)) - held


_Claims: TypeAlias = dict[NodeId, range]


def _pack(base: list[int], claims: _Claims, rates: _Rates) -> _Claims:
    """Place the joining ones afresh, in this order, as if each came when the last had settled."""
    strength, n_layers = base.copy(), len(base)
    packed: _Claims = {}
    for peer, layers in claims.items():
        window = _best_window(strength, _windows(n_layers, min(len(layers), n_layers)))
        packed[peer] = window
        _add(strength, window, rates[peer])
    return packed


def _improve(base: list[int], claims: _Claims, rates: _Rates) -> _Claims:
    """Let each claim move to a weaker window, highest id first, until none wants to.

    This ends: the strengths of all layers, weakest first, only ever grow.
    """
    settled, strength = dict(claims), base.copy()
    for peer, layers in settled.items():
        _add(strength, layers, rates[peer])
    in_turn = sorted(settled, reverse=True)
    for _ in range(max(2, min(8 * len(claims) + 8, _LOOKS // max(1, len(claims))))):
        moved = False
        content: set[tuple[range, int]] = set()
        for peer in in_turn:
            layers, rate = settled[peer], rates[peer]
            if (layers, rate) in content:
                continue  # another like it has looked, and nothing has moved since
            _add(strength, layers, -rate)
            better = _better_window(layers, strength)
            _add(strength, layers if better is None else better, rate)
            if better is None:
                content.add((layers, rate))
            else:
                settled[peer], moved = better, True
                content.clear()
        if not moved:
            break
    return settled


def _better_window(layers: range, others: list[int]) -> range | None:
    """Return a window that needs one more than its own does, if there is one."""
    n_layers = len(others)
    windows = _windows(n_layers, min(len(layers), n_layers))
    best = _best_window(others, windows)
    if layers.stop > n_layers or len(layers) > n_layers:
        return best
    if _urgency(others, best) < _urgency(others, layers):
        return best
    return None


class _Moves:
    """Where serving nodes could go to fill holes without leaving one."""

    def __init__(
        self, present: list[Offer], holes: set[int], n_layers: int, config: PlacementConfig
    ) -> None:
        self._holes = holes
        self._n_layers = n_layers
        self._rates = _rates(present, config)
        self._strength = _strength(present, n_layers, self._rates)
        served = (o.layers for o in present if o.state is AdState.SERVING)
        self._holders = Counter(layer for layers in served for layer in layers)
        self._known: dict[tuple[range, int, int, int | None], range | None] = {}

    def of(self, offer: Offer, capacity: int, with_last: int | None = None) -> range | None:
        """Return the window that it would move to, with room for ``capacity`` layers.

        ``with_last``: for how many of the last ones; None for as many.
        """
        if offer.state is not AdState.SERVING:
            return None
        key = (offer.layers, self._rates[offer.peer], capacity, with_last)
        if key not in self._known:
            self._known[key] = self._best(*key)
        return self._known[key]

    def _best(self, layers: range, rate: int, capacity: int, with_last: int | None) -> range | None:
        needed = {layer for layer in layers if self._holders[layer] == 1}
        windows = [
            window
            for window in _windows(self._n_layers, min(capacity, self._n_layers), with_last)
            if all(layer in window for layer in needed)
            and any(layer in window for layer in self._holes)
        ]
        if not windows:
            return None
        others = self._strength.copy()
        _add(others, layers, -rate)
        return _best_window(others, windows)
