"""How fuzzing divides its time: on virtual time, with targets that cost what they cost."""

from collections.abc import Callable

import pytest

from tests.fuzz.turns import OVERHEAD, Session, divide, oldest_first, share

MANY = [f"target-{number}" for number in range(35)]


def divided(
    names: list[str], seconds: float, start: Callable[[str], float] = lambda name: 6.0
) -> tuple[Session, float]:
    """Return what became of the time, and how long it all took."""
    now = 100.0

    def fuzz(name: str, given: int, end: float) -> None:
        nonlocal now
        now += start(name) + given

    session = divide(names, seconds, clock=lambda: now, fuzz=fuzz)
    return session, now - 100.0


@pytest.mark.parametrize("seconds", [20, 60, 100, 245, 300, 600, 3600])
@pytest.mark.parametrize("start", [0.5, 3.0, 6.0, 9.0])
def test_it_ends_when_the_time_is_over(seconds: int, start: float) -> None:
    session, took = divided(MANY, seconds, lambda name: start)
    assert took <= seconds + max(0.0, start - OVERHEAD)
    assert took >= seconds - start - OVERHEAD or not session.left_out
    assert [*session.ran, *session.left_out] == MANY


def test_twenty_seconds_reach_some_and_name_the_rest() -> None:
    session, took = divided(MANY, 20)
    assert len(session.ran) >= 2
    assert len(session.ran) + len(session.left_out) == 35
    assert took <= 20


def test_with_time_for_all_each_gets_about_the_same() -> None:
    session, took = divided(MANY, 600)
    assert not session.left_out
    assert max(session.ran.values()) - min(session.ran.values()) <= 2
    assert 560 < took <= 600


def test_slow_starters_do_not_cost_the_end() -> None:
    session, took = divided(MANY, 120, lambda name: 20.0 if name == MANY[1] else 4.0)
    assert took <= 120
    assert session.left_out


def test_the_first_runs_however_short_the_time_is() -> None:
    assert divided(MANY, 1)[0].ran == {MANY[0]: 1}
    assert divided([], 10)[0] == Session()


def test_shares_are_whole_seconds_and_worth_a_start() -> None:
    assert share(20, 35, 6) == 4
    assert share(600, 35, 6) == 11
    assert share(7, 1, 6) == 1
    assert share(6.9, 1, 6) == 0
    assert share(-1, 3, 6) == 0


def test_those_that_waited_longest_come_first() -> None:
    assert oldest_first(["a", "b", "c", "d"], {"a": 3.0, "b": 1.0, "d": 2.0}) == list("cbda")


def test_short_sessions_reach_everyone_in_the_end() -> None:
    last_run: dict[str, float] = {}
    for day in range(1, 40):
        session, _ = divided(oldest_first(MANY, last_run), 20)
        last_run |= dict.fromkeys(session.ran, float(day))
    assert last_run.keys() == set(MANY)
