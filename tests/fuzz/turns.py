"""How some minutes are divided among many targets, each of which costs time to start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

LEAST = 1.0
"""Seconds of fuzzing below which a target is not worth its start."""

OVERHEAD = 7.0
"""Seconds around the fuzzing of a target, until the first is measured: importing under
instrumentation takes 5 at 2.4 GHz, and looking at its memory afterwards 1 or 2."""


@dataclass(slots=True)
class Session:
    """What became of the time.

    Attributes:
        ran: Who was fuzzed, and for how many seconds.
        left_out: For whom no time was left.
    """

    ran: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def oldest_first(names: Sequence[str], last_run: Mapping[str, float]) -> list[str]:
    """Order targets by when they were last fuzzed, so that short sessions reach all in turn."""
    return sorted(names, key=lambda name: last_run.get(name, 0.0))


def share(left: float, waiting: int, overhead: float) -> int:
    """Return the whole seconds that the next of ``waiting`` targets is fuzzed; 0 if none fit."""
    fit = min(waiting, int(left // (overhead + LEAST)))
    return int(left / fit - overhead) if fit > 0 else 0


def divide(
    names: Sequence[str],
    seconds: float,
    *,
    clock: Callable[[], float],
    fuzz: Callable[[str, int, float], None],
) -> Session:
    """Fuzz targets one after another until the time is over.

    Args:
        names: The targets, the most urgent first. That one is fuzzed however short the time is.
        seconds: For all together, starts included.
        clock: The time in seconds.
        fuzz: Fuzzes a target for so many seconds; the last argument is the end of it all, by the
            clock.
    """
    end = clock() + seconds
    session, overhead = Session(), OVERHEAD
    for place, name in enumerate(names):
        began = clock()
        given = share(end - began, len(names) - place, overhead) or (0 if place else int(LEAST))
        if not given:
            session.left_out = list(names[place:])
            break
        fuzz(name, given, end)
        session.ran[name] = given
        overhead = clock() - began - given
    return session
