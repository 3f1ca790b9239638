"""``service``: what cannot run is refused before anything is written."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import service_commands
from p2pnode.interfaces.cli.service_commands import service
from p2pnode.interfaces.service.systemd import Systemd
from p2pnode.interfaces.service.words import exec_words

NODE = ("--model", "none", "--port", "0", "--no-mdns")


def no_manager(command: Sequence[str], timeout: float = 20.0) -> tuple[int, str]:
    return 1, "Failed to connect to bus"


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose systemd cannot be reached, so that files are all that changes."""
    for name in [name for name in os.environ if name.startswith(("P2PNODE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    manager = Systemd({}, no_manager)
    monkeypatch.setattr(service_commands, "manager_here", lambda: manager)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*words: str) -> Result:
    return CliRunner().invoke(service, words)


def units(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob(".config/systemd/user/*"))


def command_in(home: Path, unit: str = "p2pnode.service") -> list[str]:
    text = (home / ".config/systemd/user" / unit).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return exec_words(line.removeprefix("ExecStart="))


def test_it_writes_the_command_and_says_what_is_left_to_do(home: Path) -> None:
    done = called("install", "--", *NODE, "--max-layers", "15")
    assert done.exit_code == 0, done.output
    assert units(home) == ["p2pnode.service"]
    python, *words = command_in(home)
    assert Path(python).is_absolute()
    assert words[-5:] == ["up", "--model=none", "--max-layers=15", "--port=0", "--no-mdns"]
    assert f"wrote {home}/.config/systemd/user/p2pnode.service" in done.output
    assert "systemctl --user enable --now p2pnode.service" in done.output
    assert "loginctl enable-linger" in done.output


def test_paths_are_those_from_where_it_was_installed(home: Path) -> None:
    (home / "here").mkdir()
    done = called("install", "--print", "--", "--state", "here/state", "--model", "./here")
    assert done.exit_code == 0, done.output
    assert f"--model={home}/here" in done.output
    assert f"--state={home}/here/state" in done.output
    assert units(home) == []
    assert not (home / "here" / "state").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--", "--modle", "x"], "No such option '--modle'"),
        (["--", "--port", "x"], "not a valid integer"),
        (["--", *NODE, "--layers", "9:3"], "9:3"),
        (["--", *NODE, "--detach"], "--detach is not for a service"),
        (["--", *NODE, "--with-parent"], "--with-parent is not for a service"),
        (["--", *NODE, "kitchen"], "unexpected extra argument"),
        (["--name", "../x", "--", *NODE], "no service can be called"),
        (["--", *NODE, "--name", "two\nlines"], "printable"),
    ],
)
def test_a_slip_is_refused_before_anything_is_written(
    home: Path, words: list[str], why: str
) -> None:
    done = called("install", *words)
    assert done.exit_code
    assert why in f"{done.output} {done.exception}"
    assert units(home) == []


def test_a_second_service_needs_a_directory_of_its_own(home: Path) -> None:
    assert called("install", "--", *NODE).exit_code == 0
    done = called("install", "--name", "second", "--", *NODE)
    assert "the service p2pnode has the state directory" in str(done.exception)
    assert called("install", "--name", "second", "--", *NODE, "--state", "second").exit_code == 0
    assert units(home) == ["p2pnode-second.service", "p2pnode.service"]
    assert called("install", "--", *NODE, "--max-layers", "3").exit_code == 0  # the first, anew
    assert "--max-layers=3" in command_in(home)


def test_a_node_that_runs_there_keeps_its_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.node.identity.lock_holder", lambda _: 4711)
    said = str(called("install", "--", *NODE).exception)
    assert said == f"a node runs on {home}/.local/state/p2pnode already (process 4711)"
    assert units(home) == []


def test_a_unit_of_somebody_else_is_left_alone(home: Path) -> None:
    unit = home / ".config/systemd/user/p2pnode.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/mine\n")
    assert "was not written by p2pnode" in str(called("install", "--", *NODE).exception)
    assert "no service p2pnode is installed" in str(called("remove").exception)
    assert unit.read_text() == "[Service]\nExecStart=/bin/mine\n"


def test_variables_come_along_but_for_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_HOME", "~/own")
    monkeypatch.setenv("P2PNODE_HTTP_KEY", "hush")
    done = called("install", "--", *NODE)
    text = (home / ".config/systemd/user/p2pnode.service").read_text()
    assert f"Environment=P2PNODE_HOME={home}/own" in text
    assert "hush" not in text
    assert "P2PNODE_HTTP_KEY is not written there" in done.output
    assert (home / "own").is_dir()


def test_status_tells_what_is_known_and_remove_takes_it_away(home: Path) -> None:
    assert isinstance(called("status").exception, UserError)
    assert json.loads(called("status", "--json").stdout) == {"services": []}
    called("install", "--name", "second", "--", *NODE)
    (one,) = json.loads(called("status", "--json").stdout)["services"]
    assert (one["title"], one["running"], one["enabled"]) == ("p2pnode-second", None, False)
    assert one["command"] == command_in(home, "p2pnode-second.service")
    assert "whether it runs cannot be told" in called("status").output
    assert "there are: p2pnode-second" in str(called("remove").exception)
    assert called("remove", "--name", "second").exit_code == 0
    assert units(home) == []


def test_a_place_that_cannot_be_written_is_said(home: Path) -> None:
    (home / ".config").write_text("a file")
    done = called("install", "--", *NODE)
    assert isinstance(done.exception, UserError)
    assert str(home / ".config") in str(done.exception)
