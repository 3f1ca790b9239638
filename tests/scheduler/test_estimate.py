from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.scheduler.chain import ChainPlan
from p2pnode.scheduler.estimate import Estimate, StageLoad, estimate
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import SPACE, an_offer, peer_id

ROWS: dict[str, Any] = {"rows4_layer_us": 1_200, "rows8_layer_us": 1_600}


def stage(*, has_head: bool = False, **costs: int) -> StageLoad:
    """A stage of 600 us a layer, 300 us a visit, 2 ms a head and 80 us a token of a prompt."""
    ad = an_offer(1, 0, 30, **costs).ad
    return StageLoad(ad.first_offer, 10, has_head)


def test_alone_a_token_takes_its_steps_and_its_hops() -> None:
    chain = [stage(), stage(), stage(has_head=True)]
    found = estimate(chain, 3_000.0, prompt=1, chunk=64)
    step = 3 * (300 + 10 * 600) + 2_000 + 3_000
    assert found.tokens_per_s == pytest.approx(1e6 / step)
    assert found.others == 0


def test_rows_in_between_cost_what_lies_in_between() -> None:
    several = stage(**ROWS)
    assert several.step_us(1) == 300 + 10 * 600
    assert several.step_us(4) == 300 + 10 * 1_200
    assert several.step_us(6) == 300 + 10 * 1_400
    assert several.step_us(16) == 300 + 10 * 3_200
    assert several.step_us(0) == 0
    assert stage().step_us(8) == 300 + 8 * 10 * 600  # nobody said that several cost less


def test_others_slow_it_down_by_what_rows_cost_together() -> None:
    busy = [stage(has_head=True, load=7, **ROWS)]
    found = estimate(busy, 0.0, prompt=1, chunk=64)
    assert found.tokens_per_s == pytest.approx(1e6 / (300 + 10 * 1_600 + 8 * 2_000))
    assert found.others == 7


def test_a_long_prompt_goes_through_the_stages_at_once() -> None:
    chain = [stage(), stage(has_head=True)]
    chunk = 64 * 10 * 80  # us
    one = estimate(chain, 0.0, prompt=64, chunk=64).first_token_ms
    four = estimate(chain, 0.0, prompt=256, chunk=64).first_token_ms
    assert one == pytest.approx((2 * chunk + 2_000) / 1e3)
    assert four - one == pytest.approx(3 * chunk / 1e3)


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=5),
    st.integers(1, 2_000),
    st.floats(0, 1e6),
)
def test_more_load_and_longer_prompts_never_promise_more(
    loads: list[int], prompt: int, hops_us: float
) -> None:
    def expected(more: int, prompt: int) -> Estimate:
        chain = [stage(load=min(255, load + more), **ROWS) for load in loads]
        return estimate(chain, hops_us, prompt, 64)

    quiet, busy, longer = expected(0, prompt), expected(8, prompt), expected(0, prompt + 64)
    assert busy.tokens_per_s <= quiet.tokens_per_s * (1 + 1e-9)
    assert quiet.first_token_ms <= busy.first_token_ms * (1 + 1e-9)
    assert quiet.first_token_ms < longer.first_token_ms


def test_a_plan_says_what_to_expect_where_the_prompt_is_known() -> None:
    offers = (an_offer(1, 0, 15, load=3), an_offer(2, 15, 30))

    def planned(prompt: int) -> ChainPlan:
        wanted = Wanted(peer_id(0), SPACE, 30, 576, lambda layers, _: layers * 1024, prompt=prompt)
        found = PlanView(wanted, offers, lambda one, other: 1_000.0).chain()
        assert isinstance(found, ChainPlan)
        return found

    assert planned(0).estimate is None
    found = planned(100).estimate
    assert found is not None
    assert found.others == 3
    assert found.tokens_per_s < 1e6 / planned(100).expected_us_per_token
