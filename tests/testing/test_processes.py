"""A swarm of processes that is cut short: everybody is told to leave before anybody is awaited."""

import signal

import pytest

from p2pnode.testing.processes import local_swarm, terminable


class Node:
    def __init__(self, name: str, done: list[str]) -> None:
        self._name, self._done = name, done

    def leave(self) -> None:
        self._done.append(f"{self._name} leaves")

    def stop(self) -> None:
        self._done.append(f"{self._name} has stopped")


def test_an_interrupted_swarm_says_so_and_all_leave_at_once() -> None:
    done: list[str] = []

    def cut_short() -> None:
        with local_swarm(done.append) as swarm:
            swarm.nodes += [Node("attic", done), Node("study", done)]  # type: ignore[list-item]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert done == [
        "\nstopping 2 nodes ...",
        "attic leaves",
        "study leaves",
        "attic has stopped",
        "study has stopped",
    ]


def test_a_swarm_that_is_done_says_nothing() -> None:
    done: list[str] = []
    with local_swarm(done.append) as swarm:
        swarm.nodes.append(Node("attic", done))  # type: ignore[arg-type]
    assert done == ["attic leaves", "attic has stopped"]


def test_sigterm_interrupts_once_and_then_no_more() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # while what was started is stopped
    assert signal.getsignal(signal.SIGTERM) == before
