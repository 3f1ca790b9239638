"""Waking another thread that waits on file descriptors."""

import contextlib
import os
import socket


class Wakeup:
    """One thread waits for :attr:`fileno` to be readable, any other wakes it.

    An eventfd where there is one (Linux), and not only because it is cheaper. Whoever writes to a
    socket or a pipe is taken for one about to sleep, so the kernel puts the thread it wakes on the
    writer's own core (a *sync* wakeup). A thread that goes on computing then shares its core with
    the one it has woken, whatever other cores are idle: in a chain of three on two cores, engines
    waited 4 ms of a token's 45 so (measured).

    Close it only when nobody can call :meth:`wake` any more: the number may be another file's by
    then.
    """

    __slots__ = ("_reader", "_writer", "fileno")

    def __init__(self) -> None:
        self._reader: socket.socket | None = None
        self._writer: socket.socket | None = None
        if hasattr(os, "eventfd"):
            self.fileno = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fileno = self._reader.fileno()

    def wake(self) -> None:
        """Make the descriptor readable; harmless when it is already."""
        with contextlib.suppress(BlockingIOError):
            if self._writer is None:
                os.eventfd_write(self.fileno, 1)
            else:
                self._writer.send(b"\0")

    def clear(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            if self._reader is None:
                os.eventfd_read(self.fileno)
            else:
                self._reader.recv(4096)

    def close(self) -> None:
        if self._reader is None or self._writer is None:
            os.close(self.fileno)
            return
        self._reader.close()
        self._writer.close()
