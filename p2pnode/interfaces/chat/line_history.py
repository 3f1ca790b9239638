"""What was said before, in a file of the state directory: bounded, private, no reason to stop."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History

from p2pnode.replacing import replace_file
from p2pnode.system import NOFOLLOW, NONBLOCK

MOST_ENTRIES: Final = 1_000
MOST_BYTES: Final = 1024 * 1024
LONGEST: Final = 16_384
"""Characters of one; a longer message is not kept: nobody looks through it line by line."""


def history_path(state: Path) -> Path:
    """Return where the chats on a state directory keep what was said."""
    return state / "chat-history"


_NO_SURPRISES: Final = NOFOLLOW | NONBLOCK
"""A link leads elsewhere, and a pipe would hold us up; Windows has neither flag."""


class LineHistory(History):
    """A line of JSON for each message, the newest last; what cannot be kept is not."""

    def __init__(self, path: Path | None, expanded: Callable[[str], str]) -> None:
        """``path`` is None for what only this chat remembers.

        ``expanded`` returns what a line says: a name in it may stand for more.
        """
        super().__init__()
        self._path = path
        self._expanded = expanded

    def append_string(self, string: str) -> None:
        text = self._expanded(string)
        if text.strip() and len(text) <= LONGEST:
            super().append_string(text)

    def load_history_strings(self) -> Iterable[str]:
        """Return what is kept, the newest first."""
        data = b"" if self._path is None else _read(self._path)
        entries = _entries(data)
        if len(data) > MOST_BYTES or len(entries) > MOST_ENTRIES:
            entries = _newest(entries)
            _write(self._path, entries)
        return reversed(entries)

    def store_string(self, string: str) -> None:
        if self._path is None:
            return
        line = f"{json.dumps(string)}\n".encode()  # ASCII: half a character is kept as an escape
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_SURPRISES
        with suppress(OSError):
            descriptor = os.open(self._path, flags, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                file.write(line)


def _read(path: Path) -> bytes:
    """Return the end of a file, so much as may be kept and a little more; nothing of what is none.

    A pipe or a device in its place must not hold up anybody.
    """
    try:
        if not path.is_file() or path.is_symlink():
            return b""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2 * MOST_BYTES))
            return file.read(2 * MOST_BYTES)
    except OSError:
        return b""


def _write(path: Path | None, entries: list[str]) -> None:
    text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    with suppress(OSError):
        if path is not None:
            replace_file(path, text.encode())


def _entries(data: bytes) -> list[str]:
    """Return the entries that a file has; what is none is passed over."""
    found = []
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, str) and len(entry) <= LONGEST:
            found.append(entry)
    return found


def _newest(entries: list[str]) -> list[str]:
    """Return as many of the newest as half of what may be kept holds: so it is cut seldom."""
    kept, size = list[str](), 0
    for entry in reversed(entries[-MOST_ENTRIES // 2 :]):
        size += len(json.dumps(entry)) + 1
        if size > MOST_BYTES // 2:
            break
        kept.append(entry)
    return kept[::-1]
