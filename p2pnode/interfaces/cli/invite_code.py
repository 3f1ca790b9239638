"""Where the code for ``p2pnode join`` comes from, so that it stays in no process's arguments.

Every account of a machine can read the arguments of every process, and a code is its swarm's
secret. So it can come from standard input or from a prompt; one that was given as an argument is
handed through a pipe to the same command, begun anew in this very process.
"""

import os
import re
import sys
from collections.abc import Sequence

import click

from p2pnode import system
from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.own_command import given_options
from p2pnode.node.invite import MAX_PASTED, decode_invite, encode_invite

_DESCRIPTOR = re.compile(r"fd:(\d{1,6})")


def read_code(words: Sequence[str]) -> str:
    """Return the code that ``words``, the arguments, mean; it may be wrong still.

    ``-`` is standard input, ``fd:N`` a descriptor that is closed afterwards, and none at all a
    prompt. A code in them is checked; if it is one, this process is begun anew without it.

    Raises:
        UserError: It cannot be read.
        UsageError: The arguments hold no code.
    """
    if list(words) == ["-"]:
        return _read(0, keep=True)
    if not words:
        return _ask()
    if len(words) == 1 and (descriptor := _DESCRIPTOR.fullmatch(words[0])):
        return _read(int(descriptor[1]), keep=False)
    code = " ".join(words)
    try:
        decode_invite(code)
    except UserError as error:
        raise UsageError(str(error), hint=error.hint) from error
    _begin_anew(code, words)
    return code


def _ask() -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "no invite code was given",
            hint="p2pnode join CODE, or p2pnode join - to read it from standard input",
        )
    code: str = click.prompt("invite code (it is not shown)", hide_input=True, err=True)
    return code


def _read(descriptor: int, *, keep: bool) -> str:
    """Read to the end of what a descriptor gives, or to the line that completes a code."""
    data = bytearray()
    try:
        while len(data) <= 4 * MAX_PASTED and (chunk := os.read(descriptor, MAX_PASTED)):
            data += chunk
            if chunk.endswith(b"\n") and _is_code(data):
                break  # whoever gave it may keep the other end open
        if not keep:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f"the invite code cannot be read: {error.strerror or error}",
            hint="p2pnode join CODE, or p2pnode join - to read it from standard input",
        ) from error
    return data.decode("utf-8", "replace")


def _is_code(data: bytes | bytearray) -> bool:
    try:
        decode_invite(data.decode("utf-8", "replace"))
    except UserError:
        return False
    return True


def _begin_anew(code: str, words: Sequence[str]) -> None:
    """Replace this process by the same command with ``fd:N`` for the code.

    It keeps its number, its streams and what it ignores. Does nothing where the code does not
    stand in this process's arguments, as where the command is called by a program.
    """
    if not system.HAS_ACCOUNTS:
        return  # other accounts cannot read a process's arguments there
    given = sys.argv[1:]
    interpreter = sys.orig_argv[1 : len(sys.orig_argv) - len(given)]
    if not sys.executable or not set(words) <= set(given) or sys.orig_argv[-len(given) :] != given:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # a pipe holds far more than a code has
    os.write(writer, encode_invite(decode_invite(code)).encode("ascii"))
    os.close(writer)
    os.set_inheritable(reader, True)
    command = [sys.executable, *interpreter, "join", f"fd:{reader}", *given_options()]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 -- no shell is what we want
