"""Which peers run which layers for one session: a plan, with its reasons.

A chain is a shortest path (see :mod:`~p2pnode.scheduler.search`). A peer may be left before its
last layer, and visited again for a later run: a slow machine that holds the whole model may do the
ends while a fast one does the middle.
"""

from dataclasses import dataclass

from p2pnode.sansio import NodeId
from p2pnode.scheduler import reasons
from p2pnode.scheduler.budgets import furthest
from p2pnode.scheduler.directory import Candidate, Refusal, runs_of
from p2pnode.scheduler.estimate import Estimate
from p2pnode.scheduler.route import Objective, Route, find
from p2pnode.scheduler.terrain import Visit


@dataclass(frozen=True, slots=True)
class StageRun:
    """One peer's part of a chain.

    Attributes:
        peer: Its node id.
        name: Its name, made unique among the peers at hand.
        layers: The layers it runs.
        cost_us: What its visit costs a token, microseconds; with the head if it is the last.
        reason: Why this peer, in plain words.
        numerics: How it says that it computes; 0 if it does not say.
        numerics_name: The same for people.
    """

    peer: NodeId
    name: str
    layers: range
    cost_us: float
    reason: str
    numerics: int = 0
    numerics_name: str = ""


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
        estimate: What the answer should take under today's load; None where nobody asked.
    """

    stages: tuple[StageRun, ...]
    objective: Objective
    expected_us_per_token: float
    slowest_us: float
    hop_us: tuple[float, ...]
    reasons: tuple[str, ...]
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True)
class NoCover:
    """No chain exists.

    Attributes:
        missing: The runs of layers that nobody can serve now.
        reasons: Why, in plain words.
        near: Peers that hold missing layers, and why they cannot serve them now.
        unable: Who holds the last layer and cannot draw as is needed, for people; empty unless that
            alone is missing.
        resting: Who holds missing layers and rests for now, for people; empty if nobody does.
    """

    missing: tuple[range, ...]
    reasons: tuple[str, ...]
    near: tuple[Refusal, ...]
    unable: str = ""
    resting: str = ""


def chain_along(route: Route, refusals: tuple[Refusal, ...]) -> ChainPlan | NoCover:
    """Return the best chain of a route; ``refusals`` are of those who cannot serve."""
    visits = find(route)
    if visits is None:
        return _no_cover(route, refusals)
    hop_us = route.hops_us(visits)
    stages = _stages(route, visits)
    return ChainPlan(
        stages=stages,
        objective=route.objective,
        expected_us_per_token=sum(hop_us, 0.0) + sum([stage.cost_us for stage in stages], 0.0),
        slowest_us=max(stage.cost_us for stage in stages),
        hop_us=hop_us,
        reasons=(*reasons.of_chain(route, visits), *reasons.of_refusals(refusals)),
    )


def stages_along(route: Route, refusals: tuple[Refusal, ...]) -> tuple[StageRun, ...] | NoCover:
    """Return the stages alone of the best chain of a route."""
    visits = find(route)
    return _no_cover(route, refusals) if visits is None else _stages(route, visits)


def _stages(route: Route, visits: tuple[Visit, ...]) -> tuple[StageRun, ...]:
    return tuple(_stage(route, visit, route.candidates[visit.place]) for visit in visits)


def _stage(route: Route, visit: Visit, candidate: Candidate) -> StageRun:
    return StageRun(
        peer=candidate.offer.peer,
        name=candidate.label,
        layers=visit.layers,
        cost_us=route.expected_us(visit),
        reason=reasons.of_stage(route, visit),
        numerics=candidate.offer.ad.numerics,
        numerics_name=candidate.offer.ad.numerics_name,
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
        unable = ""
        if missing == (route.demand.last_layer,):
            unable = reasons.of_unable(route.demand.needs, refusals)
        said = reasons.of_missing(near, refusals)
        resting = reasons.of_resting(near)
        return NoCover(missing, (unable, *said) if unable else said, near, unable, resting)
    # Every layer is held by somebody, but not with the memory for this session.
    reached = min(furthest(route.latency_terrain()), route.layers.stop - 1)
    beyond = range(reached, route.layers.stop)
    return NoCover((beyond,), reasons.of_little_memory(beyond, route.candidates, refusals), near)


def _uncovered(layers: range, candidates: tuple[Candidate, ...]) -> tuple[range, ...]:
    held = {layer for candidate in candidates for layer in candidate.offer.layers}
    return runs_of(layer for layer in layers if layer not in held)


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop
