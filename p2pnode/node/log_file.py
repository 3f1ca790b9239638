"""The log in a node's state directory: private, bounded in bytes, and no reason to stop.

What is logged goes there from INFO on, with local time, its zone and a level. NOTICE, between INFO
and WARNING, is what whoever runs the node wants to hear as it happens.
"""

import logging
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pnode import system
from p2pnode.membership.limits import Rate, TokenBucket
from p2pnode.node.lines import LineWriter

NOTICE = 25
"""The level of what whoever runs the node hears as it happens."""

MOST_BYTES = 1024 * 1024
"""Of one file. Some ten thousand lines."""

MOST_OLD = 4
"""Files kept of those before, ``log.1`` the newest; with the one that grows they have 5 MiB. Where
members come and go as often as lines are written of them, one in four seconds, that is two days;
in a home lab it is months. A guess."""

_OF_OTHERS = Rate(16, 0.2)
"""Records of other libraries in the file. trio writes ten a second, each with its traceback, while
a process has no descriptor left. A guess, as for lines that members cause."""

_PACKAGE = "p2pnode"
_RETRY = 10.0  # seconds until a file that could not be written is tried again
_LOOK = 1.0  # seconds for which the file is taken to be where it was: logrotate may have moved it
_LAST_LINES = 1.0  # seconds for what waits when the node ends

logging.addLevelName(NOTICE, "NOTICE")
logger = logging.getLogger(__name__)


def log_path(state: Path) -> Path:
    """Return where the node of a state directory logs."""
    return state / "log"


class LogFile:
    """Appends lines to a file, and begins another when it is full or was moved away."""

    def __init__(
        self,
        path: Path,
        on_trouble: Callable[[str], None],
        *,
        most_bytes: int = MOST_BYTES,
        most_old: int = MOST_OLD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_trouble`` is told once, in words, that it cannot be written."""
        self._path = path
        self._on_trouble = on_trouble
        self._most_bytes = most_bytes
        self._most_old = most_old
        self._clock = clock
        self._descriptor: int | None = None
        self._size = 0
        self._is_told = False
        self._try_at = 0.0
        self._look_at = 0.0

    def write(self, line: str) -> None:
        """Append ``line``; what cannot be written is left out."""
        if self._descriptor is None and self._clock() < self._try_at:
            return
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._look()
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

    def _look(self) -> None:
        """Let go of a file that is no longer the one of its name; see whether it was cut."""
        if self._descriptor is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK
        written = os.fstat(self._descriptor)
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            self.close()
            return
        if os.path.samestat(found, written):
            self._size = written.st_size
        else:
            self.close()

    def _open(self) -> None:
        """Open for appending without waiting: a pipe or a link in its place is refused."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.NOFOLLOW | system.NONBLOCK
        self._descriptor = descriptor = os.open(self._path, flags, 0o600)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no ordinary file")
        if not system.is_private(found):
            self._path.chmod(0o600)
        self._size = found.st_size
        self._look_at = self._clock() + _LOOK

    def _begin_another(self) -> None:
        self.close()
        for number in range(self._most_old, 0, -1):
            newer = self._old(number - 1) if number > 1 else self._path
            with suppress(FileNotFoundError):
                newer.replace(self._old(number))
        self._open()

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _append(self, data: bytes) -> None:
        if self._descriptor is not None:
            written = os.write(self._descriptor, data)
            self._size += written
            if written < len(data):
                raise OSError(0, "no space left for a whole line")

    def _fail(self, why: str) -> None:
        self.close()
        self._try_at = self._clock() + _RETRY
        if not self._is_told:
            self._is_told = True
            self._on_trouble(f"the log {self._path} cannot be written: {why}; the node goes on")


class LineHandler(logging.Handler, ABC):
    """Makes lines where something is logged, and leaves the writing to another thread.

    A record that cannot be written becomes a line that says so: none stops whoever logs it.
    """

    def __init__(self, level: int, write: Callable[[str], None], name: str) -> None:
        """``write`` is called in a thread ``name``, and raises nothing."""
        super().__init__(level)
        self._writer = LineWriter(write, name)

    @abstractmethod
    def lines_of(self, record: logging.LogRecord) -> Iterable[str]:
        """Return what to write of a record."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in self.lines_of(record):
                self._writer.put(line)
        except Exception as error:  # whatever the arguments of a record are
            kind = type(error).__name__
            where = f"{record.filename}:{record.lineno}"
            self._writer.put(f"a record of {where} cannot be written: {kind}")

    def end(self, limit: float) -> None:
        """Write what waits, for ``limit`` seconds at most."""
        self._writer.close(limit)


class _FileHandler(LineHandler):
    """Writes all records of this package, and some of other libraries'."""

    def __init__(self, file: LogFile) -> None:
        super().__init__(logging.INFO, file.write, "log")
        self._of_others = TokenBucket(_OF_OTHERS)
        self._left_out = 0

    def lines_of(self, record: logging.LogRecord) -> Iterable[str]:
        if is_ours(record):
            return [line_of(record)]
        if not self._of_others.take(record.created):
            self._left_out += 1
            return []
        lines = [line_of(record)]
        if self._left_out:
            lines.insert(0, f"({self._left_out} more records of other libraries were left out)")
            self._left_out = 0
        return lines


def is_ours(record: logging.LogRecord) -> bool:
    """Tell whether a record is of this package, not of a library that it uses."""
    return record.name == _PACKAGE or record.name.startswith(f"{_PACKAGE}.")


def line_of(record: logging.LogRecord) -> str:
    """Return a record as one line, and the traceback of an exception below it."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
    source = "" if is_ours(record) else f"{record.name}: "
    line = f"{moment} {record.levelname:<7} {source}{plain(record.getMessage())}"
    if record.exc_info:
        line += "\n" + logging.Formatter().formatException(record.exc_info)
    return line


def plain(text: str) -> str:
    """Return ``text`` as one line without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log to ``path`` what this package has to say from INFO on, for as long as this lasts.

    What the libraries that it uses have to say goes there too, from the root's level on.
    """
    root, package = logging.getLogger(), logging.getLogger(_PACKAGE)
    file = LogFile(path, lambda trouble: logger.warning("%s", trouble))
    handler, level = _FileHandler(file), package.level
    root.addHandler(handler)
    package.setLevel(logging.INFO if not level else min(level, logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(handler)
        package.setLevel(level)
        handler.end(_LAST_LINES)
        file.close()
