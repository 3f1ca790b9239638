"""The log in a node's state directory: private, bounded in bytes, and no reason to stop.

What is logged goes there from INFO on, with local time, its zone and a level. NOTICE, between INFO
and WARNING, is what whoever runs the node wants to hear as it happens.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pnode.node.lines import LineWriter

NOTICE = 25
"""The level of what is said aloud."""

MOST_BYTES = 1024 * 1024
"""Of one file; the one before is kept as ``log.1``. Some ten thousand lines."""

_RETRY = 10.0  # seconds until a file that could not be written is tried again
_LAST_LINES = 1.0  # seconds for what waits when the node ends

logging.addLevelName(NOTICE, "NOTICE")
logger = logging.getLogger(__name__)


def log_path(state: Path) -> Path:
    """Return where the node of a state directory logs."""
    return state / "log"


class LogFile:
    """Appends lines to a file, and begins another when it is full."""

    def __init__(
        self, path: Path, on_trouble: Callable[[str], None], *, most_bytes: int = MOST_BYTES
    ) -> None:
        """``on_trouble`` is told once, in words, that it cannot be written."""
        self._path = path
        self._on_trouble = on_trouble
        self._most_bytes = most_bytes
        self._descriptor: int | None = None
        self._size = 0
        self._is_told = False
        self._try_at = 0.0

    def write(self, line: str) -> None:
        """Append ``line``; what cannot be written is left out."""
        if self._descriptor is None and time.monotonic() < self._try_at:
            return
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self._descriptor is None:
                self._open()
            if self._size + len(data) > self._most_bytes:
                self._begin_another()
            self._append(data)
        except OSError as error:
            self._fail(error.strerror or str(error))

    def close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        """Open for appending without waiting: a pipe or a link in its place is refused."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = descriptor = os.open(self._path, flags, 0o600)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no ordinary file")
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        self._size = found.st_size

    def _begin_another(self) -> None:
        self.close()
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._open()

    def _append(self, data: bytes) -> None:
        if self._descriptor is not None:
            written = os.write(self._descriptor, data)
            self._size += written
            if written < len(data):
                raise OSError(0, "no space left for a whole line")

    def _fail(self, why: str) -> None:
        self.close()
        self._try_at = time.monotonic() + _RETRY
        if not self._is_told:
            self._is_told = True
            self._on_trouble(f"the log {self._path} cannot be written: {why}; the node goes on")


class _Handler(logging.Handler):
    """Formats where something is logged, and leaves the writing to another thread."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__(logging.INFO)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.put(line_of(record))


def line_of(record: logging.LogRecord) -> str:
    """Return a record as one line, and the traceback of an exception below it."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
    line = f"{moment} {record.levelname:<7} {plain(record.getMessage())}"
    if record.exc_info:
        line += "\n" + logging.Formatter().formatException(record.exc_info)
    return line


def plain(text: str) -> str:
    """Return ``text`` as one line without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log to ``path`` what this package has to say from INFO on, for as long as this lasts."""
    package = logging.getLogger("p2pnode")
    file = LogFile(path, lambda trouble: logger.warning("%s", trouble))
    writer = LineWriter(file.write, "log")
    handler, level = _Handler(writer), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO if not level else min(level, logging.INFO))
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        writer.close(_LAST_LINES)
        file.close()
