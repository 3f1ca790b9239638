"""What comes from a terminal, read in bursts, with the hang-up that prompt_toolkit passes over."""

import os
import select
from typing import Final

from prompt_toolkit.input.posix_utils import PosixStdinReader

from p2pnode.interfaces.chat.bursts import Bursts

_SETTLED: Final = 0.025
"""Seconds without a further byte after which a line's end was typed. Longer than a pasting program
hesitates, shorter than anybody feels. A guess."""

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
        return self._bursts.mark(self._stdin_decoder.decode(data))


def burst(descriptor: int) -> bytes:
    """Return what comes at once; nothing at the end of the terminal.

    A single key is waited for no longer than it takes to come.
    """
    data = bytearray(_read(descriptor))
    while data and len(data) < _MOST:
        is_maybe_cut = data.endswith((b"\r", b"\n")) or len(data) > 1
        ready, _, _ = select.select([descriptor], [], [], _SETTLED if is_maybe_cut else 0)
        more = _read(descriptor) if ready else b""
        if not more:
            break
        data += more
    return bytes(data)


def _read(descriptor: int) -> bytes:
    """Read what is there; a terminal that has hung up fails for ever, which is its end too."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:  # somebody made it so, and took what was there
        select.select([descriptor], [], [])
        return _read(descriptor)
    except OSError:
        return b""
