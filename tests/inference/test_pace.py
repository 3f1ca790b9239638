"""A token is slow by what was promised, and by how many of our own answers share the engines."""

import pytest

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Leg
from p2pnode.inference.faults import Faults
from p2pnode.inference.pace import Pace
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.scheduler.trust import Ledger, TrustConfig
from p2pnode.wire.states import Rung

PROMISED = 0.2  # seconds a token
PEER, US = NodeId(bytes(32)), NodeId(bytes([1]) * 32)
RUN = StageRun(PEER, "b", range(10), PROMISED * 1e6, "")
LEG = Leg(1, RUN, "f32", frozenset({Rung.F16}))
CONFIG = InferenceConfig()


def pace_of(answers: int, trip: float, tokens: int = 8) -> Pace:
    pace = Pace(CONFIG)
    pace.of_chain((LEG,))
    for _ in range(tokens):
        pace.token(trip, answers)
    return pace


@pytest.mark.parametrize("answers", [1, 2, 16])
def test_answers_of_ours_may_take_turns_with_a_stage(answers: int) -> None:
    in_turns = CONFIG.slow_factor * PROMISED * answers
    assert not pace_of(answers, 0.99 * in_turns).is_slow
    assert pace_of(answers, 1.5 * in_turns, tokens=32).is_slow


def test_what_came_beside_other_answers_is_no_measure_of_a_peer() -> None:
    assert pace_of(2, 1.5, tokens=32).trip is None
    assert pace_of(1, 1.5, tokens=32).trip == pytest.approx(1.5)


def test_a_slow_token_tells_how_long_it_took_whoever_else_was_served() -> None:
    took, seen = pace_of(4, 8.0).blame(LEG)
    assert took == pytest.approx(8.0 - 4 * PROMISED + PROMISED)
    assert seen == "promised 200 ms, took 7.4 s a token"


def test_one_slowness_that_many_answers_notice_is_one_offence() -> None:
    ledger = Ledger()
    for _ in range(16):
        Faults(CONFIG, ledger, US).slow(RUN, "promised 0.2 s, took 9 s", 1e6, 0.0, answers=16)
    [entry] = ledger.entries(0.0)
    assert entry.avoided_for == pytest.approx(TrustConfig().slow.first)
    assert not ledger.standing(1.0).hopeless
