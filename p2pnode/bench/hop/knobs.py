"""What a node under measurement is told while it runs, through memory that both sides map.

To read it costs the node a microsecond and no wake-up. It is written between two answers only.
"""

from __future__ import annotations

import mmap
import struct
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2pnode.values import value


class Compute(IntEnum):
    """What a stage does in place of its arithmetic."""

    ENGINE = 0
    """Nothing else: it computes."""

    ARITHMETIC = 1
    """Products with an array as large as a stage's weights, so the caches are cold afterwards."""

    SLEEP = 2
    """It sleeps: cores are free, and idle ones may slow down or rest."""

    SPIN = 3
    """Products that stay in the first cache: the core is busy, and what was cached stays so."""


class Wait(IntEnum):
    """How a stage waits for the next job."""

    SLEEP = 0
    """In poll(), as a node does."""

    POLL = 1
    """It asks the socket again and again, and lets others have the core in between."""

    REHEARSE = 2
    """It sleeps until shortly before the next job is due, by the last ones; then it runs a
    message's code once, for the caches, and sleeps again."""

    REHEARSE_POLL = 3
    """The same, but then it asks the socket until the job is there or overdue."""


@value
class Setting:
    """What a stage is to do.

    Attributes:
        number: Of the measurement; 0 where nothing is recorded.
        compute: What it does in place of its arithmetic.
        wait: How it waits.
        forward: Seconds of that for its layers; a job of many rows takes no longer.
        logits: The same for the head.
    """

    number: int = 0
    compute: Compute = Compute.ENGINE
    wait: Wait = Wait.SLEEP
    forward: float = 0.0
    logits: float = 0.0


PLAIN: Final = Setting()

_TOLD: Final = struct.Struct("<qqqdd")
_FOUND: Final = struct.Struct("<dd")
_SIZE: Final = 4096


class Knobs:
    """The memory between one node and whoever measures it; a file that both map."""

    def __init__(self, path: Path) -> None:
        """Map the file, which is made where there is none."""
        with path.open("a+b") as file:
            file.truncate(_SIZE)
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._memory.close()

    @property
    def setting(self) -> Setting:
        """What the stage is to do."""
        number, compute, wait, forward, logits = _TOLD.unpack_from(self._memory)
        return Setting(number, Compute(compute), Wait(wait), forward, logits)

    @setting.setter
    def setting(self, setting: Setting) -> None:
        _TOLD.pack_into(
            self._memory,
            0,
            setting.number,
            setting.compute,
            setting.wait,
            setting.forward,
            setting.logits,
        )

    @property
    def found(self) -> tuple[float, float]:
        """Seconds of the stage's own arithmetic for one row: its layers, and the head."""
        forward, logits = _FOUND.unpack_from(self._memory, _TOLD.size)
        return forward, logits

    @found.setter
    def found(self, seconds: tuple[float, float]) -> None:
        _FOUND.pack_into(self._memory, _TOLD.size, *seconds)
