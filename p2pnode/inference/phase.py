"""The phases of a generation, and what moves it from one to the next: a phase machine."""

from enum import Enum, auto


class Phase(Enum):
    """Where a generation stands."""

    PLANNING = auto()
    OPENING = auto()
    RUNNING = auto()
    ENDED = auto()


class Evidence(Enum):
    """What moves it."""

    COVERED = auto()
    ALL_OPENED = auto()
    LOST = auto()
    STALLED = auto()
    OVER = auto()


# The whole phase machine. A pair that is not here is a mistake of ours, and refused loudly.
TRANSITIONS = {
    (Phase.PLANNING, Evidence.COVERED): Phase.OPENING,
    (Phase.PLANNING, Evidence.LOST): Phase.PLANNING,  # one more, while others are replaced
    (Phase.OPENING, Evidence.ALL_OPENED): Phase.RUNNING,
    (Phase.OPENING, Evidence.LOST): Phase.PLANNING,
    (Phase.RUNNING, Evidence.LOST): Phase.PLANNING,
    (Phase.RUNNING, Evidence.STALLED): Phase.OPENING,
    (Phase.PLANNING, Evidence.OVER): Phase.ENDED,
    (Phase.OPENING, Evidence.OVER): Phase.ENDED,
    (Phase.RUNNING, Evidence.OVER): Phase.ENDED,
}
