import pytest

from p2pnode.errors import LocalProtocolError
from p2pnode.node.life import LEAVING, TRANSITIONS, Evidence, Life, Phase


def test_every_phase_but_the_last_leads_on_to_having_left() -> None:
    following = {
        phase: {to for (of, _), to in TRANSITIONS.items() if of is phase} for phase in Phase
    }
    for phase in Phase:
        reached, frontier = {phase}, [phase]
        while frontier:
            frontier = [to for one in frontier for to in following[one] if to not in reached]
            reached.update(frontier)
        assert Phase.LEFT in reached
    assert not following[Phase.LEFT]


def test_nobody_comes_back_from_leaving() -> None:
    assert {to for (of, _), to in TRANSITIONS.items() if of in LEAVING} <= LEAVING


def test_an_illegal_move_is_refused_loudly_and_changes_nothing() -> None:
    for phase in Phase:
        for evidence in Evidence:
            life = Life()
            life.phase, life.deadline = phase, 7.0
            if (phase, evidence) in TRANSITIONS:
                life.move(evidence, deadline=9.0)
                assert (life.phase, life.deadline) == (TRANSITIONS[phase, evidence], 9.0)
                continue
            with pytest.raises(LocalProtocolError, match=phase.name):
                life.move(evidence)
            assert (life.phase, life.deadline) == (phase, 7.0)
