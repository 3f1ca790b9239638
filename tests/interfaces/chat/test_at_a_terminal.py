"""The chat at a real terminal: the command in a process, and a node that says what it is to."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trio

from p2pnode.errors import UserError
from p2pnode.net.control import Emit, control_path, serve_control

pytestmark = pytest.mark.timeout(90)

PLAN = {"stages": [{"name": "attic", "layers": [0, 30], "cost_ms": 1.0, "reason": "near"}]}
WORDS = ("# Title\n", "some **bo", "ld** and", " \x1b[31mred", "\x07\n")
PROMPTED = b"\x1b[?2004h"  # pastes are marked from here on: a line is read
LIMIT = 30.0
BETWEEN_LINES = 0.2  # seconds: nobody types the next line sooner
BEGIN = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its keys signal
from p2pnode.interfaces.cli.main import main
main()
"""


class FakeNode:
    """A control socket that answers, keeps what it was asked, and can go and come back."""

    def __init__(self, state: Path) -> None:
        self._path = control_path(state)
        self.asked: list[dict[str, Any]] = []
        self.cancelled = threading.Event()
        self.may_end = threading.Event()  # for an answer that lasts until then
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()

    async def generate(self, params: dict[str, Any], emit: Emit) -> object:
        self.asked.append(params)
        said = params["messages"][-1]["content"]
        await emit({"event": "plan", "plan": {**PLAN, "reasons": []}, "prompt_tokens": 5})
        if said.startswith("refuse"):
            raise UserError("no peer serves layers [0, 10)")
        if said.startswith("long"):
            await emit({"event": "token", "text": "at length "})
            assert await trio.to_thread.run_sync(self.may_end.wait, LIMIT)
        words = ("endless ",) if said.startswith("endless") else WORDS
        for text in words:
            await emit({"event": "token", "text": text})
        if said.startswith("endless"):
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()
        return _facts("".join(words), len(words))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer from a thread of its own for as long as this lasts."""
        ready, self._scope = threading.Event(), trio.CancelScope()
        thread = threading.Thread(target=trio.run, args=(self._serve, ready), daemon=True)
        thread.start()
        assert ready.wait(LIMIT)
        try:
            yield
        finally:
            assert self._token is not None
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
            thread.join(LIMIT)

    async def _serve(self, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_control, self._path, {"generate": self.generate})
                ready.set()

    def said(self) -> list[str]:
        return [params["messages"][-1]["content"] for params in self.asked]


def _facts(text: str, tokens: int) -> dict[str, Any]:
    body = {"text": text, "token_ids": [1] * tokens, "finish": "eos", "stopped_by": None}
    times = {"tokens_per_s": 22.7, "first_token_ms": 130.0, "queued_ms": 0.0}
    return {**body, **times, "left_out": 0, "repaired": []}


class Terminal:
    """A pseudo-terminal with the command on it."""

    def __init__(self, words: Sequence[str], size: tuple[int, int], **environ: str) -> None:
        self._main, self.side = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.side)
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, "chat", *words],
            stdin=self.side,
            stdout=self.side,
            stderr=self.side,
            env={**os.environ, "TERM": "xterm", **environ},
            start_new_session=True,
        )
        self.shown = b""
        self._seen = 0

    def type(self, keys: bytes | str) -> None:
        data = keys.encode() if isinstance(keys, str) else keys
        while data:
            _, writable, _ = select.select([], [self._main], [], 0.05)
            data = data[os.write(self._main, data[:1024]) :] if writable else data
            self._read(0.0)

    def type_line(self, line: str) -> None:
        """Type a line and wait as a person does before the next, while nothing is shown."""
        self.type(line + "\r")
        select.select([self._main], [], [], BETWEEN_LINES)

    def until(self, wanted: bytes | str) -> bytes:
        """Wait for ``wanted`` behind what was waited for before; return what came up to its end."""
        sought = wanted.encode() if isinstance(wanted, str) else wanted
        until = monotonic() + LIMIT
        while (at := self.shown.find(sought, self._seen)) < 0:
            assert monotonic() < until, (sought, self.shown[self._seen :])
            assert self._read(0.1), (sought, self.shown[self._seen :])
        start, self._seen = self._seen, at + len(sought)
        return self.shown[start : self._seen]

    def becomes_quiet(self) -> bool:
        until = monotonic() + LIMIT / 10
        while termios.tcgetattr(self.side)[3] & (termios.ECHO | termios.ICANON):
            if monotonic() > until:
                return False
            self._read(0.01)
        return True

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, size)

    def end(self) -> int:
        """Say Ctrl-D, wait for the end and return the exit status."""
        self.type(b"\x04")
        until = monotonic() + LIMIT
        while self.process.poll() is None and monotonic() < until:
            self._read(0.1)
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self.side)

    def _read(self, seconds: float) -> bool:
        """Take what is shown; tell whether the command still may show something."""
        if select.select([self._main], [], [], seconds)[0]:
            self.shown += os.read(self._main, 65_536)
            return True
        return self.process.poll() is None


Start = Callable[..., Terminal]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    made = FakeNode(tmp_path)
    with made.running():
        yield made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    terminals: list[Terminal] = []

    def begin(*words: str, size: tuple[int, int] = (80, 24), **environ: str) -> Terminal:
        environ = {"NO_COLOR": "", **environ}
        terminals.append(Terminal(["--state", str(tmp_path), *words], size, **environ))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal.close()


def test_what_is_typed_is_edited_sent_and_answered(node: FakeNode, start: Start) -> None:
    terminal = start()
    typed: list[tuple[str, ...]] = [
        ("helo\x1b[D\x1b[Dl\r",),
        ("\u00e9\x7f\x7fa\r",),
        ("a\\\r", "b\r"),
        ("a\x1b\rb\r",),
        ("x\x03y\r",),
    ]
    for first, *others in typed:
        terminal.until(PROMPTED)
        terminal.type(first)
        for keys in others:
            terminal.until("\n")
            terminal.type(keys)
        answer = terminal.until("; complete]")
    assert node.said() == ["hello", "a", "a\nb", "a\nb", "y"]
    assert (
        b"[5 tokens, 22.7 tokens/s, the first after 130 ms, by attic [0, 30); complete]" in answer
    )
    assert b"\x1b[1mbold\x1b[0m" in answer
    assert b"\x1b[31m" not in answer
    assert b"\x07" not in answer
    terminal.until(PROMPTED)
    assert terminal.end() == 0
    assert termios.tcgetattr(terminal.side) == terminal.before


def test_a_paste_is_one_message_marked_or_not(node: FakeNode, start: Start) -> None:
    terminal, lines = start(), "".join(f"line {number}\n" for number in range(200))
    pastes = ("one\ntwo\nthree\n", f"\x1b[200~{lines}\x1b[201~\r", lines, "x" * 6000 + "\r")
    for keys in pastes:
        terminal.until(PROMPTED)
        terminal.type(keys)
        terminal.until("; complete]")
    assert node.said() == ["one\ntwo\nthree", lines, lines[:-1], "x" * 6000]


def test_ctrl_c_stops_the_answer_and_what_was_typed_is_none_of_it(
    node: FakeNode, start: Start
) -> None:
    terminal = start()
    terminal.until(PROMPTED)
    terminal.type("endless\r")
    terminal.until("endless ")
    terminal.type("typed meanwhile")
    terminal.type(b"\x03")
    answer = terminal.until("; cut: you stopped it]")
    assert b"typed" not in answer
    assert b"[stopped]" in answer
    assert node.cancelled.wait(LIMIT)
    terminal.until(PROMPTED)
    terminal.type("and now\r")
    terminal.until("; complete]")
    said = [(one["role"], one["content"]) for one in node.asked[-1]["messages"]]
    assert said[:2] == [("user", "endless"), ("assistant", "endless ")]
    assert said[2][1].endswith("and now")


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_lines_typed_during_an_answer_are_taken_in_turn(
    node: FakeNode, start: Start, term: str
) -> None:
    terminal = start(TERM=term)
    terminal.until("> ")
    terminal.type("long\r")
    terminal.until("at length ")
    for line in ("one", "two\\", "three", "\x1b[200~a\rb\x1b[201~", "/set seed 3", "four", "/bye"):
        terminal.type_line(line)
    node.may_end.set()
    terminal.until("seed                3")
    terminal.until("complete]")
    assert terminal.process.wait(LIMIT) == 0
    assert node.said() == ["long", "one", "two\nthree", "a\nb", "four"]
    assert termios.tcgetattr(terminal.side) == terminal.before


def test_ctrl_c_drops_the_lines_that_wait_for_their_turn(node: FakeNode, start: Start) -> None:
    terminal = start()
    terminal.until(PROMPTED)
    terminal.type("long\r")
    terminal.until("at length ")
    for line in ("endless", "one"):
        terminal.type_line(line)
    node.may_end.set()
    terminal.until("endless ")
    terminal.type_line("two")
    terminal.type(b"\x03")
    terminal.until("; cut: you stopped it]")
    terminal.until(PROMPTED)
    terminal.type("three\r")
    terminal.until("; complete]")
    assert node.said() == ["long", "endless", "three"]


def test_the_terminal_is_quiet_again_after_a_stop_in_an_answer(
    node: FakeNode, start: Start
) -> None:
    terminal = start()
    terminal.until(PROMPTED)
    terminal.type("long\r")
    terminal.until("at length ")
    for _ in range(8):  # now one thread is told that it goes on, now another
        terminal.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED)
        termios.tcsetattr(terminal.side, termios.TCSANOW, terminal.before)  # as a shell does
        terminal.process.send_signal(signal.SIGCONT)
        assert terminal.becomes_quiet()
    node.may_end.set()
    terminal.until("complete]")
    terminal.until(PROMPTED)
    assert terminal.end() == 0
    assert termios.tcgetattr(terminal.side) == terminal.before


def test_commands_are_obeyed_and_wrong_ones_explained(
    node: FakeNode, start: Start, tmp_path: Path
) -> None:
    terminal = start("--system", "Be brief.", "--plain", "--no-history")
    told = {
        "/saev x": "there is no command /saev",
        "/set temperaturee 1": "try: /set temperature",
        "/set temperature 1": "temperature         1.0",
        "/plan": "nothing was planned yet",
        "hello": "some **bold** and",
        "/retry": "complete]",
        f"/save {tmp_path}/kept.json": "kept.json: 1 turn]",
        "/reset": "begins anew",
        f"/load {tmp_path}/kept.json": "loaded: 1 turn",
        "/peers": "no such method: snapshot",
        "refuse this": "/retry asks it again",
        "/undo": "taken back",
    }
    for keys, words in told.items():
        terminal.until(PROMPTED)
        terminal.type(f"{keys}\r")
        terminal.until(words)
    seeds = [params["seed"] for params in node.asked]
    assert (node.said(), seeds) == (["hello", "hello", "refuse this"], [0, 1, 0])
    assert node.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    kept = json.loads((tmp_path / "kept.json").read_text())["messages"]
    assert [one["role"] for one in kept] == ["system", "user", "assistant"]
    terminal.until(PROMPTED)
    terminal.type("/bye\r")
    assert terminal.process.wait(LIMIT) == 0
    assert not (tmp_path / "chat-history").exists()


def test_a_node_that_went_is_asked_again_when_it_is_back(tmp_path: Path, start: Start) -> None:
    node = FakeNode(tmp_path)
    with node.running():
        terminal = start()
        terminal.until(PROMPTED)
        terminal.type("endless\r")
        terminal.until("endless ")
    terminal.until("in the middle of its answer")
    terminal.until("; cut: it broke off]")
    terminal.until(PROMPTED)
    terminal.type("hello\r")
    terminal.until("/retry asks it again")
    with node.running():
        terminal.until(PROMPTED)
        terminal.type("/retry\r")
        terminal.until("; complete]")
    assert node.said() == ["endless", "hello"]


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_narrow_terminal_and_one_without_a_cursor_will_do(
    node: FakeNode, start: Start, term: str
) -> None:
    terminal = start(size=(20, 5), TERM=term)
    terminal.until("> ")
    terminal.type("\u6f22\u5b57\x7f" + "w" * 50)
    terminal.until("w" * 10)
    terminal.resize(33, 7)
    terminal.type("\r")
    terminal.until("complete]")
    terminal.until("> ")
    terminal.type(b"\xff\xfe\r")
    terminal.until("not text in UTF-8")
    assert node.said() == ["\u6f22" + "w" * 50]
    assert terminal.end() == 0
    assert termios.tcgetattr(terminal.side) == terminal.before


def test_no_colour_means_no_style_in_an_answer(node: FakeNode, start: Start) -> None:
    terminal = start(NO_COLOR="1")
    terminal.until(PROMPTED)
    terminal.type("hello\r")
    terminal.until("# Title")
    assert not re.search(rb"\x1b\[[0-9;]*m", terminal.until(" [31mred"))


def test_ctrl_c_ends_a_conversation_of_one_message(node: FakeNode, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "p2pnode", "chat", "--state", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"endless\nand more\n")
    process.stdin.close()
    assert process.stdout.read(8) == b"endless "
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130
    assert node.cancelled.wait(LIMIT)
    assert len(node.asked) == 1
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
