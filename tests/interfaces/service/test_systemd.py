"""A unit that systemd finds nothing wrong with, and whose very command runs a node."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.service.service import TIMED_OUT, Service
from p2pnode.interfaces.service.systemd import MARK, STOPPING, Systemd
from p2pnode.interfaces.service.words import exec_words
from p2pnode.node.config import NodeConfig

HERE = "show --property=Version"


class Machine:
    """Answers for systemctl and systemd-run; what nobody foresaw is refused."""

    def __init__(self, **answers: tuple[int, str]) -> None:
        self.answers = {HERE: (0, "Version=252"), **answers}
        self.asked: list[str] = []

    def __call__(self, command: Sequence[str], timeout: float = 20.0) -> tuple[int, str]:
        words = " ".join(word for word in command if word not in {"systemctl", "--user"})
        self.asked.append(words)
        known = [name for name in self.answers if words.startswith(name)]
        return self.answers[known[0]] if known else (1, "unknown")


def service(*options: str, state: Path = Path("/state"), title: str = "p2pnode") -> Service:
    command = (sys.executable, "-P", "-m", "p2pnode", "up", *options)
    return Service(title, command, {"P2PNODE_HOME": "/a b/100%"}, state, Path("/cache"))


def systemd(folder: Path, machine: Machine) -> Systemd:
    return Systemd({"XDG_CONFIG_HOME": str(folder)}, machine)


def lines(manager: Systemd, one: Service | None = None) -> dict[str, str]:
    text = manager.text(one or service())
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("can_protect", [True, False])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, can_protect: bool) -> None:
    run = {"systemd-run": (0, "")} if can_protect else {}
    manager = systemd(tmp_path, Machine(**run))
    one = service('--name=50% $HOME "it\'s" \\ here', "--state=/tmp/a b;c", ";")
    path = tmp_path / "p2pnode.service"
    path.write_text(manager.text(one))
    assert ("ProtectSystem" in path.read_text()) == can_protect
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=no", str(path)],
            env={**os.environ, "XDG_RUNTIME_DIR": runtime, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stop_lasts_longer_than_a_node_that_drains(tmp_path: Path) -> None:
    node = NodeConfig("kitchen")
    assert float(lines(systemd(tmp_path, Machine()))["TimeoutStopSec"]) == STOPPING
    assert node.drain + node.farewell + 5 < STOPPING


def test_what_waits_longer_each_time_needs_a_systemd_that_knows_it(tmp_path: Path) -> None:
    for version, known in (("252 (252.1)", False), ("254.5", True), ("260~rc1", True)):
        machine = Machine(**{"--version": (0, f"systemd {version}\n+PAM\n")})
        found = lines(systemd(tmp_path, machine))
        assert ("RestartSteps" in found) == known
        assert "RestartSec" in found


def test_variables_are_those_of_the_one_who_installed_it(tmp_path: Path) -> None:
    assert lines(systemd(tmp_path, Machine()))["Environment"] == '"P2PNODE_HOME=/a b/100%%"'


def test_it_is_begun_and_what_is_left_to_do_is_said(tmp_path: Path) -> None:
    machine = Machine(**{"daemon-reload": (0, ""), "enable": (0, ""), "restart": (0, "")})
    said = "\n".join(systemd(tmp_path, machine).begin("p2pnode-b"))
    assert machine.asked[1:] == [
        "daemon-reload",
        "enable p2pnode-b.service",
        "restart p2pnode-b.service",
    ]
    assert "loginctl enable-linger" in said

    machine.answers["restart"] = (TIMED_OUT, "")
    assert "p2pnode-b is still starting" in next(systemd(tmp_path, machine).begin("p2pnode-b"))
    machine.answers["restart"] = (1, "\nJob for p2pnode-b.service failed.\nmore\n")
    with pytest.raises(UserError, match=r"refused: Job for p2pnode-b\.service failed\.$"):
        list(systemd(tmp_path, machine).begin("p2pnode-b"))


def test_without_a_manager_the_commands_are_said(tmp_path: Path) -> None:
    machine = Machine(**{HERE: (1, "Failed to connect to bus")})
    said = [line.strip() for line in systemd(tmp_path, machine).begin("p2pnode")]
    assert "systemctl --user daemon-reload" in said
    assert "systemctl --user enable --now p2pnode.service" in said
    assert machine.asked == [HERE]


def test_how_it_stands_is_read_off_systemctl_or_off_its_files(tmp_path: Path) -> None:
    facts = "ActiveState=active\nSubState=running\nMainPID=4711\nUnitFileState=enabled\n"
    machine = Machine(**{"show p2pnode.service": (0, facts)})
    manager = systemd(tmp_path, machine)
    path = manager.path("p2pnode")
    path.parent.mkdir(parents=True)
    path.write_text(manager.text(service("--port=0")))
    (path.parent / "p2pnode-mine.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert manager.installed() == [path]
    found = manager.standing(path)
    assert (found.running, found.enabled, found.pid) == (True, True, 4711)
    assert found.command == service("--port=0").command

    machine.answers["show p2pnode.service"] = (1, "Failed to connect to bus")
    found = manager.standing(path)
    assert (found.running, found.enabled, found.pid) == (None, False, None)
    path.write_text(f'{MARK}\nExecStart=/bin/p "open\n')
    assert manager.standing(path).command == ()


@pytest.fixture(name="listener")
def _listener() -> Iterator[socket.socket]:
    """What a service's word goes to, in a runtime directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="run-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind(str(Path(folder, "notify")))
        listener.settimeout(60)
        yield listener


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_the_very_line_starts_a_node_that_says_when_it_is_up_and_ends_when_told(
    tmp_path: Path, listener: socket.socket
) -> None:
    odd = tmp_path / 'a "b" 100% $HOME'
    options = ("--model=none", "--port=0", "--no-mdns", "--listen=127.0.0.1", f"--state={odd}")
    line = lines(systemd(tmp_path, Machine()), service(*options))["ExecStart"]
    node = subprocess.Popen(
        exec_words(line),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "NOTIFY_SOCKET": listener.getsockname()},
    )
    try:
        assert listener.recv(1000).startswith(b"READY=1\n")
        picture = subprocess.run(
            [sys.executable, "-m", "p2pnode", "peers", "--state", str(odd), "--json"],
            capture_output=True,
            timeout=60,
        )
        assert str(node.pid).encode() in picture.stdout
        node.send_signal(signal.SIGTERM)
        assert listener.recv(1000).startswith(b"STOPPING=1\n")
        _, said = node.communicate(timeout=STOPPING)
        assert node.returncode == 0
        assert b"Traceback" not in said
    finally:
        node.kill()
        node.communicate()
