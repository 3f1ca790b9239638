"""What is typed amid an answer, and a Ctrl-C that takes it from under a reader."""

import os
import pty
import select
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from p2pnode.interfaces.chat import quiet_terminal
from p2pnode.interfaces.chat.line_reader import next_burst
from p2pnode.interfaces.chat.typed_ahead import TypedAhead

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(name="terminal")
def _terminal() -> Iterator[tuple[int, int]]:
    """The side of a quiet terminal where somebody types, and that of the command."""
    person, command = pty.openpty()
    quiet_terminal._be_quiet(command)
    yield person, command
    os.close(command)
    if person:
        os.close(person)


@pytest.fixture(name="taken")
def _taken(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let a Ctrl-C come between the first word that something is there, and its reading."""
    person, command = terminal
    is_taken, real = threading.Event(), select.select

    def says(read: list[int], *rest: Any) -> Any:
        ready = real(read, *rest)
        if command in ready[0] and not is_taken.is_set():
            os.write(person, b"\x03")
            deadline = monotonic() + 5
            while real([command], [], [], 0)[0] and monotonic() < deadline:
                pass
            is_taken.set()
        return ready

    monkeypatch.setattr(select, "select", says)
    return is_taken


def until(is_so: Callable[[], object]) -> None:
    deadline = monotonic() + 5
    while not is_so():
        assert monotonic() < deadline


def test_reading_ahead_ends_though_ctrl_c_took_what_was_there(
    terminal: tuple[int, int], taken: threading.Event
) -> None:
    person, command = terminal
    ahead = TypedAhead(command)
    with ahead.reading():
        os.write(person, b"taken")
        assert taken.wait(5)
        os.write(person, b"kept\n")
        until(lambda: ahead._bursts)
    assert ahead.take() == b"kept\n"
    assert ahead.take() is None


def test_a_line_is_waited_for_though_ctrl_c_took_what_was_there(
    terminal: tuple[int, int], taken: threading.Event
) -> None:
    person, command = terminal
    typing = threading.Thread(target=lambda: taken.wait(5) and os.write(person, b"kept\n"))
    typing.start()
    os.write(person, b"taken")
    assert next_burst(command) == b"kept\n"
    typing.join()


def test_a_terminal_that_has_hung_up_is_its_end(terminal: tuple[int, int]) -> None:
    person, command = terminal
    replaced = os.open(os.devnull, os.O_RDWR)
    os.dup2(replaced, person)  # closes that side of the terminal
    os.close(replaced)
    assert next_burst(command) == b""
    with TypedAhead(command).reading():
        pass
