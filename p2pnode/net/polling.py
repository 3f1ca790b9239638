"""Asking which descriptors have something to read: by ``poll``, or where there is none."""

import select
import selectors
from typing import Final, Protocol

READABLE: Final[int] = getattr(select, "POLLIN", 1)


class Poller(Protocol):
    """As :func:`select.poll` has it, as far as we need it."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]: ...


def poller() -> Poller:
    """Return an empty poller."""
    return select.poll() if hasattr(select, "poll") else SelectPoller()


class SelectPoller:
    """The same by ``select``, for systems that have nothing else (and sockets only)."""

    def __init__(self) -> None:
        self._selector = selectors.SelectSelector()

    def register(self, fd: int, eventmask: int, /) -> None:
        del eventmask  # to read, always
        self._selector.register(fd, selectors.EVENT_READ)

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait up to ``timeout`` milliseconds, None for ever; return who can be read."""
        found = self._selector.select(None if timeout is None else timeout / 1e3)
        return [(key.fd, READABLE) for key, _ in found]
