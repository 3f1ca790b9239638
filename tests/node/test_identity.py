"""The state directory: private, whole or untouched, and for one node at a time."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.node.identity import (
    StateDirectory,
    _epoch_of,
    _peers_of,
    _secret_of,
)
from p2pnode.node.remembered import MAX_PEERS, RememberedPeer
from p2pnode.sansio import NodeId


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "home" / "state")


def test_an_identity_is_drawn_once_and_kept(state: StateDirectory) -> None:
    seed = state.identity_seed()
    assert len(seed) == 32
    assert StateDirectory(state.path).identity_seed() == seed
    assert StateDirectory(state.path.parent / "other").identity_seed() != seed


def test_everything_is_private(state: StateDirectory) -> None:
    state.identity_seed()
    state.set_swarm_secret(bytes(32))
    state.remember_peers([])
    state.next_boot_epoch(0)
    with state.lock():
        assert state.path.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in state.path.iterdir()} == {0o600}
        assert len(list(state.path.iterdir())) == 5  # and no temporary file left


def test_the_swarm_secret_is_kept(state: StateDirectory) -> None:
    assert state.swarm_secret() is None
    state.set_swarm_secret(bytes(range(32)))
    assert state.swarm_secret() == bytes(range(32))
    with pytest.raises(UserError):
        state.set_swarm_secret(b"short")
    assert state.swarm_secret() == bytes(range(32))


def test_peers_are_kept_and_bounded(state: StateDirectory) -> None:
    assert state.remembered_peers() == ()
    peers = [
        RememberedPeer(NodeId(bytes([number % 256]) * 32), (("10.0.0.1", 1), ("fd00::1", 2)), 9, 4)
        for number in range(MAX_PEERS + 5)
    ]
    state.remember_peers(peers)
    assert state.remembered_peers() == tuple(peers[:MAX_PEERS])


def test_boot_epochs_only_grow(state: StateDirectory) -> None:
    assert state.next_boot_epoch(1000.7) == 1000
    assert state.next_boot_epoch(1000.7) == 1001
    assert state.next_boot_epoch(5.0) == 1002  # the clock was set back
    assert state.next_boot_epoch(2000.0) == 2000


def test_two_nodes_on_one_directory_are_refused(state: StateDirectory) -> None:
    with state.lock():
        message = f"process {os.getpid()}"
        with pytest.raises(UserError, match=message), StateDirectory(state.path).lock():
            pass
    with state.lock():
        pass


def test_a_killed_node_leaves_no_lock(state: StateDirectory) -> None:
    hold = (
        "import os, pathlib, sys\n"
        "from p2pnode.node.identity import StateDirectory\n"
        "with StateDirectory(pathlib.Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(state.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {other.pid}"), state.lock():
            pass
        other.kill()
        other.wait()
        with state.lock():
            pass


READERS: dict[str, Callable[[StateDirectory], object]] = {
    "identity.key": StateDirectory.identity_seed,
    "swarm.secret": StateDirectory.swarm_secret,
    "peers.json": StateDirectory.remembered_peers,
}
SPARED: dict[str, tuple[Callable[[StateDirectory], object], object]] = {
    "peers.json": (StateDirectory.recall_peers, ()),
    "boot-epoch": (lambda state: state.next_boot_epoch(1000.0), 1000),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"zz", b"{}", b"9" * 200, b"x" * 2_000_000])
def test_a_broken_file_is_named_and_left_alone(
    state: StateDirectory, name: str, content: bytes
) -> None:
    path = state.path / name
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match=name) as caught:
        READERS[name](state)
    assert caught.value.hint
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", SPARED)
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"zz", b"{}", b"9" * 200, b"x" * 2_000_000])
def test_what_a_node_can_do_without_is_set_aside(
    state: StateDirectory, name: str, content: bytes
) -> None:
    path = state.path / name
    path.write_bytes(content)
    read, instead = SPARED[name]
    assert read(state) == instead
    assert (state.path / f"{name}.broken").read_bytes() == content
    [trouble] = state.troubles
    assert name in trouble
    assert f"{name}.broken" in trouble
    assert read(state) in ((), 1001)  # and the next start finds nothing wrong
    assert len(state.troubles) == 1


@pytest.mark.parametrize("wall", [3e14, -5.0, float("inf"), float("nan"), 2.0**40])
def test_a_clock_that_cannot_be_right_does_not_stop_a_start(
    state: StateDirectory, wall: float
) -> None:
    assert state.next_boot_epoch(2e9) == 2_000_000_000
    assert state.next_boot_epoch(wall) == 2_000_000_001
    assert "clock" in state.troubles[0]
    assert state.next_boot_epoch(2e9 + 5) == 2_000_000_005


def test_a_full_disk_does_not_stop_a_start(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert state.next_boot_epoch(1000.0) == 1000
    assert f"no space left in {state.path}: needs 4.1 KB" in state.troubles[0]
    with pytest.raises(UserError, match="no space left"):
        state.remember_peers([])
    assert not [path for path in state.path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_does_not_stop_whoever_locks(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with (
        state.lock(),
        pytest.raises(UserError, match="another node"),
        StateDirectory(state.path).lock(),
    ):
        pass


def test_peers_of_an_older_file_are_read(state: StateDirectory) -> None:
    body = [{"node_id": "ab" * 32, "addresses": [["10.0.0.1", 4747]]}]
    (state.path / "peers.json").write_text(json.dumps(body))
    assert state.recall_peers() == (
        RememberedPeer(NodeId(bytes.fromhex("ab" * 32)), (("10.0.0.1", 4747),)),
    )


@pytest.mark.parametrize("name", ["identity.key", "swarm.secret"])
def test_a_secret_that_others_can_read_is_refused(state: StateDirectory, name: str) -> None:
    path = state.path / name
    path.write_text(bytes(32).hex())
    path.chmod(0o644)
    with pytest.raises(UserError, match="must stay secret") as caught:
        READERS[name](state)
    path.chmod(0o600)
    assert "chmod 600" in caught.value.hint
    assert READERS[name](state) == bytes(32)


def test_a_directory_that_cannot_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(UserError, match="file"):
            StateDirectory(path)


@given(st.text())
def test_any_content_parses_or_is_refused(text: str) -> None:
    for parse in (_secret_of, _epoch_of, _peers_of):
        try:
            parse(text)
        except (ValueError, TypeError, KeyError):
            continue


def test_a_pipe_in_a_files_place_is_named_and_not_waited_for(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    os.mkfifo(tmp_path / "state" / "peers.json", 0o600)
    with pytest.raises(UserError, match="no ordinary file"):
        state.remembered_peers()
    assert state.recall_peers() == ()
    assert "no ordinary file" in state.troubles[0]


def test_a_write_left_behind_replaces_nothing_once_the_lock_is_gone(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was held up by the disk until another node had the directory."""
    old, new = (RememberedPeer(NodeId(bytes([n]) * 32), (("10.0.0.9", n),)) for n in (1, 2))

    def hang(descriptor: int) -> None:
        monkeypatch.undo()
        held.__exit__(None, None, None)
        other = StateDirectory(state.path)
        with other.lock():
            other.remember_peers([new])

    held = state.lock()
    held.__enter__()
    monkeypatch.setattr(os, "fsync", hang)
    with pytest.raises(UserError, match="no longer ours"):
        state.remember_peers([old])
    assert state.remembered_peers() == (new,)
    assert not list(state.path.glob(".peers*"))
