"""What ``up`` says: bounded, plain, and to nobody where nobody listens."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2pnode.interfaces.cli import console_log, node_commands
from p2pnode.interfaces.tui.example import lonely
from p2pnode.node.config import NodeConfig
from p2pnode.node.log_file import NOTICE
from p2pnode.node.settings import NodeSettings
from p2pnode.node.snapshot import NodeSnapshot

LOG = Path("/state/log")


@pytest.fixture(name="heard")
def _heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What arrives at standard error."""
    lines: list[str] = []

    def write(descriptor: int, data: bytes) -> int:
        assert descriptor == 2
        lines.extend(data.decode().splitlines())
        return len(data)

    monkeypatch.setattr(os, "write", write)
    return lines


def logged(*records: tuple[int, str], verbose: bool = False, quiet: bool = False) -> None:
    package = logging.getLogger("p2pnode")
    level = package.level
    package.setLevel(logging.INFO)
    try:
        with console_log.logging_to_console(LOG, verbose=verbose, quiet=quiet):
            for rank, line in records:
                logging.getLogger("p2pnode.node").log(rank, "%s", line)
    finally:
        package.setLevel(level)


def test_notices_are_heard_and_details_are_not(heard: list[str]) -> None:
    logged((logging.INFO, "a session is up"), (NOTICE, "kitchen joined"), (logging.WARNING, "odd"))
    assert [line[8:] for line in heard] == ["  kitchen joined", "  odd"]


def test_verbose_hears_all_of_the_log_and_json_errors_alone(heard: list[str]) -> None:
    logged((logging.INFO, "a session is up"), verbose=True)
    assert heard[0].endswith("INFO    a session is up")
    heard.clear()
    logged((NOTICE, "kitchen joined"), (logging.ERROR, "broken"), quiet=True)
    assert len(heard) == 1


def test_a_crowd_is_cut_short_and_the_log_is_named(heard: list[str]) -> None:
    logged(*((NOTICE, f"peer {number} joined") for number in range(1000)))
    assert len(heard) < 60


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(data)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", write)
    logged((NOTICE, "one"), (NOTICE, "two"))
    assert len(calls) == 1


def test_a_line_that_cannot_be_written_says_why_and_raises_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert console_log.write_line(writing, "nobody hears this") == "Broken pipe"
    os.close(writing)
    assert console_log.write_line(writing, "nor this") == "Bad file descriptor"


def test_a_record_that_cannot_be_written_is_a_line_and_ends_nothing(
    heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own raises
    with console_log.logging_to_console(LOG, verbose=False, quiet=False):
        logging.getLogger("p2pnode.node").warning("%d peers", "many")
        logging.getLogger("p2pnode.node").warning("all is well")
    assert len(heard) == 2
    assert heard[0].startswith("a record of test_console_log.py:")
    assert heard[0].endswith("cannot be written: TypeError")


@pytest.mark.parametrize("verbose", [False, True])
def test_of_what_other_libraries_log_one_plain_line_is_said(
    heard: list[str], verbose: bool
) -> None:
    with console_log.logging_to_console(LOG, verbose=verbose, quiet=not verbose):
        for _ in range(100):
            error = OSError(24, "Too many open files")
            logging.getLogger("trio.serve_listeners").error("accept: EMFILE", exc_info=error)
    (line,) = heard
    said = "trio.serve_listeners: accept: EMFILE (this and more of its kind in /state/log)"
    assert line[10:] == said


def test_what_the_node_says_waits_for_its_greeting(
    heard: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "p2pnode")
    monkeypatch.setattr(console_log, "_clock", lambda _: "now")
    node, hashing = (logging.getLogger(f"p2pnode.node.{name}") for name in ("node", "hashing"))
    with console_log.logging_to_console(LOG, verbose=False, quiet=False) as console:
        node.log(NOTICE, "kitchen joined")
        hashing.log(NOTICE, "hashes the file")  # may take minutes: before the node listens
        console.greeted()
        node.log(NOTICE, "attic joined")
    assert heard == ["now  hashes the file", "now  kitchen joined", "now  attic joined"]


class _Node:
    """One whose peer joins before it is up."""

    is_up = stopping = True

    def __init__(self, said: list[str]) -> None:
        self._said = said
        self.settings = NodeSettings(NodeConfig("here"), Path())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        logging.getLogger("p2pnode.node.node").log(NOTICE, "kitchen joined")
        task_status.started()
        while len(self._said) < 3:  # the greeting, its hint and the line
            await trio.lowlevel.checkpoint()

    async def wait_stopping(self) -> None:
        await trio.sleep_forever()

    def snapshot(self) -> NodeSnapshot:
        return replace(lonely(), name="here", listening=("[::]:4747",))


def test_up_greets_before_it_says_who_joined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "p2pnode")
    said: list[str] = []

    def write(_: int, line: str) -> str:
        said.append(line)
        return ""

    monkeypatch.setattr(console_log, "write_line", write)
    monkeypatch.setattr("p2pnode.node.node.Node", lambda *_: _Node(said))
    node_commands._run(NodeSettings(NodeConfig("here"), tmp_path), as_json=False, verbose=False)
    assert "listens on [::]:4747" in said[0]
    assert said[2].endswith("kitchen joined")
