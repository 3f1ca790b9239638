"""What is typed while nobody reads the terminal for a line: kept as it came, for the next line.

Were it left to wait in the terminal, all of it would come in one piece afterwards, as a paste does,
and the lines that somebody sent one by one would be one message.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from p2pnode.interfaces.chat.quiet_terminal import interrupts_ignored
from p2pnode.system import start_deaf_to_continue

MOST_HELD: Final = 8 * 1024 * 1024
"""Bytes after which no more is read: the rest waits in the terminal, which takes some 4 KiB."""


class TypedAhead:
    """The bursts that came while nobody read, oldest first."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is the terminal's; it hands out what is typed key by key."""
        self._descriptor = descriptor
        self._bursts: deque[bytes] = deque()
        self._held = 0

    def take(self) -> bytes | None:
        """Return the next burst, or None where there is none; no thread reads meanwhile."""
        if not self._bursts:
            return None
        data = self._bursts.popleft()
        self._held -= len(data)
        return data

    def clear(self) -> None:
        """Drop what came; no thread reads meanwhile."""
        self._bursts.clear()
        self._held = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read in a thread for as long as this lasts."""
        stop, stopper = os.pipe()
        thread = threading.Thread(target=self._read, args=(stop,), name="typed ahead", daemon=True)
        start_deaf_to_continue(thread)
        try:
            yield
        finally:
            with interrupts_ignored():
                os.close(stopper)
                thread.join()
                os.close(stop)

    def _read(self, stop: int) -> None:
        from p2pnode.interfaces.chat.line_reader import next_burst

        while self._held < MOST_HELD and (data := next_burst(self._descriptor, stop)):
            self._bursts.append(data)
            self._held += len(data)
