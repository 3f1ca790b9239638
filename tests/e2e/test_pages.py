"""README, tutorial and guides followed for real: what they show is typed, and prints as shown.

A command is taken from its page, not from here: a page that changes changes what is run.
Directories under /tmp become the test's own, and the code that a page abbreviates is the one that
was printed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.commands import ROOT, Command, commands, compare, shape, why_not_followed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

OURS = (sys.executable, "-m", "p2pnode")
PATIENCE = 60.0  # seconds, on a busy machine
ALONE = ("--listen", "127.0.0.1", "--port", "0")
"""Where a page leaves a node on the usual port and all addresses, a test may not."""

BRIEFLY = {"generate": ("--max-tokens", "40"), "simulate": ("--seed", "1")}
"""Options that make a command end sooner and change nothing in the shape of what it prints."""


class Follower:
    """Somebody who types what a page shows, on one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._code = ""
        self._running: list[tuple[Command, subprocess.Popen[bytes], Path]] = []

    def type(self, command: Command) -> None:
        """Run a command, and compare what it prints with the page; a node goes on running."""
        if command.words[1] in {"up", "join"}:
            self._start(command)
            return
        done = subprocess.run(
            self.typed(command),
            env=self._environment(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            timeout=PATIENCE,
        )
        said = done.stdout.decode()
        assert done.returncode == 0, f"{command}\n{said}"
        assert "Traceback" not in said
        if command.words[1] == "invite":
            self._code = said.splitlines()[0]
        compare(command, said.splitlines())

    def typed(self, command: Command) -> list[str]:
        """Return the words that are run in place of those that the page shows."""
        program, *words = command.words
        assert program == "p2pnode", f"{command}: nobody knows how to follow this"
        replaced = [re.sub(r"^/tmp\b", str(self._folder), word) for word in words]
        replaced = [self._code if word.startswith("p2p1-") else word for word in replaced]
        if words[0] in {"up", "join"} and "--port" not in words:
            replaced += ALONE
        replaced += BRIEFLY.get(words[0], ())
        return [*OURS, *(self._shortened(word) for word in replaced)]

    def _shortened(self, word: str) -> str:
        """Let a scenario answer briefly: the table is as long, and its columns are the same."""
        if not word.endswith(".toml"):
            return word
        text = re.sub(r"(?m)^tokens = \d+", "tokens = 30", (ROOT / word).read_text("utf-8"))
        short = self._folder / Path(word).name
        short.write_text(re.sub(r"(?m)^warm_up = \d+", "warm_up = 5", text))
        return str(short)

    def start(self, command: Command) -> tuple[subprocess.Popen[bytes], Path]:
        """Run a command in the background; what it prints goes to the file."""
        log = self._folder / f"log-{len(self._running)}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.typed(command),
                env=self._environment(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        self._running.append((command, process, log))
        return process, log

    def node(self, name: str) -> subprocess.Popen[bytes]:
        """Return the process of the node with this name."""
        return next(
            process for command, process, _ in self._running if f"--name {name}" in command.text
        )

    def look(self, state: str) -> dict[str, Any]:
        done = subprocess.run(
            [*OURS, "peers", "--json", "--state", str(self._folder / state)],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def end(self) -> None:
        """Interrupt what still runs, as Ctrl-C does; each ends cleanly."""
        for _, process, _ in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for command, process, log in self._running:
            status = process.wait(PATIENCE)
            assert status in {0, -signal.SIGKILL}, f"{command}\n{log.read_text()}"

    def _start(self, command: Command) -> None:
        _, log = self.start(command)
        last = shape(command.output[-1] if command.output else "... listens on ...")

        def is_shown() -> bool:
            return any(last.fullmatch(line.strip()) for line in log.read_text().splitlines())

        wait_until(is_shown, lambda: f"{command}\n{log.read_text()}")
        compare(command, log.read_text().splitlines())

    def _environment(self, command: Command) -> dict[str, str]:
        machine = "first" if command.machine in {"", "any"} else command.machine
        home = self._folder / f"home-{machine}"
        return {**os.environ, "P2PNODE_HOME": str(home), "COLUMNS": "200"}


@pytest.fixture(name="follower")
def _follower(tmp_path: Path) -> Iterator[Follower]:
    follower = Follower(tmp_path)
    try:
        yield follower
    finally:
        follower.end()


def wait_until(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def followed(page: str) -> list[Command]:
    """Return what of a page is to be typed: its blocks, and sentences that name a state."""
    return [
        command
        for command in commands(ROOT / page)
        if why_not_followed(command) is None and (not command.inline or "--state" in command.words)
    ]


def test_the_tutorial(follower: Follower) -> None:
    *steps, story, stop = followed("docs/tutorial.md")
    assert [step.words[1] for step in (story, stop)] == ["generate", "stop"]
    for step in steps:
        follower.type(step)
    wait_until(lambda: serves(follower, "garage"), lambda: str(follower.look("attic")))
    study = follower.look("study")["node_id"]  # demos near by have a node of that name too
    kill_one_in_mid_answer(follower, story)
    follower.type(stop)
    assert follower.node("study").wait(PATIENCE) == 0
    gone = follower.look("attic")["peers"]
    assert [peer["state"] for peer in gone if peer["node_id"] == study] == ["left"]


def serves(follower: Follower, name: str) -> bool:
    """Whether the first node sees that one serve; a stranger of that name never does."""
    peers = follower.look("attic")["peers"]
    return any((peer["name"], peer["state"]) == (name, "serving") for peer in peers)


def kill_one_in_mid_answer(follower: Follower, story: Command) -> None:
    """As the tutorial says: the node that the plan names for the middle layers."""
    asking, log = follower.start(story)
    plan = re.compile(r"^\s*(\w+)\s+\[10, 20\)", re.MULTILINE)
    wait_until(lambda: plan.search(log.read_text()) is not None, log.read_text)
    named = plan.search(log.read_text())
    assert named is not None
    shown = len(log.read_text())
    wait_until(lambda: len(log.read_text()) > shown + 20, log.read_text)  # the answer is under way
    follower.node(named[1]).kill()
    assert asking.wait(PATIENCE) == 0, log.read_text()
    assert f"[lost {named[1]} [10, 20): " in log.read_text()
    assert re.search(
        r"the answer goes on, \d+ ms after that was noticed: \w+ \[10, 20\) took over",
        log.read_text(),
    )


STARTS = [
    command
    for page in ("docs/guides/swarm.md", "docs/guides/trouble.md")
    for command in commands(ROOT / page)
    if command.words[:2] == ["p2pnode", "up"] and len(command.words) > 2
]


@pytest.mark.parametrize("command", STARTS, ids=str)
def test_a_node_starts_as_a_guide_says(follower: Follower, command: Command) -> None:
    follower.type(command)
    for look in ("p2pnode peers", "p2pnode invite", "p2pnode stop --now"):
        follower.type(Command(command.page, command.line, look))


@pytest.mark.parametrize("page", ["README.md", "docs/guides/simulate.md"])
def test_a_page_can_be_followed(follower: Follower, page: str) -> None:
    for command in followed(page):
        follower.type(command)
