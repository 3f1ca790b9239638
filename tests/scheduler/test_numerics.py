"""Chains of one arithmetic, and successors that compute as the lost did: neither is required."""

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode import CORES
from p2pnode.errors import ConfigError
from p2pnode.scheduler import route, search
from p2pnode.scheduler.chain import ChainPlan, StageRun
from p2pnode.scheduler.cost import CostConfig
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import SPACE, an_offer, peer_id
from p2pnode.wire.ad import numerics_hash32

US = peer_id(0)
GGML, NUMPY = "ggml 0.26.0/avx2/kv-f16", "numpy 2.4/openblas/kv-f32"


def offer(number: int, start: int, stop: int, name: str = "", us: int = 600, **more: Any) -> Offer:
    """Return the offer of a peer that computes as ``name``, ``us`` microseconds a layer."""
    return an_offer(
        number,
        start,
        stop,
        decode_layer_us=us,
        numerics=numerics_hash32(name),
        numerics_names=(name,) if name else (),
        **more,
    )


def a_view(*offers: Offer, **changes: Any) -> PlanView:
    of_wanted = {name: changes.pop(name) for name in ("objective", "avoid") if name in changes}
    wanted = Wanted(US, SPACE, 30, 576, lambda layers, _: layers * 1024, **of_wanted)
    return PlanView(wanted, offers, lambda one, other: 100.0, **changes)


def chain(*offers: Offer, **changes: Any) -> ChainPlan:
    found = a_view(*offers, **changes).chain()
    assert isinstance(found, ChainPlan)
    return found


def names(runs: tuple[StageRun, ...] | ChainPlan) -> list[str]:
    return [run.name for run in (runs.stages if isinstance(runs, ChainPlan) else runs)]


def repaired(*offers: Offer, like: str = GGML, **changes: Any) -> list[str]:
    found = a_view(*offers, **changes).repair(
        range(10, 20), (US, US), {}, like=numerics_hash32(like)
    )
    assert isinstance(found, tuple)
    return names(found)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_one_numerics_is_taken_where_it_costs_little_more(objective: str) -> None:
    mixed = (offer(1, 0, 15, GGML, 2_000), offer(2, 15, 30, NUMPY, 500))
    slower = offer(3, 15, 30, GGML, 600)
    found = chain(*mixed, slower, objective=objective)
    assert names(found) == ["peer1", "peer3"]
    assert f"all compute as {GGML}" in found.reasons
    [avoided] = [said for said in found.reasons if said.startswith("avoids peer2: ")]
    assert f"(computes as {NUMPY})" in avoided
    assert ("-1.5 ms" if objective == "latency" else "no gain") in avoided
    assert [stage.numerics_name for stage in found.stages] == [GGML, GGML]


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_numerics_exclude_nobody(objective: str) -> None:
    mixed = (offer(1, 0, 15, GGML, 2_000), offer(2, 15, 30, NUMPY, 500))
    found = chain(*mixed, offer(3, 15, 30, GGML, 9_000), objective=objective)
    assert names(found) == ["peer1", "peer2"]
    [said] = [said for said in found.reasons if said.startswith("computes in 2 ways")]
    assert f"peer1 as {GGML}; peer2 as {NUMPY}" in said
    silent = chain(offer(1, 0, 15, GGML), offer(2, 15, 30), objective=objective)
    assert any("peer2 without saying how" in said for said in silent.reasons)


def test_those_that_say_nothing_are_one_kind() -> None:
    found = chain(offer(1, 0, 15, "", 500), offer(2, 15, 30, GGML, 500), offer(3, 15, 30, "", 510))
    assert names(found) == ["peer1", "peer3"]
    assert not any("all compute" in said for said in found.reasons)


def test_what_a_person_asks_for_outweighs_numerics() -> None:
    offers = (offer(1, 0, 15, GGML), offer(2, 15, 30, NUMPY), offer(3, 15, 30, GGML))
    assert names(chain(*offers)) == ["peer1", "peer3"]
    assert names(chain(*offers, avoid=frozenset({peer_id(3)}))) == ["peer1", "peer2"]


def test_a_successor_computes_as_the_lost_did() -> None:
    fast, same = offer(1, 10, 20, NUMPY, 500), offer(2, 10, 20, GGML, 700)
    assert repaired(fast, same) == ["peer2"]
    assert repaired(fast, same, like=NUMPY) == ["peer1"]
    assert repaired(fast, same, like="") == ["peer1"]
    assert repaired(fast, same, like="jax") == ["peer1"]
    assert repaired(fast, offer(2, 10, 20, GGML, 5_000)) == ["peer1"]  # not at any price
    assert repaired(fast, same, avoid=frozenset({peer_id(2)})) == ["peer1"]
    halves = (offer(3, 10, 15, GGML), offer(4, 15, 20, GGML))
    assert repaired(offer(1, 10, 20, NUMPY), *halves) == ["peer3", "peer4"]


def test_whoever_claims_an_arithmetic_is_as_dear_as_it_was_before() -> None:
    liar = offer(1, 10, 20, GGML, 500)
    honest = offer(2, 10, 20, NUMPY, 500)
    assert repaired(liar, honest) == ["peer1"]
    failed_us = Standing(factors={peer_id(1): 8.0})
    assert repaired(liar, honest, standing=failed_us) == ["peer2"]
    assert repaired(liar, honest, standing=Standing(excluded={peer_id(1): "lied"})) == ["peer2"]


spans = st.tuples(st.integers(0, 29), st.integers(1, 30)).filter(lambda span: span[0] < span[1])
swarms = st.lists(
    st.tuples(spans, st.sampled_from(("", GGML, NUMPY)), st.integers(100, 900)),
    min_size=1,
    max_size=9,
)


@settings(deadline=None, max_examples=60)
@given(swarms)
def test_a_chain_of_one_numerics_is_found_if_it_is_cheap_enough(
    swarm: list[tuple[tuple[int, int], str, int]],
) -> None:
    offers = [offer(1, 0, 30, "jax", 900)]
    offers += [offer(n, *span, name, us) for n, (span, name, us) in enumerate(swarm, 2)]

    def cheapest(*some: Offer) -> float:
        costs = CostConfig(one_numerics=1.0)  # which chooses the cheapest of all
        prices = {each.peer for each in some}
        barred = {each.peer: "barred" for each in offers if each.peer not in prices}
        found = a_view(*offers, costs=costs, standing=Standing(barred)).chain()
        return found.expected_us_per_token if isinstance(found, ChainPlan) else float("inf")

    kinds = {each.ad.numerics for each in offers}
    least = cheapest(*offers)
    alike = min(cheapest(*(o for o in offers if o.ad.numerics == kind)) for kind in kinds)
    found = chain(*offers)
    assert found.expected_us_per_token <= 1.25 * least + 1
    if alike < 1.25 * least - 1:
        assert len({stage.numerics for stage in found.stages}) == 1
        assert found.expected_us_per_token <= alike + 1


def test_a_factor_below_1_is_refused() -> None:
    with pytest.raises(ConfigError):
        CostConfig(one_numerics=0.9)


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a function that compiled code calls")
def test_a_thousand_numerics_take_two_searches(monkeypatch: pytest.MonkeyPatch) -> None:

    searches = 0
    cheapest = search.cheapest

    def counted(terrain: Any) -> Any:
        nonlocal searches
        searches += 1
        return cheapest(terrain)

    monkeypatch.setattr(route, "cheapest", counted)
    chain(*(offer(n, n % 3 * 10, n % 3 * 10 + 10, f"numerics {n}") for n in range(1, 100)))
    assert searches == 2
