"""``join`` that is refused changes nothing: the node still belongs to the swarm it was in."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import node_commands
from p2pnode.interfaces.cli.node_commands import join
from p2pnode.node.identity import StateDirectory
from p2pnode.node.invite import Invite, encode_invite
from p2pnode.testing.tiny_gguf import write_tiny_gguf

OLD, NEW = bytes(32), bytes(range(32))
CODE = encode_invite(Invite(NEW, (("192.168.1.20", 4747), ("fd00::7", 4747))))
REFUSED = [
    ("--name", "x" * 300),
    ("--name", " "),
    ("--layers", "junk"),
    ("--layers", "0:2", "--max-layers", "3"),
    ("--layers", "2:99", "--model", "FOLDER/tiny.gguf"),
    ("--layers", "0:2", "--model", "none"),
    ("--max-layers", "0"),
    ("--model", ""),
    ("--model", "FOLDER/absent.gguf"),
    ("--model", "FOLDER/broken.gguf"),
    ("--listen", "no such host"),
    ("--listen", "192.0.2.1"),
    ("--port", "x"),
    ("--port", "65536"),
    ("--port", "TAKEN", "--listen", "127.0.0.1"),
    ("--peer", "a b"),
    ("--peer", "host:99999"),
    ("--kv-memory", "9" * 12),
    ("--activations", "f99"),
    ("--no-such-option",),
]


@pytest.fixture(name="state")
def _state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "state")
    state.identity_seed()
    state.set_swarm_secret(OLD)
    (state.path / "peers.json").write_text('{"kept": "as it is"}')
    return state


@pytest.fixture(name="taken")
def _taken() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        yield str(one.getsockname()[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_a_refused_option_leaves_the_state_as_it_was(
    options: tuple[str, ...],
    state: StateDirectory,
    taken: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node_commands, "_run", forbidden)
    write_tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "broken.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:5000])
    words = [word.replace("FOLDER", str(tmp_path)).replace("TAKEN", taken) for word in options]
    usual = [] if "--model" in words else ["--model", "none"]
    before = contents(state.path)
    done = CliRunner().invoke(join, [CODE, "--state", str(state.path), *usual, *words])
    assert isinstance(done.exception, UserError | SystemExit)
    assert done.exit_code
    assert contents(state.path) == before


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("no node may start")


def test_a_node_that_runs_there_keeps_its_swarm(
    state: StateDirectory, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_commands, "_run", forbidden)
    before = contents(state.path)
    own = ["--port", taken, "--listen", "127.0.0.1"]
    with state.lock():
        words = [CODE, "--state", str(state.path), "--model", "none", *own]
        done = CliRunner().invoke(join, words)
    assert "already runs on" in str(done.exception)
    assert contents(state.path) == before


def test_one_that_is_taken_changes_the_swarm_and_forgets_the_peers_of_the_other(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(node_commands, "_run", lambda settings, *_: started.append(settings.peers))
    words = [CODE, "--state", str(state.path), "--model", "none", "--port", "0"]
    done = CliRunner().invoke(join, words)
    assert done.exception is None, done.exception
    assert started == [(("192.168.1.20", 4747), ("fd00::7", 4747))]
    assert state.swarm_secret() == NEW
    assert state.remembered_peers() == ()
