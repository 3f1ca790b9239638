"""Control sockets where there are no Unix ones: a loopback port, and a token that one must know."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.net import control_door
from p2pnode.net.control import ControlClient, Emit, serve_control
from p2pnode.net.control_door import TOKEN_LINE, answers, connect, is_ours, listen, read_port

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_door, "has_unix_sockets", lambda: False)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "node.sock"


async def _double(params: dict[str, Any], emit: Emit) -> object:
    await emit({"half": params["n"]})
    return 2 * params["n"]


async def serving(path: Path, ask: Callable[[], T]) -> T:
    """Serve, and put a question from a thread."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, {"double": _double})
        said = await trio.to_thread.run_sync(ask)
        nursery.cancel_scope.cancel()
    return said


async def test_a_client_asks_through_the_port(path: Path) -> None:
    def ask() -> tuple[object, list[object], bool, int]:
        events: list[object] = []
        with ControlClient(path, timeout=5) as client:
            said = client.call("double", {"n": 4}, events.append)
        return said, events, is_ours(path), path.stat().st_mode & 0o777

    assert await serving(path, ask) == (8, [{"half": 4}], True, 0o600)
    assert not is_ours(path)
    assert not answers(path)
    with pytest.raises(UserError, match="no node is running here"):
        ControlClient(path)


@pytest.mark.parametrize(
    "first",
    [b"", b"0" * 64 + b"\n", b"\n", b'{"id": 1, "method": "double", "params": {"n": 4}}\n' * 4],
)
async def test_whoever_does_not_know_the_token_is_hung_up_on(path: Path, first: bytes) -> None:
    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", read_port(path).port), timeout=20) as raw:
            raw.sendall(first)
            if len(first) < TOKEN_LINE:
                raw.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                return raw.recv(100)
        return b""

    assert await serving(path, ask) == b""


async def test_one_who_never_says_it_holds_up_nobody(path: Path) -> None:
    def ask() -> object:
        with (
            socket.create_connection(("127.0.0.1", read_port(path).port), timeout=20),
            ControlClient(path, timeout=5) as client,
        ):
            return client.call("double", {"n": 1})

    assert await serving(path, ask) == 2


async def test_a_port_that_answers_is_taken(path: Path) -> None:
    def ask() -> None:
        with pytest.raises(UserError, match="already listens"):
            listen(path)

    await serving(path, ask)


def test_what_a_dead_node_left_is_replaced(path: Path) -> None:
    first = listen(path)
    first.socket.close()
    second = listen(path)
    try:
        assert second.token != first.token
        assert read_port(path).token == second.token
    finally:
        second.socket.close()


def test_a_token_is_unlike_any_other(path: Path) -> None:
    door = listen(path)
    door.socket.close()
    assert len(door.token) == TOKEN_LINE
    assert door.admits(door.token)
    assert not door.admits(b"")
    assert not door.admits(door.token[:-2] + b"x\n")
    assert door.token.hex() not in repr(door)


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o604])
def test_a_file_that_others_may_read_is_not_believed(path: Path, mode: int) -> None:
    door = listen(path)
    try:
        path.chmod(mode)
        with pytest.raises(OSError, match="not ours alone"):
            connect(path, 1)
    finally:
        door.socket.close()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    door = listen(tmp_path / "other.sock")
    door.socket.close()
    path.symlink_to(tmp_path / "other.sock")
    with pytest.raises(OSError, match=r"symbolic|links|Too many"):
        read_port(path)
    assert not is_ours(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
odd = st.dictionaries(st.sampled_from(["port", "token"]), json_values).map(
    lambda body: json.dumps(body).encode()
)


@given(content=st.binary(max_size=300) | odd)
def test_whatever_lies_there_it_is_read_or_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"odd-{threading.get_ident()}"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with suppress(OSError):
        found = read_port(path)
        assert 0 < found.port < 65536
        assert len(found.token) == TOKEN_LINE
