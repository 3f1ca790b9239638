"""What stands on standard input beside a prompt: read where somebody gave it, and never waited for.

A command inherits a standard input that was not meant for it: from cron, a service manager, a test
runner, a loop that reads its lines from a file. So a file is read from its beginning alone, and a
pipe where something comes, or it ends, within :data:`PATIENCE`. Devices are not read.
"""

import io
import os
import select
import stat
import sys
from typing import Final

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import note

PATIENCE: Final = 3.0
"""Seconds for the first byte of a pipe. A program that fetches something says so by then; one that
runs this command with a pipe that nobody writes to loses no more. A guess."""

MOST_BYTES: Final = 4 * 1024 * 1024
"""As much as a node reads at once."""

_CHUNK: Final = 65_536


def text_beside_prompt(wanted: bool | None) -> str:
    """Return what standard input has, without its last line's end; nothing where it is not meant.

    ``wanted``: whether to read it; None to look whether somebody gave something.

    Raises:
        UserError: It is no text, or too long.
    """
    if wanted is False or sys.stdin.isatty():
        return ""
    try:
        descriptor = sys.stdin.fileno()
    except io.UnsupportedOperation:  # it is in memory, and so holds up nobody
        return decoded(sys.stdin.buffer.read(MOST_BYTES + 1)).rstrip("\n")
    if wanted is None and not _is_meant(descriptor):
        return ""
    return decoded(read_bounded(descriptor)).rstrip("\n")


def read_bounded(descriptor: int) -> bytes:
    """Read to the end, or a byte more than may be."""
    data = bytearray()
    while len(data) <= MOST_BYTES and (chunk := os.read(descriptor, _CHUNK)):
        data += chunk
    return bytes(data)


def decoded(data: bytes) -> str:
    """Return bytes that somebody gave as text, without the mark that editors put at its start.

    Raises:
        UserError: They are no text in UTF-8, or too many.
    """
    if len(data) > MOST_BYTES:
        raise UserError(
            f"standard input has more than {MOST_BYTES >> 20} MiB, the most that a node reads",
            hint="shorten it, or give it in parts",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text() from error


def checked_text(text: str) -> str:
    """Refuse stray bytes here, where the person who typed them can be told.

    Raises:
        UserError: It is no text in UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _not_text() from error
    return text


def _not_text() -> UserError:
    return UserError("the prompt is not text in UTF-8", hint="convert it first, e.g. with iconv")


def _is_meant(descriptor: int) -> bool:
    """Tell whether somebody gave something, as far as can be seen."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return _is_at_its_beginning(descriptor)
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False
    if select.select([descriptor], [], [], PATIENCE)[0]:
        return True
    note(
        f"[standard input is open, and nothing came for {PATIENCE:.0f} s: going on without it; "
        "--stdin waits, --no-stdin never looks]"
    )
    return False


def _is_at_its_beginning(descriptor: int) -> bool:
    """Tell whether nobody has read of a file yet: a loop over its lines has."""
    if not (at := os.lseek(descriptor, 0, os.SEEK_CUR)):
        return True
    if at < os.fstat(descriptor).st_size:
        note("[standard input is a file that somebody reads: left alone; --stdin reads on]")
    return False
