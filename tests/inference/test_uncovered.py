"""What an asker reads where no chain exists."""

from p2pnode.inference.uncovered import uncovered
from p2pnode.scheduler.chain import NoCover

RUNS = (range(3, 5), range(8, 9))
SERVE = "p2pnode doctor, or p2pnode up --layers 3:5 --state DIR --port 0"


def test_the_layers_are_named_with_the_reasons_and_the_first_run_is_what_to_serve() -> None:
    why, hint = uncovered(NoCover(RUNS, ("b drains", "c is silent"), ()))

    assert why == "no peer serves layers [3, 5), [8, 9): b drains; c is silent"
    assert hint == SERVE


def test_where_somebody_rests_waiting_comes_first() -> None:
    why, hint = uncovered(NoCover(RUNS, (), (), resting="b until 18:00"))

    assert why == "no peer serves layers [3, 5), [8, 9)"
    assert hint == f"wait for who holds them and rests (b until 18:00): --wait SECONDS; or {SERVE}"


def test_who_cannot_draw_is_no_want_of_layers() -> None:
    why, hint = uncovered(NoCover((range(8, 9),), (), (), "d cannot draw: its version is older"))

    assert why == "d cannot draw: its version is older"
    assert hint == "ask with fewer options, or update their nodes"
