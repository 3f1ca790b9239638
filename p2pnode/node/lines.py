"""Lines written in a thread of their own: a disk or a terminal that hangs holds up nobody."""

import queue
import threading
from collections.abc import Callable

_ROOM = 1024  # lines that wait; as many as a busy node has in minutes


class LineWriter:
    """Hands lines, in order, to a function that may take its time.

    The thread is a daemon: a write that never returns keeps no process from ending.
    """

    def __init__(self, write: Callable[[str], None], name: str, *, room: int = _ROOM) -> None:
        """``write`` is called in the thread ``name``, and raises nothing."""
        self._write = write
        self._lines: queue.Queue[str | None] = queue.Queue(room)
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have ``line`` written, without waiting; with too many before it, it is left out."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def close(self, limit: float) -> None:
        """Write what waits, and end; give up after ``limit`` seconds."""
        try:
            self._lines.put(None, timeout=limit)
        except queue.Full:
            return
        self._thread.join(limit)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._left_out:
                count, self._left_out = self._left_out, 0
                self._write(f"({count} lines were left out here: they came too fast)")
            self._write(line)
