"""The nodes that run on this machine are found; what is stale or foreign is not believed."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.errors import UserError
from p2pnode.net import control_client, local_nodes as room
from p2pnode.net.control_client import ControlClient
from p2pnode.net.local_nodes import LocalNode, local_nodes, node_behind, registered

ATTIC = LocalNode(Path("/srv/attic"), Path("/srv/attic/log"), "attic", "ab" * 32, 4711)


@pytest.fixture(name="runtime", autouse=True)
def _runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # short, and private
        monkeypatch.setattr(room, "runtime_directories", lambda: [Path(name), Path(name, "none")])
        yield Path(name)


@contextmanager
def listening(control: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(control))
        server.listen(1)
        yield
    control.unlink()


def test_a_node_is_found_while_it_runs_and_its_file_is_private(runtime: Path) -> None:
    control = runtime / "a.sock"
    with listening(control), registered(control, ATTIC):
        assert local_nodes() == [ATTIC]
        assert (runtime / "a.json").stat().st_mode & 0o777 == 0o600
        assert node_behind(control) == ATTIC
    assert local_nodes() == []
    assert list(runtime.iterdir()) == []


def test_what_a_killed_node_left_is_removed(runtime: Path) -> None:
    (runtime / "a.json").write_text(json.dumps({**_body(), "pid": os.getpid()}))
    assert node_behind(runtime / "a.sock") is not None  # its log may say why it died
    assert local_nodes() == []
    assert list(runtime.iterdir()) == []


def test_a_killed_nodes_last_socket_may_close_a_moment_later(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True, True, False])
    monkeypatch.setattr(control_client, "answers", lambda _: next(looks))
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert control_client._is_dead(runtime / "a.sock")
    monkeypatch.setattr(control_client, "answers", lambda _: True)
    assert not control_client._is_dead(runtime / "a.sock")  # it hung up, and lives


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_how_a_node_ended_is_told_to_who_was_asking(
    runtime: Path, killed: bool, begun: bool
) -> None:
    control = runtime / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(control))
        server.listen(1)
        (runtime / "a.json").write_text(json.dumps(_body()))
        client = ControlClient(control)
        answering, _ = server.accept()
    with client, answering:
        if begun:
            answering.sendall(json.dumps({"id": 1, "event": {"event": "token"}}).encode() + b"\n")
        if not killed:
            (runtime / "a.json").unlink()
        answering.shutdown(socket.SHUT_WR)
        with pytest.raises(UserError) as caught:
            client.call("generate")
    how = "was killed" if killed else "stopped"
    when = "in the middle of its answer" if begun else "before it answered"
    assert str(caught.value).startswith(f"the node {how} {when}")
    assert "p2pnode up" in caught.value.hint
    assert (str(ATTIC.log) in caught.value.hint) == (not killed)


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o710])
def test_a_directory_that_lets_others_in_is_not_believed(runtime: Path, mode: int) -> None:
    control = runtime / "a.sock"
    with listening(control), registered(control, ATTIC):
        runtime.chmod(mode)
        assert local_nodes() == []
        assert node_behind(control) is None
        runtime.chmod(0o700)
        assert local_nodes() == [ATTIC]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_what_is_no_small_file_is_not_read(runtime: Path, kind: str, tmp_path: Path) -> None:
    control, path = runtime / "a.sock", runtime / "a.json"
    if kind == "link":
        (tmp_path / "elsewhere").write_text(json.dumps(_body()))
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(json.dumps(_body()) + " " * room.MOST_BYTES)
    with listening(control):
        assert local_nodes() == []


@given(
    st.dictionaries(st.sampled_from(["state", "log", "name", "node_id", "pid"]), st.integers())
    | st.lists(st.integers())
    | st.text()
    | st.just({"pid": True})
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_in_a_file_can_break_a_command(runtime: Path, odd: object) -> None:
    body = {**_body(), **odd} if isinstance(odd, dict) and odd else odd
    (runtime / "a.json").write_text(json.dumps(body))
    control = runtime / "a.sock"
    with listening(control):
        assert all(isinstance(node, LocalNode) for node in local_nodes())


def test_a_full_disk_does_not_keep_a_node_from_running(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with registered(runtime / "a.sock", replace(ATTIC, name="b")):
        assert list(runtime.iterdir()) == []


def _body() -> dict[str, object]:
    return {
        "state": "/srv/attic",
        "log": "/srv/attic/log",
        "name": "attic",
        "node_id": "ab" * 32,
        "pid": 4711,
    }
