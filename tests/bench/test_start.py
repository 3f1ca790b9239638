"""Commands are started for real, in turns, and one that fails is no figure."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from p2pnode.bench import load, start, text
from p2pnode.errors import UserError
from p2pnode.interfaces.cli import bench_commands
from p2pnode.interfaces.cli.bench_commands import bench


def runs(monkeypatch: pytest.MonkeyPatch, status: int) -> list[list[str]]:
    """Let a process end with ``status`` at once; return what is to be started."""
    started: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        started.append(command[3:])
        return subprocess.CompletedProcess(command, status, stderr=b"it is broken")

    monkeypatch.setattr(subprocess, "run", run)
    return started


def test_each_command_has_its_turn_and_the_first_round_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, told = runs(monkeypatch, 0), list[float]()

    def until_up(words: tuple[str, ...], *_: object) -> tuple[float, float]:
        started.append(list(words))
        return 0.5, 0.25

    monkeypatch.setattr(start, "_until_up", until_up)
    figures = start.measure(rounds=2, model="none", tell=told.append)
    up = [*start.UP, "--model", "none"]
    assert started == [["--help"], ["models", "list"], up] * 3
    assert told[-1] == 1.0
    assert list(figures["seconds"]) == [
        *("p2pnode --help", "p2pnode models list", f"p2pnode {' '.join(up)}")
    ]
    assert all(row["p50"] >= 0 for row in figures["seconds"].values())


def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, 1)
    with pytest.raises(UserError, match="p2pnode --help failed: it is broken"):
        start.measure(rounds=1, model="none", tell=lambda _: None)


def test_a_node_is_timed_until_it_is_up_and_one_that_is_not_is_told(tmp_path: Path) -> None:
    environment = {**os.environ, "P2PNODE_HOME": str(tmp_path)}
    up = (*start.UP, "--model", "none")
    assert all(taken > 0.0 for taken in start._until_up(up, environment, str(tmp_path)))
    with pytest.raises(UserError, match="did not come up"):
        start._until_up(("up", "--layers", "9:3"), environment, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "module"), [("start", start), ("load", load), ("text", text)], ids=str
)
@pytest.mark.parametrize("as_json", [False, True])
def test_the_machine_is_named_in_both_forms(
    name: str, module: Any, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure: Callable[..., dict[str, Any]] = lambda *_, **__: {"rounds": 1}  # noqa: E731
    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(bench_commands, "model_file", Path)
    done = CliRunner().invoke(bench, [name, *(["--json"] if as_json else [])])
    assert done.exception is None, done.exception
    if as_json:
        assert json.loads(done.stdout)["conditions"]["cpu"]
    else:
        assert "load" in done.stdout.splitlines()[-1]
