"""Which peers run which layers for one session: a plan, with its reasons.

A chain is a shortest path (see :mod:`~p2pnode.scheduler.search`). A peer may be left before its
last layer, and visited again for a later run: a slow machine that holds the whole model may do the
ends while a fast one does the middle.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from p2pnode.sansio import NodeId
from p2pnode.scheduler import reasons
from p2pnode.scheduler.budgets import furthest
from p2pnode.scheduler.cost import CostConfig, Goodput, Hops, Price, RttsUs, RttUs
from p2pnode.scheduler.directory import Candidate, Demand, Offer, Refusal, runs_of, sift
from p2pnode.scheduler.pricing import price_in_trust
from p2pnode.scheduler.route import Objective, Route, find
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.terrain import Visit

_NOBODY: Mapping[NodeId, str] = MappingProxyType({})
_DEFAULT_COSTS = CostConfig()
_UNTRIED = Standing()


@dataclass(frozen=True, slots=True)
class StageRun:
    """One peer's part of a chain.

    Attributes:
        peer: Its node id.
        name: Its name, made unique among the peers at hand.
        layers: The layers it runs.
        cost_us: What its visit costs a token, microseconds; with the head if it is the last.
        reason: Why this peer, in plain words.
    """

    peer: NodeId
    name: str
    layers: range
    cost_us: float
    reason: str


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """Which peers run which layers.

    Attributes:
        stages: In order; their layers are the whole model, each once.
        objective: What the plan is the best for.
        expected_us_per_token: The sum of all stages and hops, from the requester back to it.
        slowest_us: The slowest stage, which bounds what several sessions get together.
        hop_us: Each hop: from the requester, between the stages, back to the requester.
        reasons: Why this chain, and why not the other peers, in plain words.
    """

    stages: tuple[StageRun, ...]
    objective: Objective
    expected_us_per_token: float
    slowest_us: float
    hop_us: tuple[float, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoCover:
    """No chain exists.

    Attributes:
        missing: The runs of layers that nobody can serve now.
        reasons: Why, in plain words.
        near: Peers that hold missing layers, and why they cannot serve them now.
    """

    missing: tuple[range, ...]
    reasons: tuple[str, ...]
    near: tuple[Refusal, ...]


def plan_chain(
    offers: Iterable[Offer],
    *,
    requester: NodeId,
    space_hash32: int,
    n_layers: int,
    d_model: int,
    rtt_us: RttUs,
    kv_bytes_needed: Callable[[int], int],
    objective: Objective = "latency",
    prefer: frozenset[NodeId] = frozenset(),
    avoid: frozenset[NodeId] = frozenset(),
    exclude: Mapping[NodeId, str] = _NOBODY,
    goodput: Goodput | None = None,
    costs: CostConfig = _DEFAULT_COSTS,
    rtts_us: RttsUs | None = None,
    standing: Standing = _UNTRIED,
) -> ChainPlan | NoCover:
    """Choose the peers for a new session.

    Args:
        offers: What all known peers offer, in any order.
        requester: Who asks; the chain begins and ends there.
        space_hash32: The embedding space of the model.
        n_layers: Its layers.
        d_model: The width of its hidden states.
        rtt_us: Round trips; None for the unmeasured.
        kv_bytes_needed: KV memory that a run of so many layers takes for this session.
        objective: What to make small: the time of a token, or that of the slowest stage.
        prefer: Peers to use for as many layers as they can do.
        avoid: Peers to use only for layers that nobody else can do.
        exclude: Peers not to use at all, each with the reason as a clause ("has refused ...").
        goodput: Rates of large messages, where known.
        costs: Prices of what is unmeasured.
        rtts_us: The round trips of many at once, for swarms of hundreds.
        standing: Whom the ledger excludes, and how far it trusts the others.
    """
    exclude = {**standing.excluded, **exclude}
    demand = Demand(space_hash32, n_layers, d_model, kv_bytes_needed, exclude)
    candidates, refusals, prices = _survey(tuple(offers), demand, costs, standing, requester)
    route = Route(
        source=requester,
        sink=requester,
        layers=range(n_layers),
        demand=demand,
        candidates=candidates,
        prices=prices,
        hops=Hops(rtt_us, goodput, costs, rtts_us),
        objective=objective,
        prefer=prefer,
        avoid=avoid,
    )
    visits = find(route)
    if visits is None:
        return _no_cover(route, refusals)
    hop_us = route.hops_us(visits)
    stages = _stages(route, visits)
    return ChainPlan(
        stages=stages,
        objective=objective,
        expected_us_per_token=sum(hop_us) + sum(stage.cost_us for stage in stages),
        slowest_us=max(stage.cost_us for stage in stages),
        hop_us=hop_us,
        reasons=(*reasons.of_chain(route, visits), *reasons.of_refusals(refusals)),
    )


def plan_repair(
    offers: Iterable[Offer],
    *,
    lost: range,
    upstream: NodeId,
    downstream: NodeId,
    space_hash32: int,
    n_layers: int,
    d_model: int,
    rtt_us: RttUs,
    kv_bytes_needed: Callable[[int], int],
    prefer: frozenset[NodeId] = frozenset(),
    avoid: frozenset[NodeId] = frozenset(),
    exclude: Mapping[NodeId, str] = _NOBODY,
    goodput: Goodput | None = None,
    costs: CostConfig = _DEFAULT_COSTS,
    rtts_us: RttsUs | None = None,
    standing: Standing = _UNTRIED,
    requester: NodeId | None = None,
) -> tuple[StageRun, ...] | NoCover:
    """Choose peers for just the layers that a running session has lost.

    Fewest stages first, since each one is opened and replayed before the answer goes on; then the
    time of a token.

    ``lost`` is covered exactly; ``upstream`` sends into it (the stage before, or the requester) and
    ``downstream`` receives from it. Peers that still serve the session may be chosen too. The peer
    that was lost belongs into ``exclude``, since membership may learn of its death later. The
    other arguments are those of :func:`plan_chain`.
    """
    exclude = {**standing.excluded, **exclude}
    demand = Demand(space_hash32, n_layers, d_model, kv_bytes_needed, exclude)
    candidates, refusals, prices = _survey(tuple(offers), demand, costs, standing, requester)
    route = Route(
        source=upstream,
        sink=downstream,
        layers=lost,
        demand=demand,
        candidates=candidates,
        prices=prices,
        hops=Hops(rtt_us, goodput, costs, rtts_us),
        objective="latency",
        prefer=prefer,
        avoid=avoid,
        few_stages=True,
    )
    visits = find(route)
    return _no_cover(route, refusals) if visits is None else _stages(route, visits)


def _survey(
    offers: tuple[Offer, ...],
    demand: Demand,
    costs: CostConfig,
    standing: Standing,
    us: NodeId | None,
) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...], dict[NodeId, Price]]:
    candidates, refusals = sift(offers, demand)
    # A peer that cannot serve now still tells how long this model takes.
    same_model = (offer for offer in offers if offer.space_hash32 == demand.space_hash32)
    return candidates, refusals, price_in_trust(same_model, costs, standing, us)


def _stages(route: Route, visits: tuple[Visit, ...]) -> tuple[StageRun, ...]:
    return tuple(
        StageRun(
            peer=route.peer(visit.place),
            name=route.candidates[visit.place].label,
            layers=visit.layers,
            cost_us=route.expected_us(visit),
            reason=reasons.of_stage(route, visit),
        )
        for visit in visits
    )


def _no_cover(route: Route, refusals: tuple[Refusal, ...]) -> NoCover:
    missing = _uncovered(route.layers, route.candidates)
    near = tuple(
        refusal
        for refusal in refusals
        if refusal.layers
        and (not refusal.same_space or any(_overlap(refusal.layers, run) for run in missing))
    )
    if missing:
        return NoCover(missing, reasons.of_missing(missing, near, refusals), near)
    # Every layer is held by somebody, but not with the memory for this session.
    reached = min(furthest(route.latency_terrain()), route.layers.stop - 1)
    beyond = range(reached, route.layers.stop)
    return NoCover((beyond,), reasons.of_little_memory(beyond, route.candidates, refusals), near)


def _uncovered(layers: range, candidates: tuple[Candidate, ...]) -> tuple[range, ...]:
    held = {layer for candidate in candidates for layer in candidate.offer.layers}
    return runs_of(layer for layer in layers if layer not in held)


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop
