"""The word to a service manager: said where one listens, and never in the way."""

import os
import socket
from pathlib import Path

import pytest

from p2pnode.net.service_manager import READY, ServiceManager, service_manager


def test_it_is_one_datagram_and_no_child_speaks_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        service_manager().tell(READY, "STATUS=kitchen is up")
        assert listener.recv(1000) == b"READY=1\nSTATUS=kitchen is up"
    assert "NOTIFY_SOCKET" not in os.environ


@pytest.mark.skipif(not Path("/proc").exists(), reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_named_with_an_at() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0p2pnode-{os.getpid()}")
        listener.settimeout(5)
        ServiceManager(f"@p2pnode-{os.getpid()}").tell(READY)
        assert listener.recv(1000) == b"READY=1"


@pytest.mark.parametrize("path", ["", "vsock:2:1", "/nobody/listens/here", "/" + "x" * 500])
def test_where_nobody_listens_nothing_happens(path: str) -> None:
    ServiceManager(path).tell(READY)
