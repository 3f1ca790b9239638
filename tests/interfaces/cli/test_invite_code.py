"""Where an invite code may come from, and what of it is left in the arguments."""

import os
import sys

import click
import pytest

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli import invite_code
from p2pnode.interfaces.cli.invite_code import read_code
from p2pnode.interfaces.cli.node_commands import join
from p2pnode.node.invite import Invite, decode_invite, encode_invite

INVITE = Invite(bytes(range(32)), (("192.168.1.20", 4747),))
CODE = encode_invite(INVITE)


def piped(text: str) -> int:
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader


def test_a_descriptor_is_read_and_closed() -> None:
    reader = piped(f"> {CODE[:30]}\n> {CODE[30:]}\n")
    assert decode_invite(read_code([f"fd:{reader}"])) == INVITE
    with pytest.raises(UserError, match="cannot be read: Bad file descriptor"):
        read_code([f"fd:{reader}"])


def test_standard_input_is_read_to_the_end_of_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"{CODE}\n".encode())  # and the other end stays open
    monkeypatch.setattr(invite_code, "_read", _reading_from(reader))
    assert decode_invite(read_code(["-"])) == INVITE
    os.close(writer)
    os.close(reader)


def _reading_from(descriptor: int) -> object:
    read = invite_code._read

    def reading(_: int, *, keep: bool) -> str:
        return read(descriptor, keep=keep)

    return reading


def test_it_is_asked_for_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Terminal:
        def __init__(self, is_there: bool) -> None:
            self.is_there = is_there

        def isatty(self) -> bool:
            return self.is_there

    def prompt(*_: object, hide_input: bool, **__: object) -> str:
        asked.append(hide_input)
        return CODE

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(sys, "stdin", Terminal(True))
    assert read_code([]) == CODE
    assert asked == [True]
    monkeypatch.setattr(sys, "stdin", Terminal(False))
    with pytest.raises(UsageError, match="no invite code was given"):
        read_code([])


class BegunError(Exception):
    """Instead of a process that is replaced."""


def test_a_code_in_the_arguments_is_handed_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []

    def begin(_: str, command: list[str]) -> None:
        begun.append(command)
        raise BegunError

    words = ["join", "p2pnode", "join", CODE[:20], CODE[20:], "--name", "join", "-v"]
    words += ["--no-mdns", "--peer", "a.example:1", "--peer", "b.example:2", "--json"]
    monkeypatch.setattr(sys, "argv", ["p2pnode", *words])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-B", "-m", "p2pnode", *words])
    monkeypatch.setattr(os, "execv", begin)
    with pytest.raises(BegunError):
        join.main(words[1:], standalone_mode=False)
    [[executable, *command]] = begun
    assert executable == sys.executable
    assert command[:4] == ["-B", "-m", "p2pnode", "join"]
    assert sorted(command[5:]) == [
        "--json",
        "--name=join",
        "--no-mdns",
        "--peer=a.example:1",
        "--peer=b.example:2",
        "--verbose",
    ]
    assert decode_invite(read_code([command[4]])) == INVITE


def test_a_wrong_code_begins_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["p2pnode", "join", CODE[:-1]])
    monkeypatch.setattr(sys, "orig_argv", ["python", "p2pnode", "join", CODE[:-1]])
    with pytest.raises(UsageError, match="incomplete"):
        read_code([CODE[:-1]])


def test_called_by_a_program_there_is_nothing_to_hide() -> None:
    assert decode_invite(read_code([CODE])) == INVITE
