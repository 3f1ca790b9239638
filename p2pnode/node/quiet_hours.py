"""Hours of the day in which a node computes for nobody else."""

import re
from dataclasses import dataclass
from typing import Final

from p2pnode.errors import ConfigError

_FORM: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one minute of the day up to another, perhaps over midnight.

    They go by the clock on the wall. On a day on which that is set forward or back they are an hour
    shorter or longer if that hour is among them, as a person expects who reads the clock.

    Attributes:
        start: The first minute, 0 to 1439.
        stop: One past the last, 0 to 1439; unlike ``start``.

    Raises:
        ConfigError: They begin when they end.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= min(self.start, self.stop) <= max(self.start, self.stop) < _DAY:
            raise ConfigError("a day has the minutes 0 to 1439")
        if self.start == self.stop:
            raise ConfigError(
                f"quiet hours that begin when they end: {self}",
                hint="for a node that never computes: --layers none",
            )

    @classmethod
    def parse(cls, text: str) -> "QuietHours":
        """Read ``22:00-07:00``.

        Raises:
            ConfigError: It is no such text, or begins when it ends.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"no hours of a day: {text[:40]!r}", hint="for instance 22:00-07:00, in local time"
            )
        first, then = (60 * int(match[at]) + int(match[at + 1]) for at in (1, 3))
        return cls(first, then)

    def __contains__(self, minute: int) -> bool:
        if self.start < self.stop:
            return self.start <= minute < self.stop
        return minute >= self.start or minute < self.stop

    def __str__(self) -> str:
        return f"{clock(self.start)}-{clock(self.stop)}"


def clock(minute: int) -> str:
    """Write a minute of the day as a clock shows it."""
    return f"{minute // 60:02}:{minute % 60:02}"
