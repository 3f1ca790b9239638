"""Who waits at the socket, as a table."""

import itertools

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError
from p2pnode.net.waiter import TRANSITIONS, Turn, Waiter, next_waiter

PAIRS = sorted(itertools.product(Waiter, Turn), key=str)


def test_nobody_waits_only_during_a_brief_job_that_the_thread_began_from_its_own_wait() -> None:
    into = {pair for pair, after in TRANSITIONS.items() if after is Waiter.NOBODY}
    assert into == {(Waiter.THREAD, Turn.BRIEF), (Waiter.NOBODY, Turn.BRIEF)}


def test_a_long_job_always_leaves_the_socket_to_the_loop() -> None:
    assert all(next_waiter(waiter, Turn.LONG) is Waiter.LOOP for waiter in Waiter)


def test_an_idle_thread_always_waits_itself() -> None:
    assert next_waiter(Waiter.LOOP, Turn.IDLE) is Waiter.THREAD
    assert next_waiter(Waiter.NOBODY, Turn.IDLE) is Waiter.THREAD


@pytest.mark.parametrize(("waiter", "turn"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_an_illegal_move_is_refused_loudly(waiter: Waiter, turn: Turn) -> None:
    with pytest.raises(LocalProtocolError):
        next_waiter(waiter, turn)


def test_what_cannot_happen_is_what_the_table_leaves_out() -> None:
    left_out = {pair for pair in PAIRS if pair not in TRANSITIONS}
    assert left_out == {
        (Waiter.THREAD, Turn.IDLE),  # it is idle already
        (Waiter.LOOP, Turn.OVERDUE),
        (Waiter.THREAD, Turn.OVERDUE),
    }


@given(st.lists(st.sampled_from(Turn), max_size=30))
def test_from_anywhere_a_long_job_and_an_idle_thread_lead_back(turns: list[Turn]) -> None:
    waiter = Waiter.LOOP
    for turn in turns:
        if (waiter, turn) in TRANSITIONS:
            waiter = next_waiter(waiter, turn)
    waiter = next_waiter(waiter, Turn.LONG)
    assert next_waiter(waiter, Turn.IDLE) is Waiter.THREAD
