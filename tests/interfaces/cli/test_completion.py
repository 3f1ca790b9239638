"""Completion in a real bash, what it costs, and where the scripts go."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner, Result

from p2pnode.interfaces.cli import completions
from p2pnode.interfaces.cli.commands import cli
from p2pnode.interfaces.cli.completion_commands import SHELLS, place_of, script_of
from p2pnode.interfaces.cli.completions import COMPLETING, complete_model, complete_peer

BASH = shutil.which("bash")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    return tmp_path


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, ["completion", *words], prog_name="p2pnode")


def in_bash(typed: str, home: Path) -> list[str]:
    """Return what bash would offer behind what was typed, with the script that is installed."""
    program = home / "bin" / "p2pnode"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m p2pnode "$@"\n')
    program.chmod(0o755)
    script = home / ".local/share/bash-completion/completions/p2pnode"
    asking = (
        f". {script}; complete -p p2pnode >/dev/null || exit 9; COMP_WORDS=({typed}); "
        f"COMP_CWORD=$(( {len(typed.split())} - {int(not typed.endswith(' '))} )); "
        'if [[ ${#COMP_WORDS[@]} -eq $COMP_CWORD ]]; then COMP_WORDS+=(""); fi; '
        'compopt() { echo "compopt $*"; }; _p2pnode_completion p2pnode; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [str(BASH), "--norc", "-c", asking],
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_a_real_bash_completes(home: Path) -> None:
    assert call("install", "bash").exit_code == 0
    assert in_bash("p2pnode mod", home) == ["models"]
    of_models = "calibrate list load pull rm running show unload"
    assert in_bash("p2pnode models ", home) == of_models.split()
    assert in_bash("p2pnode up --kv", home) == ["--kv-memory"]
    assert in_bash("p2pnode up --engine nu", home) == ["numpy"]
    assert in_bash("p2pnode up --model smol", home) == ["smollm2-135m"]
    assert in_bash("p2pnode up --model smollm2-135m --model gemma3-2", home) == ["gemma3-270m"]
    assert in_bash("p2pnode up --model ./", home) == ["compopt -o", "default", ""]
    assert in_bash("p2pnode nosuch -", home) != [""]  # and no error is printed into the line
    broken = home / ".config/p2pnode/config.toml"
    broken.parent.mkdir(parents=True)
    broken.write_text("= broken")
    assert in_bash("p2pnode pe", home) == ["peers"]


def test_a_name_is_completed_without_the_import_of_any_command() -> None:
    asking = (
        "import sys; from p2pnode.interfaces.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "commands = [name for name in sys.modules if name.endswith('_commands')]\n"
        "print(commands, 'numpy' in sys.modules)"
    )
    asked = {"COMP_WORDS": "p2pnode ", "COMP_CWORD": "1", COMPLETING: "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", asking],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=60,
    )
    *offered, imported = done.stdout.splitlines()
    assert "plain,generate" in offered
    assert "plain,config" in offered
    assert imported == "[] False", done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_installed_once_and_removed(shell: str, home: Path) -> None:
    path = place_of(shell, os.environ).path
    assert path.is_relative_to(home)
    first = call("install", shell)
    assert first.stdout == f"wrote {path}\n"
    assert path.read_text() == script_of(shell)
    assert path.stat().st_mode & 0o777 == 0o644
    assert call("show", shell).stdout == script_of(shell)
    assert call("install", shell).stdout == f"{path} is there already\n"
    path.write_text(f"an older one, {COMPLETING}")
    assert call("install", shell).stdout == f"wrote {path}\n"
    assert call("remove").stdout == f"removed {path}\n"
    assert not path.exists()
    assert "nothing was installed" in call("remove", shell).stderr


def test_somebody_elses_file_stays(home: Path) -> None:
    path = place_of("bash", os.environ).path
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for word in ("install", "remove"):
        assert "none of ours" in str(call(word, "bash").exception)
    path.unlink()
    path.mkdir()
    assert "none of ours" in str(call("install", "bash").exception)


def test_zsh_is_told_the_line_that_it_lacks(home: Path) -> None:
    said = call("install", "zsh").stderr
    directory = home / ".local/share/zsh/site-functions"
    line = f"fpath=({directory} $fpath)"
    assert f"add to {home / '.zshrc'}, before the line with compinit:  {line}" in said
    (home / ".zshrc").write_text("fpath=(~/.local/share/zsh/site-functions $fpath)\ncompinit\n")
    assert "fpath" not in call("install", "zsh").stderr


def test_the_shell_is_that_of_the_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "bash-completion" in call("install").stdout
    for shell, said in [("/bin/tcsh", "SHELL is tcsh"), ("", "SHELL is not set")]:
        monkeypatch.setenv("SHELL", shell)
        error = call("install").exception
        assert str(error) == said
        assert "completion install bash" in getattr(error, "hint", "")


def test_a_place_that_cannot_be_written_is_one_line(home: Path) -> None:
    (home / ".local").write_text("")
    error = call("install").exception
    assert "cannot be written" in str(error)
    assert "completion show bash" in getattr(error, "hint", "")


class Peer:
    def __init__(self, name: str, *, is_gone: bool = False) -> None:
        self.name, self.is_gone = name, is_gone


def test_peers_are_offered_where_their_names_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["kitchen", "attic.2", "x; rm -rf ~", "$(reboot)", "-rf", "a b", "*", "ké", "kit\nx"]

    class Client:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def call(self, method: str) -> Any:
            return method

    class Picture:
        peers = (*map(Peer, names), Peer("kept", is_gone=True))

    monkeypatch.setattr("p2pnode.net.control_client.ControlClient", Client)
    monkeypatch.setattr("p2pnode.node.snapshot_json.from_json", lambda _: Picture)
    context, option = click.Context(cli), click.Option(["--prefer"])
    assert [one.value for one in complete_peer(context, option, "")] == ["attic.2", "kitchen"]
    assert [one.value for one in complete_peer(context, option, "k")] == ["kitchen"]


def test_without_a_node_no_peer_is_offered(tmp_path: Path) -> None:
    context = click.Context(cli)
    context.params["state"] = str(tmp_path)
    assert complete_peer(context, click.Option(["--prefer"]), "") == []


def test_models_that_are_here_are_offered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "_names_in_cache", lambda: {"mine", "a b"})
    offered = complete_model(click.Context(cli), click.Option(["--model"]), "m")
    assert [(one.value, one.help) for one in offered] == [
        ("mine", "here"),
        ("mistral-7b", "to be fetched"),
    ]
