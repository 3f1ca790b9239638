"""What comes from a terminal, read in bursts, with the hang-up that prompt_toolkit passes over."""

import os
import select
from typing import Final

from prompt_toolkit.input.posix_utils import PosixStdinReader

from p2pnode.interfaces.chat.bursts import LONG, Bursts

_SETTLED: Final = 0.025
"""Seconds without a further byte after which a line's end was typed. Longer than a pasting program
hesitates, shorter than anybody feels. A guess."""

_PASTING: Final = 0.15
"""The same once it shows that somebody pastes: over a slow line the next piece takes longer."""

_HUNG_UP: Final = 3
"""A terminal that announces something to read so often in a row, and has nothing, has hung up."""

_CHUNK: Final = 65_536
_MOST: Final = 8 * 1024 * 1024  # bytes of a burst; what is beyond is another one


class BurstReader(PosixStdinReader):
    """Reads all that comes at once, and marks it as a paste where it is one."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, encoding="utf-8")
        self._bursts = Bursts()

    def read(self, count: int = _CHUNK) -> str:
        if self.closed or not select.select([self.stdin_fd], [], [], 0)[0]:
            return ""
        data = burst(self.stdin_fd)
        self.closed = not data
        return self.marked(data)

    def marked(self, data: bytes) -> str:
        """Return a burst as text, marked as a paste where it is one."""
        return self._bursts.mark(self._stdin_decoder.decode(data))


def next_burst(descriptor: int, stop: int | None = None) -> bytes:
    """Wait for what comes next, and return it.

    That is nothing at the end of the terminal, and as soon as ``stop`` can be read.
    """
    watched = [descriptor] if stop is None else [descriptor, stop]
    for _ in range(_HUNG_UP):
        ready, _, _ = select.select(watched, [], [])
        if stop in ready:
            break
        if data := burst(descriptor):
            return data
    return b""


def burst(descriptor: int) -> bytes:
    """Return what comes at once, now that something is there.

    That is nothing at the end of the terminal, and where a Ctrl-C took what was there, if the
    terminal is quiet (:mod:`p2pnode.interfaces.chat.quiet_terminal`). A single key is waited for no
    longer than it takes to come.
    """
    data = bytearray(_read(descriptor))
    while data and len(data) < _MOST and select.select([descriptor], [], [], _patience(data))[0]:
        if not (more := _read(descriptor)):
            break
        data += more
    return bytes(data)


def _patience(data: bytearray) -> float:
    """Return how long to wait for more behind what came."""
    if len(data) == 1 and not data.isspace():
        return 0.0
    is_pasted = len(data) > LONG or b"\n" in data[:-1] or b"\r" in data[:-1]
    return _PASTING if is_pasted else _SETTLED


def _read(descriptor: int) -> bytes:
    """Read what is there; a terminal that has hung up fails for ever, which is its end too."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:  # somebody made it so, and took what was there
        select.select([descriptor], [], [])
        return _read(descriptor)
    except OSError:
        return b""
