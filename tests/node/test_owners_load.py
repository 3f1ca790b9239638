"""What of a machine its owner uses: by its clocks, less those of our own processes."""

import subprocess
import sys
import time

import pytest
from hypothesis import given, strategies as st

from p2pnode.node import owners_load
from p2pnode.node.owners_load import Clocks, OwnersLoad, descendants, others_share

BUSY = "import os, sys; print(os.getpid(), flush=True)\nwhile True: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


def clocks(at: float, busy: float, **ours: float) -> Clocks:
    return Clocks(at, busy, {int(pid[1:]): used for pid, used in ours.items()})


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        (clocks(0, 0), clocks(1, 0), 0.0),
        (clocks(0, 50), clocks(1, 51), 0.25),
        (clocks(0, 50), clocks(1, 54), 1.0),
        (clocks(0, 50, p1=7), clocks(1, 53, p1=9), 0.25),
        (clocks(0, 50, p1=7), clocks(1, 52, p1=9), 0.0),
        (clocks(0, 50, p1=7, p2=30), clocks(1, 51, p1=7), 0.25),  # one of ours has ended
        (clocks(0, 50, p1=7), clocks(1, 52, p1=8, p2=40), 0.0),  # and one is found
        (clocks(1, 50), clocks(1, 60), 0.0),  # no time has passed
    ],
)
def test_the_share_that_others_use(before: Clocks, now: Clocks, share: float) -> None:
    assert others_share(before, now, 4) == share


TIMES = st.floats(0, 1e6)


@given(TIMES, TIMES, TIMES, TIMES, TIMES, TIMES, st.integers(1, 512))
def test_whatever_clocks_say_it_is_a_share(
    at: float, busy: float, ours: float, then: float, busy_then: float, ours_then: float, cores: int
) -> None:
    before, now = clocks(at, busy, p1=ours), clocks(then, busy_then, p1=ours_then)
    assert 0.0 <= others_share(before, now, cores) <= 1.0


def test_descendants_are_those_of_the_roots_that_are_there() -> None:
    parents = {1: 0, 2: 1, 3: 2, 4: 1, 5: 4, 6: 6}
    assert descendants({2, 9}, parents) == {2, 3}
    assert descendants({1}, parents) == {1, 2, 3, 4, 5}
    assert descendants({6}, parents) == {6}
    assert descendants(set(), parents) == set()


def test_what_our_processes_start_is_ours_as_long_as_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owners_load, "_LISTED_EVERY", 0.0)
    load = OwnersLoad(0.0, nodes=list)
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            until = time.monotonic() + 20
            while child not in load.ours and time.monotonic() < until:
                load()  # its work looks like the owner's at first, and so it is found
            assert {parent.pid, child} <= load.ours
            counted = load._read().ours
            assert counted[child] > 0
        finally:
            subprocess.run(["kill", "-9", str(child)], check=True)
    load()
    assert parent.pid not in load.ours


def test_another_node_of_this_account_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as node:
        try:
            assert node.stdout is not None
            node.stdout.readline()
            assert OwnersLoad(0.5, nodes=lambda: [node.pid]).ours >= {node.pid}
        finally:
            node.kill()
