"""One question to the search: from whom, to whom, through which layers, and what counts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from p2pnode.sansio import NodeId
from p2pnode.scheduler.budgets import cheapest_within_budgets, overspends
from p2pnode.scheduler.cost import HIDDEN_VALUE_BYTES, TOKEN_BYTES, Hops, Peers, Price, hidden_bytes
from p2pnode.scheduler.directory import Candidate, Demand
from p2pnode.scheduler.held import Held
from p2pnode.scheduler.search import cheapest
from p2pnode.scheduler.terrain import Floats, Tariff, Terrain, Visit

Objective: TypeAlias = Literal["latency", "throughput"]
"""``latency``: one user's time for a token, the sum of all stages and hops. ``throughput``: what
many users get together, set by the slowest stage or link alone."""

_HopsUs: TypeAlias = Callable[[Peers, Peers, int], Floats]

# Ranks of what a person or a repair asks for: each outweighs any number of the next.
_SPARED_LAYER = 1_000_000_000_000
_STAGE = 1_000_000
_OTHER_THAN_PREFERRED_LAYER = 1


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What is asked of the search.

    Attributes:
        source: Who sends into the first stage.
        sink: Who receives from the last.
        layers: The layers to cover.
        demand: The session's demand.
        candidates: Who can serve.
        prices: What each of them costs.
        hops: What sending costs.
        objective: What counts.
        prefer: Peers to use for as many layers as they can do.
        avoid: Peers to use only where nobody else can.
        few_stages: Whether fewer stages count for more than time.
        like: The numerics to compute as, where it costs little; 0 for none in particular.
        end_value_bytes: Bytes of a hidden value that enters the first stage, or leaves the last.
        cut_value_bytes: Bytes of one that travels between the stages.
        held: A chain that holds the prompt's beginning; None for none.
        memo: Terrains drawn already.
    """

    source: NodeId
    sink: NodeId
    layers: range
    demand: Demand
    candidates: tuple[Candidate, ...]
    prices: dict[NodeId, Price]
    hops: Hops
    objective: Objective
    prefer: frozenset[NodeId] = frozenset()
    avoid: frozenset[NodeId] = frozenset()
    few_stages: bool = False
    like: int = 0
    end_value_bytes: int = HIDDEN_VALUE_BYTES
    cut_value_bytes: int = HIDDEN_VALUE_BYTES
    held: Held | None = None
    memo: dict[object, Terrain] = field(default_factory=dict, init=False)

    def peer(self, place: int) -> NodeId:
        return self.candidates[place].offer.peer

    def kinds(self, visits: tuple[Visit, ...]) -> tuple[int, ...]:
        """Return the numerics of each visit."""
        return tuple(self.candidates[visit.place].offer.ad.numerics for visit in visits)

    def is_mixed(self, visits: tuple[Visit, ...]) -> bool:
        """Whether they compute in different ways; those that do not say are taken for one."""
        return len(set(self.kinds(visits))) > 1

    def expected_us(self, visit: Visit) -> float:
        """Return the time that a visit is expected to take."""
        head = visit.layers.stop == self.demand.n_layers
        return self.prices[self.peer(visit.place)].expected_us(len(visit.layers), head=head)

    def hops_us(self, visits: tuple[Visit, ...]) -> tuple[float, ...]:
        """Return the latency of each hop, the first from the source, the last to the sink."""
        peers = [self.source, *(self.peer(visit.place) for visit in visits), self.sink]
        return tuple(
            self.hops.latency_us(one, other, self.hop_bytes(number, len(visits)))
            for number, (one, other) in enumerate(pairwise(peers))
        )

    def hop_bytes(self, number: int, stages: int) -> int:
        """Return the size of what travels on a hop: a token at the model's ends."""
        token_in = number == 0 and self.layers.start == 0
        token_out = number == stages and self.layers.stop == self.demand.n_layers
        if token_in or token_out:
            return TOKEN_BYTES
        value_bytes = self.cut_value_bytes if 0 < number < stages else self.end_value_bytes
        return hidden_bytes(self.demand.d_model, value_bytes)

    def latency_terrain(self, *, limit_us: float = float("inf"), once: bool = False) -> Terrain:
        """Return the terrain where times add up, and nothing may be slower than the limit."""

        def hop(peers: Peers, others: Peers, size: int) -> Floats:
            us = self.hops.latencies_us(peers, others, size)
            us[self.hops.occupancies_us(peers, others, size) > limit_us] = float("inf")
            return us

        return self._terrain(hop, limit_us, paced=False, once=once)

    def pace_terrain(self) -> Terrain:
        """Return the terrain where the slowest stage or link counts.

        A second visit takes its peer's time a second time, so there a peer is visited once.
        """
        return self._terrain(self.hops.occupancies_us, float("inf"), paced=True, once=True)

    def _terrain(self, hop: _HopsUs, limit_us: float, *, paced: bool, once: bool) -> Terrain:
        known = self.memo.get((limit_us, paced, once))
        if known is not None:
            return known
        peers = tuple(candidate.offer.peer for candidate in self.candidates)
        first_bytes, last_bytes = self.hop_bytes(0, 1), self.hop_bytes(1, 1)
        drawn = self.memo[limit_us, paced, once] = Terrain(
            layers=self.layers,
            windows=tuple(_overlap(each.offer.layers, self.layers) for each in self.candidates),
            budgets=tuple(candidate.room for candidate in self.candidates),
            once=once,
            enter=hop((self.source,), peers, first_bytes)[0],
            cross=hop(peers, peers, self.hop_bytes(1, 2)),
            leave=hop(peers, (self.sink,), last_bytes)[:, 0],
            tariff=self._tariff(peers, limit_us),
            paced=paced,
        )
        return drawn

    def _tariff(self, peers: Peers, limit_us: float) -> Tariff:
        prices = [self.prices[peer] for peer in peers]
        return Tariff(
            fixed_us=tuple(price.fixed_us for price in prices),
            layer_us=tuple(price.layer_us for price in prices),
            head_us=tuple(price.head_us for price in prices),
            visit_rank=_STAGE if self.few_stages else 0,
            layer_rank=tuple(map(self._layer_rank, peers)),
            head_at=self.demand.n_layers,
            limit_us=limit_us,
        )

    def _layer_rank(self, peer: NodeId) -> int:
        rank = _SPARED_LAYER if peer in self.avoid else 0
        other = bool(self.prefer) and peer not in self.prefer
        return rank + _OTHER_THAN_PREFERRED_LAYER * other


def find(route: Route) -> tuple[Visit, ...] | None:
    """Return the best chain for the route's objective, or None if there is none.

    For throughput, the quickest of the chains with the best pace. Of chains that cost about the
    same, one whose stages compute alike, or as :attr:`Route.like`; so there are two searches at
    the most, however many numerics there are.
    """
    if route.objective == "throughput":
        return _of_best_pace(route)
    terrain = route.latency_terrain()
    found = _best(terrain)
    if found is None:
        return None
    if route.like:
        return _alike(route, terrain, found)
    if route.few_stages:
        return found
    return _by_holders(route, terrain, _unmixed(route, terrain, found))


def _of_best_pace(route: Route) -> tuple[Visit, ...] | None:
    terrain = route.pace_terrain()
    paced = _best(terrain)
    if paced is None:
        return None
    _, pace = terrain.cost_of(paced)
    quick = route.latency_terrain(limit_us=pace, once=True)
    found = _best(quick) or paced
    if not route.is_mixed(found):
        return found
    slower_us = pace * route.hops.config.one_numerics
    other = _unmixed(route, route.latency_terrain(limit_us=slower_us, once=True), found)
    return found if route.is_mixed(other) else other


def _unmixed(route: Route, terrain: Terrain, found: tuple[Visit, ...]) -> tuple[Visit, ...]:
    """Return a chain that mixes less than ``found``, the cheapest, if it costs little more.

    A hop between two numerics is priced at all that a chain of one may cost beyond the cheapest. So
    such a chain is found if there is one, and else maybe one that mixes less.
    """
    if not route.is_mixed(found):
        return found
    most, (_, us) = route.hops.config.one_numerics, terrain.cost_of(found)
    kinds = np.array([candidate.offer.ad.numerics for candidate in route.candidates])
    other = _best(terrain.mixing_for(kinds, (most - 1) * us))
    return found if other is None or terrain.cost_of(other)[1] > most * us else other


def holders(route: Route) -> tuple[Visit, ...] | None:
    """Return the chain of those who hold the prompt's beginning; None where it can be none."""
    held, layers = route.held, route.layers
    if held is None or not held.runs:
        return None
    ends = held.runs[0][1].start, held.runs[-1][1].stop
    follow = all(one.stop == other.start for (_, one), (_, other) in pairwise(held.runs))
    if not follow or ends != (layers.start, layers.stop):
        return None
    terrain = route.latency_terrain()
    peers = tuple(map(route.peer, range(len(route.candidates))))
    return held.visits(peers, terrain.windows, terrain.budgets)


def _by_holders(route: Route, terrain: Terrain, found: tuple[Visit, ...]) -> tuple[Visit, ...]:
    """Return the chain of the holders, where that costs no more than it saves.

    What a stage saves that is in both chains alike decides nothing.
    """
    known = holders(route)
    if known is None or route.held is None or known == found:
        return found
    saved = 0.0
    for visit in set(known) - set(found):
        ad = route.candidates[visit.place].offer.ad
        saved += route.held.saved_us(ad.prefill_layer_ns, len(visit.layers))
    rank, us = terrain.cost_of(found)
    held_rank, held_us = terrain.cost_of(known)
    is_dearer = held_us > us + saved
    return found if is_dearer or _asked(held_rank) > _asked(rank) else known


def _alike(route: Route, terrain: Terrain, found: tuple[Visit, ...]) -> tuple[Visit, ...]:
    """Return the cheapest cover of the wanted numerics, if it costs little more than ``found``.

    No peer that is to be spared is used for it, and no preferred one passed over.
    """
    if set(route.kinds(found)) == {route.like}:
        return found
    places = [
        place
        for place, candidate in enumerate(route.candidates)
        if candidate.offer.ad.numerics == route.like
    ]
    alike = _best(terrain.of(places)) if places else None
    if alike is None:
        return found
    alike = tuple(Visit(places[visit.place], visit.layers) for visit in alike)
    rank, us = terrain.cost_of(found)
    other_rank, other_us = terrain.cost_of(alike)
    is_dearer = other_us > route.hops.config.same_numerics * us
    return found if is_dearer or _asked(other_rank) > _asked(rank) else alike


def _asked(rank: int) -> tuple[int, int]:
    """Return what a person asked for of a rank: the number of stages is no matter here."""
    return rank // _SPARED_LAYER, rank % _STAGE


def _best(terrain: Terrain) -> tuple[Visit, ...] | None:
    found = cheapest(terrain)
    if found is not None and overspends(terrain, found[1]):
        found = cheapest_within_budgets(terrain)
    return None if found is None or found[0][1] == float("inf") else found[1]


def _overlap(one: range, other: range) -> range:
    start = max(one.start, other.start)
    return range(start, max(start, min(one.stop, other.stop)))
