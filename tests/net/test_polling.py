"""Two ways to ask what can be read say the same."""

import socket
from collections.abc import Callable

import pytest

from p2pnode.net.polling import READABLE, Poller, SelectPoller, poller


@pytest.mark.parametrize("make", [poller, SelectPoller])
def test_what_can_be_read_is_found(make: Callable[[], Poller]) -> None:
    near, far = socket.socketpair()
    with near, far:
        asking = make()
        asking.register(near.fileno(), READABLE)
        asking.register(far.fileno(), READABLE)
        assert asking.poll(0) == []
        assert asking.poll(1) == []
        far.send(b"x")
        assert asking.poll(None) == [(near.fileno(), READABLE)]
        near.send(b"x")
        assert sorted(asking.poll(0)) == sorted(
            [(near.fileno(), READABLE), (far.fileno(), READABLE)]
        )
