"""What ``up`` says while it runs: lines on standard error that hold up nothing and end nothing.

A terminal may be closed or stopped (Ctrl-S), a pipe may have lost its reader or a disk its space:
the node lives on, and its log in the state directory has it all.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pnode.membership.limits import Rate, TokenBucket
from p2pnode.node.log_file import NOTICE, LineHandler, is_ours, line_of, plain

_LINES = Rate(40, 0.5)
"""Lines said: a swarm of forty that starts at once, then one in two seconds. A guess."""

_LAST_LINES = 0.5  # seconds for what waits when the node ends
STDOUT, STDERR = 1, 2
_NODE = "p2pnode.node.node"  # logs what the core says; how far a file is hashed has another logger


class ConsoleLog(LineHandler):
    """Says what is logged, from a level on; with ``verbose`` all of it, as the log has it.

    Of what other libraries log, one line is said: the rest is for the log. What the node itself
    says waits until :meth:`greeted`: peers may join before it is said where it listens.
    """

    def __init__(self, log: Path, level: int, *, verbose: bool = False) -> None:
        super().__init__(level, self._write, "console")
        self._log = log
        self._is_verbose = verbose
        self._bucket = TokenBucket(_LINES)
        self._left_out = 0
        self._is_heard = True
        self._has_told_of_others = False
        self._held: list[str] | None = []  # None once the node has greeted

    def greeted(self) -> None:
        """Say what waited."""
        self.acquire()
        try:
            held, self._held = self._held or [], None
            for line in held:
                self._writer.put(line)
        finally:
            self.release()

    def lines_of(self, record: logging.LogRecord) -> Iterator[str]:
        if self._held is None or record.name != _NODE:
            yield from self._lines_of(record)
        else:
            self._held.extend(self._lines_of(record))

    def _lines_of(self, record: logging.LogRecord) -> Iterator[str]:
        if not is_ours(record):
            yield from self._of_another(record)
            return
        if self._is_verbose:
            yield line_of(record)
            return
        if not self._bucket.take(record.created):
            self._left_out += 1
            return
        if self._left_out:
            yield f"({self._left_out} more lines are in {self._log})"
            self._left_out = 0
        yield f"{_clock(record)}  {plain(record.getMessage())}"
        if record.exc_info:
            yield f"          details in {self._log}"

    def _of_another(self, record: logging.LogRecord) -> Iterator[str]:
        if not self._has_told_of_others:
            self._has_told_of_others = True
            said = f"{record.name}: {plain(record.getMessage())}"
            yield f"{_clock(record)}  {said} (this and more of its kind in {self._log})"

    def _write(self, line: str) -> None:
        if self._is_heard and write_line(STDERR, line):
            self._is_heard = False  # the terminal is gone; the log has it all


@contextmanager
def logging_to_console(log: Path, *, verbose: bool, quiet: bool) -> Iterator[ConsoleLog]:
    """Say what the node logs; ``quiet``, errors alone."""
    level = logging.INFO if verbose else logging.ERROR if quiet else NOTICE
    console, root = ConsoleLog(log, level, verbose=verbose), logging.getLogger()
    root.addHandler(console)
    try:
        yield console
    finally:
        root.removeHandler(console)
        console.greeted()
        console.end(_LAST_LINES)


def _clock(record: logging.LogRecord) -> str:
    return time.strftime("%H:%M:%S", time.localtime(record.created))


def write_line(descriptor: int, line: str) -> str:
    """Write a line; return why that was not possible, or nothing.

    No buffer of Python's stands between: what is left in one would fail once more when the process
    ends, and its lock would be waited for.
    """
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        return error.strerror or str(error)
    return ""
