"""A property list that launchd takes: read back by plistlib, since no launchd is here."""

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.service.launchd import Launchd
from p2pnode.interfaces.service.service import Service

PRINTED = """gui/501/org.p2pnode.p2pnode = {
	active count = 1
	state = running
	pid = 4711
}
"""


class Machine:
    def __init__(self, status: int = 0, said: str = "") -> None:
        self.answer = status, said
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str], timeout: float = 20.0) -> tuple[int, str]:
        self.asked.append(list(command))
        return self.answer


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def service(*options: str) -> Service:
    command = ("/opt/a b/python", "-m", "p2pnode", "up", *options)
    return Service("p2pnode-b", command, {"P2PNODE_HOME": "/a <b>"}, Path("/state"), Path("/cache"))


def test_it_holds_the_command_word_by_word_and_no_secret_ends_in_a_core() -> None:
    body = plistlib.loads(Launchd(Machine()).text(service("--name=<&> %s $x")).encode())
    assert body["ProgramArguments"] == [*service("--name=<&> %s $x").command, "--json"]
    assert body["EnvironmentVariables"] == {"P2PNODE_HOME": "/a <b>"}
    assert body["Label"] == "org.p2pnode.p2pnode-b"
    assert (body["RunAtLoad"], body["KeepAlive"]) == (True, {"SuccessfulExit": False})
    assert body["HardResourceLimits"] == {"Core": 0}


def test_what_it_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match="cannot hold"):
        Launchd(Machine()).text(service("--name=\x00"))


def test_an_older_one_is_ended_before_it_begins(tmp_path: Path) -> None:
    machine = Machine()
    assert list(Launchd(machine).begin("p2pnode"))
    assert [words[1] for words in machine.asked] == ["bootout", "bootstrap"]
    assert machine.asked[1][3] == str(tmp_path / "Library/LaunchAgents/org.p2pnode.p2pnode.plist")
    with pytest.raises(UserError, match="launchd refused: Bootstrap failed"):
        list(Launchd(Machine(5, "Bootstrap failed: 5\n")).begin("p2pnode"))


def test_how_it_stands_is_what_launchd_prints() -> None:
    manager = Launchd(Machine(0, PRINTED))
    path = manager.path("p2pnode-b")
    path.parent.mkdir(parents=True)
    path.write_text(manager.text(service()))
    assert manager.installed() == [path]
    found = manager.standing(path)
    assert (found.title, found.running, found.pid, found.said) == (
        "p2pnode-b",
        True,
        4711,
        "running",
    )
    assert found.command == (*service().command, "--json")

    path.write_bytes(b"<?xml broken")
    found = Launchd(Machine(113, "Could not find service")).standing(path)
    assert (found.running, found.command) == (False, ())
