"""Waking a thread that waits on descriptors, with an eventfd and without."""

import os
import select
from collections.abc import Iterator

import pytest

from p2pnode.net.wakeup import Wakeup


@pytest.fixture(name="wakeup", params=["eventfd", "sockets"])
def _wakeup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wakeup]:
    if request.param == "sockets":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("no eventfd on this system")
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def is_awake(wakeup: Wakeup) -> bool:
    poll = select.poll()
    poll.register(wakeup.fileno, select.POLLIN)
    return bool(poll.poll(0))


def test_it_sleeps_until_woken_and_again_once_cleared(wakeup: Wakeup) -> None:
    assert not is_awake(wakeup)
    wakeup.wake()
    wakeup.wake()
    assert is_awake(wakeup)
    wakeup.clear()
    assert not is_awake(wakeup)


def test_waking_and_clearing_never_block(wakeup: Wakeup) -> None:
    wakeup.clear()
    for _ in range(100_000):  # more than a socket's buffer holds
        wakeup.wake()
    assert is_awake(wakeup)
