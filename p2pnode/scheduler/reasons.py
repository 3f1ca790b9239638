"""Why a chain is as it is, and why another peer is not in it, in words for people."""

import math

from p2pnode.phrases import listed
from p2pnode.scheduler.directory import Candidate, Refusal, interval, words_for
from p2pnode.scheduler.route import Route, holders
from p2pnode.scheduler.search import cheapest_through
from p2pnode.scheduler.terrain import Cost, Visit
from p2pnode.wire.ad import Ability

MANY = 50
"""Peers beyond which a plan does not name all."""

NAMED = 8
"""Peers that it names then, for each kind of reason."""

_NOTICEABLE_US = 50.0
"""Less than this is "no gain": it would be rounded to 0.0 ms."""

_NO_CHAIN: Cost = (1 << 62, math.inf)


def of_chain(route: Route, visits: tuple[Visit, ...]) -> tuple[str, ...]:
    """Say what the chain costs, and for each peer that could serve but does not, why."""
    used = {visit.place for visit in visits}
    said = [_summary(route, visits), *_of_numerics(route, visits), *_of_held(route, visits)]
    said += [
        f"uses {route.candidates[place].label} though it was to be avoided: nobody else can do"
        " all of these layers"
        for place in sorted(used)
        if route.peer(place) in route.avoid
    ]
    said += _of_unused(route, visits)
    return tuple(said)


def _of_held(route: Route, visits: tuple[Visit, ...]) -> tuple[str, ...]:
    """Say that these hold the prompt's beginning, where they do."""
    if route.held is None or visits != holders(route):
        return ()
    names = listed(dict.fromkeys(route.candidates[visit.place].label for visit in visits))
    count = route.held.positions
    return (f"the first {count} positions of the prompt were computed before by {names}",)


def of_stage(route: Route, visit: Visit) -> str:
    """Say why this peer runs these layers."""
    rivals = sum(
        visit.layers.start in candidate.offer.layers
        and visit.layers.stop - 1 in candidate.offer.layers
        for place, candidate in enumerate(route.candidates)
        if place != visit.place
    )
    peer = route.peer(visit.place)
    parts = [
        f"best of {rivals + 1} that can run {interval(visit.layers)}"
        if rivals
        else f"the only one that can run {interval(visit.layers)} in one piece"
    ]
    if peer in route.prefer:
        parts.append("preferred")
    if not route.prices[peer].measured:
        parts.append("not measured yet, so priced as slow")
    if route.prices[peer].why:
        parts.append(route.prices[peer].why)
    return "; ".join(parts)


def of_refusals(refusals: tuple[Refusal, ...]) -> tuple[str, ...]:
    """Say of each peer that cannot serve why it cannot."""
    named = _worth_naming(refusals)
    return (
        *(f"not usable: {refusal}" for refusal in named),
        *_and_more(len(refusals) - len(named), "are not usable"),
    )


def of_unable(needs: Ability, refusals: tuple[Refusal, ...]) -> str:
    """Say who holds the last layer and cannot draw as is needed; empty if nobody does."""
    unable = [refusal.label for refusal in refusals if refusal.is_unable]
    if not unable:
        return ""
    more = [f"and {len(unable) - NAMED} more"] * (len(unable) > NAMED)
    named = ", ".join([*unable[:NAMED], *more])
    return f"no peer that holds the last layer can {words_for(needs)}: {named}"


def of_resting(near: tuple[Refusal, ...]) -> str:
    """Say who of those near holds missing layers and rests; empty if nobody does."""
    resting = [
        f"{one.label} {interval(one.layers)}" for one in near if one.rests and one.same_space
    ]
    more = [f"{len(resting) - NAMED} more"] * (len(resting) > NAMED)
    return ", ".join([*resting[:NAMED], *more])


def of_missing(near: tuple[Refusal, ...], refusals: tuple[Refusal, ...]) -> tuple[str, ...]:
    """Say why nobody serves what is missing, and first of all who might soon."""
    close = {refusal.peer for refusal in near}
    others = tuple(refusal for refusal in refusals if refusal.peer not in close)
    named = _worth_naming((*near, *others))
    more = _and_more(len(refusals) - len(named), "cannot serve them either")
    return (*map(str, named), *more)


def of_little_memory(
    beyond: range, candidates: tuple[Candidate, ...], refusals: tuple[Refusal, ...]
) -> tuple[str, ...]:
    """Say how far memory reaches, and whose is short."""
    short = [
        f"{candidate.label} has memory for {candidate.room} of its {len(candidate.offer.layers)}"
        " layers"
        for candidate in candidates
        if candidate.room < len(candidate.offer.layers)
    ]
    if len(candidates) > MANY:
        short = short[:NAMED] + _and_more(len(short) - NAMED, "have too little memory")
    named = _worth_naming(refusals)
    more = _and_more(len(refusals) - len(named), "are not usable")
    said = f"too little memory for this session: nothing is left for layers {interval(beyond)}"
    return (said, *short, *map(str, named), *more)


def _summary(route: Route, visits: tuple[Visit, ...]) -> str:
    hops = sum(route.hops_us(visits), 0.0)
    stages = [route.expected_us(visit) for visit in visits]
    total = f"{_ms(sum(stages) + hops)} a token, {_ms(hops)} of it on the way"
    if route.objective == "latency":
        return f"least latency: {total}"
    slowest = route.candidates[visits[stages.index(max(stages))].place].label
    return f"most throughput: the slowest stage, {slowest}, takes {_ms(max(stages))}; {total}"


def _of_numerics(route: Route, visits: tuple[Visit, ...]) -> list[str]:
    """Say how the stages compute, where any says so itself."""
    names: dict[str, list[str]] = {}
    for visit in visits:
        candidate = route.candidates[visit.place]
        peers = names.setdefault(candidate.offer.ad.numerics_name, [])
        if candidate.label not in peers:
            peers.append(candidate.label)
    if set(names) == {""}:
        return []
    if len(names) == 1:
        return [f"all compute as {name}" for name in names]
    ways = "; ".join(
        f"{', '.join(peers)} {f'as {name}' if name else 'without saying how'}"
        for name, peers in names.items()
    )
    said = f"computes in {len(names)} ways: {ways}"
    return [f"{said}; it is bit-reproducible while whoever takes over computes as who was lost"]


def _of_unused(route: Route, visits: tuple[Visit, ...]) -> list[str]:
    """Say why not the others: all of a few, the nearest of many and how many more there are."""
    used = {visit.place for visit in visits}
    unused = [place for place in range(len(route.candidates)) if place not in used]
    if not unused:
        return []
    terrain = route.latency_terrain() if route.objective == "latency" else route.pace_terrain()
    through = cheapest_through(terrain)
    best = terrain.cost_of(visits)
    kinds = set(route.kinds(visits))
    nearest = unused
    if len(route.candidates) > MANY:
        nearest = sorted(unused, key=lambda place: through[place] or _NO_CHAIN)[:NAMED]
    said = [_of_one_unused(route, place, through[place], best, kinds) for place in nearest]
    return said + _and_more(len(unused) - len(nearest), "could serve, and would be dearer")


def _of_one_unused(
    route: Route, place: int, through: Cost | None, best: Cost, kinds: set[int]
) -> str:
    candidate = route.candidates[place]
    if through is None:
        return f"avoids {candidate.label}: no chain leads through its layers"
    extra = through[1] - best[1]
    unit = "a token" if route.objective == "latency" else "in the slowest stage"
    price = f"{_signed_ms(extra)} {unit}" if abs(extra) >= _NOTICEABLE_US else "no gain"
    if not route.prices[candidate.offer.peer].measured:
        price += " (not measured yet, so priced as slow)"
    if route.prices[candidate.offer.peer].why:
        price += f" ({route.prices[candidate.offer.peer].why})"
    if candidate.offer.ad.numerics not in kinds:
        price += f" (computes {_as_named(candidate)})"
    asked = ", as asked" if route.peer(place) in route.avoid else ""
    if through[0] > best[0] and not asked:
        asked = " for a preferred peer"
    return f"avoids {candidate.label}{asked}: {price}"


def _as_named(candidate: Candidate) -> str:
    name = candidate.offer.ad.numerics_name
    return f"as {name}" if name else "without saying how"


def _worth_naming(refusals: tuple[Refusal, ...]) -> tuple[Refusal, ...]:
    """Return all of a few; of many, those whom the ledger excludes and some that come close."""
    if len(refusals) <= MANY:
        return refusals
    return tuple(
        sorted(refusals, key=lambda refusal: (not refusal.distrusted, not refusal.same_space))[
            :NAMED
        ]
    )


def _and_more(count: int, what: str) -> list[str]:
    return [f"{count} more {what}"] if count > 0 else []


def _ms(us: float) -> str:
    return f"{us / 1000:.1f} ms"


def _signed_ms(us: float) -> str:
    return f"{us / 1000:+.1f} ms"
