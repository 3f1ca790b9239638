"""What a node under measurement writes down: moments of one machine's clock."""

from __future__ import annotations

import time
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np


class Moment(IntEnum):
    """What was reached; ``first`` and ``second`` stand beside some."""

    BEGUN = 0
    """A job of one row begins: ``first`` is its position, ``second`` the stage's first layer."""

    ENGINE = 1
    """The engine's part of it begins, or ends."""

    CODED = 2
    """The job is done: what the engine said is coded as it travels."""

    BUILT = 3
    """The bytes of a frame are complete."""

    SEALED = 4
    """A sealed datagram is at hand, and goes to the kernel: ``first`` is its mark."""

    SENT = 5
    """The kernel has taken it."""

    AWAKE = 6
    """The thread that computes is back from waiting at the socket."""

    ASKED = 7
    """Somebody asks the socket for a datagram, and will get one."""

    RECEIVED = 8
    """There it is: ``first`` is its mark, ``second`` 1 where the thread that computes took it."""

    OPENED = 9
    """The transport is done with it."""

    REQUESTED = 10
    """The frame in it was read, and a job made of it."""


Stamp = tuple[int, int, int, int]
"""The moment, nanoseconds of the monotonic clock, ``first`` and ``second``."""

_LAST: Final = 7  # bytes of a datagram that tell it from others: the end of its authentication tag


def mark_of(datagram: bytes) -> int:
    """Return a number that no other datagram has."""
    return int.from_bytes(datagram[-_LAST:], "little")


class Stamps:
    """Takes them down; in any thread, and as long as ``number`` is not 0.

    Attributes:
        number: Of the measurement under way.
    """

    def __init__(self) -> None:
        self.number = 0
        self._taken: list[Stamp] = []

    def take(self, moment: Moment, first: int = 0, second: int = 0) -> None:
        if self.number:
            self._taken.append((moment, time.perf_counter_ns(), first, second))

    def take_at(self, moment: Moment, nanoseconds: int, first: int = 0, second: int = 0) -> None:
        """Take down a moment that was read before its meaning was known."""
        if self.number:
            self._taken.append((moment, nanoseconds, first, second))

    def write(self, path: Path) -> None:
        np.save(path, np.array(self._taken, np.int64).reshape(-1, 4))


def read_stamps(path: Path) -> list[Stamp]:
    """Return what :meth:`Stamps.write` wrote, in the order they were taken."""
    return [(moment, now, first, second) for moment, now, first, second in np.load(path).tolist()]
