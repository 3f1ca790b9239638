"""What ends a command: one line with what to do next, the right status, never a traceback."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from p2pnode.engine import registry
from p2pnode.engine.registry import EngineOptions
from p2pnode.errors import UserError
from p2pnode.interfaces.cli import commands, failures, node_options
from p2pnode.interfaces.cli.commands import COMMANDS, cli, run

Told = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Run the command line; return its exit status and the lines of its standard error."""
    monkeypatch.delenv("P2PNODE_DEBUG", raising=False)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # run() sets it

    def call(*words: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["p2pnode", *words])
        status = run()
        return status, capsys.readouterr().err.splitlines()

    return call


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command end with ``error``."""

    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr(commands._LazyGroup, "get_command", end)


def test_help_shows_every_summary_whole_and_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["p2pnode", "--help"])
    assert run() == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert not any("..." in line for line in lines[1:])
    width = max(map(len, COMMANDS))
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name:<{width}}  {summary}" in lines


@pytest.mark.parametrize("name", COMMANDS)
def test_each_name_in_the_help_is_a_command(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help


@pytest.mark.parametrize("group", ["models", "frame", "bench"])
def test_help_of_groups_cuts_nothing(group: str, told: Told) -> None:
    command = cli.get_command(click.Context(cli), group)
    assert isinstance(command, click.Group)
    shown = " ".join(command.get_help(click.Context(command)).split())
    for one in command.commands.values():
        assert one.help is not None
        assert one.help.split("\n")[0].rstrip(".") in shown


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("invte", "hi"), "No such command 'invte'. Did you mean invite?", "p2pnode --help"),
        (("models", "lst"), "Did you mean list?", "p2pnode models --help"),
        (("x" * 5000,), "No such command 'xxx", "p2pnode --help"),
        (("up", "--prot", "1"), "--port", "p2pnode up --help"),
        (("up", "--port", "99999"), "99999 is not in the range", "p2pnode up --help"),
        (("generate",), "Missing argument", "p2pnode generate --help"),
        (("up", "--state", ""), "an empty path names nothing", "p2pnode up --help"),
        (("up", "--state", "~no-such-account-7/x"), "no account called", "p2pnode up --help"),
        (("up", "--kv-memory", "9" * 40), "more than this machine has: ", "p2pnode up --help"),
        (("doctor", "--kv-memory", "99999999"), "99999999 MiB is more than", "doctor --help"),
        (("up", "--threads", "1024"), "1024 threads cannot compute on", "or fewer"),
        (("up", "--name", "x" * 300), "--name has 300 bytes, and others see 32", "shorter"),
        (("up", "--name", "\x1b[2J"), "printable", "kitchen"),
        (("up", "--name", ""), "printable", "kitchen"),
        (("up", "--peer", "foo:bar"), "not an address: 'foo:bar'", "HOST:PORT"),
        (("up", "--peer", "a b"), "no host can be called 'a b'", "HOST:PORT"),
        (("up", "--listen", "300.1.2.3:x"), "no such address", "0.0.0.0"),
        (("up", "--layers", "5:3"), "not a run of layers: '5:3'", "--layers 0:10"),
        (("up", "--layers", "0:3", "--max-layers", "2"), "--max-layers goes with", "leave one"),
        (("up", "--model", "none", "--layers", "0:3"), "no layers to hold", "leave one"),
        (("up", "--model", ""), "--model is empty", "GGUF file"),
        (("frame", "decode", "--fields"), "--fields goes with --json", ""),
        (("frame", "decode", "--key", "ab"), "both a key and a salt", "--salt"),
        (("simulate", "x", "--write-baseline"), "needs --baseline", ""),
    ],
)
def test_a_call_that_cannot_work_has_status_2(
    told: Told, words: tuple[str, ...], said: str, hint: str
) -> None:
    status, lines = told(*words)
    assert status == 2
    assert lines[0].startswith("p2pnode: ")
    assert said in lines[0]
    assert len(lines[0]) < 400
    assert len(lines) <= 2
    assert hint in lines[-1]


def test_a_bare_word_that_is_no_host_is_taken_for_a_slip(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(host: str, *_: object, **__: object) -> list[object]:
        raise OSError(-2, f"{host} is not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    status, lines = told("up", "--peer", "foo", "--model", "none")
    assert (status, lines[0]) == (2, "p2pnode: --peer: no host is called foo now")
    assert "foo:4747" in lines[1]


@pytest.mark.parametrize(
    ("error", "status", "said", "hint"),
    [
        (UserError("no", hint="do so"), 1, "p2pnode: no", "do so"),
        (ValueError("odd\nthing"), 70, "internal error: ValueError: odd thing", "P2PNODE_DEBUG=1"),
        (ValueError("x" * 10_000), 70, "internal error", "report it"),
        (BaseExceptionGroup("two", [ValueError("a"), UserError("b")]), 1, "p2pnode: b", ""),
        (ExceptionGroup("one", [KeyError("a")]), 70, "internal error: KeyError", "report it"),
        (MemoryError(), 1, "not enough memory", "close programs"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied", "permissions"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left", "disk"),
        (RecursionError("deep"), 70, "internal error", "report it"),
    ],
)
def test_whatever_ends_a_command_is_one_line(
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    said: str,
    hint: str,
) -> None:
    ending(monkeypatch, error)
    found, lines = told("up")
    assert found == status
    assert said in lines[0]
    assert len(lines[0]) < 400
    assert len(lines) <= 2
    assert hint in lines[-1]


def test_the_traceback_is_there_for_who_asks(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, ValueError("odd"))
    monkeypatch.setenv("P2PNODE_DEBUG", "1")
    status, lines = told("up")
    assert status == 70
    assert lines[0].startswith("Traceback")
    assert "internal error: ValueError: odd" in lines[-2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EOFError()])
def test_an_interrupt_is_quiet(
    told: Told, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    ending(monkeypatch, error)
    assert told("up") == (130, [""])


def test_a_thread_that_ends_is_one_line(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError("odd")

    monkeypatch.setattr(threading, "excepthook", failures.tell_of_thread)
    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()
    assert "internal error: ValueError: odd" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["models", "list"], ["models", "--help"]])
def test_what_only_looks_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from p2pnode.interfaces.cli.commands import run\n"
        f"sys.argv = ['p2pnode', *{words}]; assert run() == 0\n"
        "heavy = {'numpy', 'trio', 'rich', 'zipfile', 'jinja2', 'cryptography', 'psutil'}\n"
        "print(sorted(heavy & {*sys.modules}), file=sys.stderr)"
    )
    environment = {**os.environ, "P2PNODE_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_the_command_line_offers_the_engines_that_the_registry_has() -> None:
    assert node_options.ENGINES == registry.ENGINES
    assert EngineOptions().engine in node_options.ENGINES
