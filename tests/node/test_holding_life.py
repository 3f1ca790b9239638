import pytest

from p2pnode.errors import LocalProtocolError
from p2pnode.node.holding_life import (
    HOLDING_TRANSITIONS,
    HoldingEvidence,
    HoldingLife,
    HoldingPhase,
)


def test_every_phase_leads_to_serving() -> None:
    for phase in HoldingPhase:
        reached, frontier = {phase}, [phase]
        while frontier:
            leads = {to for (of, _), to in HOLDING_TRANSITIONS.items() if of in frontier}
            frontier = [to for to in leads if to not in reached]
            reached.update(frontier)
        assert HoldingPhase.SERVING in reached


def test_whatever_is_lost_leaves_nothing_held() -> None:
    lost = {HoldingEvidence.MODEL_LOST, HoldingEvidence.ENGINE_LOST, HoldingEvidence.FAILED}
    assert {to for (_, why), to in HOLDING_TRANSITIONS.items() if why in lost} == {
        HoldingPhase.IDLE
    }


def test_an_illegal_move_is_refused_loudly_and_changes_nothing() -> None:
    for phase in HoldingPhase:
        for evidence in HoldingEvidence:
            life = HoldingLife()
            life.phase = phase
            if (phase, evidence) in HOLDING_TRANSITIONS:
                life.move(evidence)
                assert life.phase is HOLDING_TRANSITIONS[phase, evidence]
                continue
            with pytest.raises(LocalProtocolError, match=phase.name):
                life.move(evidence)
            assert life.phase is phase
