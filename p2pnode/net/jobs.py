"""What the engine thread computes, and how long that will take."""

import math
from collections.abc import Callable
from typing import Generic, Never, TypeVar

from p2pnode.values import value

T = TypeVar("T")
CoreT = TypeVar("CoreT")


@value
class Finished(Generic[T]):
    """It returned ``value``."""

    value: T

    def unwrap(self) -> T:
        return self.value


@value
class Failed:
    """It raised ``error``."""

    error: BaseException

    def unwrap(self) -> Never:
        """Raise what was raised.

        Raises:
            BaseException: Whatever it was.
        """
        raise self.error


def outcome_of(task: Callable[[], T]) -> Finished[T] | Failed:
    """Run ``task`` and return what came of it, whatever that was."""
    try:
        return Finished(task())
    except BaseException as error:
        return Failed(error)


def _yes(core: object) -> bool:
    return True


@value
class Job(Generic[CoreT, T]):
    """One thing to compute.

    Attributes:
        run: Computes; called in the engine thread, without the lock.
        done: Tells the core what came of it; called there too, under the lock.
        units: How much work it is: rows times layers, or anything else that time grows with. 0
            takes next to no time, infinity always long.
        is_wanted: Asked under the lock right before; a job that nobody wants any more is dropped.
    """

    run: Callable[[], T]
    done: Callable[[CoreT, Finished[T] | Failed, float], None]
    units: float
    is_wanted: Callable[[CoreT], bool] = _yes


class Pace:
    """How long a job takes at most, judged by the jobs before it.

    A job of more rows takes longer than one of fewer, but less a row. So one of ``u`` units that
    took ``s`` seconds bounds every other: one of ``n`` units takes at most ``s * max(1, n / u)``.
    The last job seen of each size, by powers of two, is kept: a prefill of 64 rows says little
    about a decode, and the job that happened to come before may have been either.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, float]] = {}

    def most_seconds(self, units: float) -> float:
        """Return the seconds that a job of ``units`` takes at most; infinity where nobody knows."""
        if units <= 0 or math.isinf(units):
            return max(0.0, units)
        same = self._seen.get(_size(units))
        if same is not None:
            return _bound(same, units)
        return min((_bound(one, units) for one in self._seen.values()), default=math.inf)

    def learn(self, units: float, seconds: float) -> None:
        """Take in that a job of ``units`` took ``seconds``.

        A slow one is believed at once, a quick one by half: to be wrong about the next one costs
        peers their acknowledgements one way, and the job a millisecond the other.
        """
        if units <= 0 or math.isinf(units):
            return
        size = _size(units)
        known = self._seen.get(size)
        if known is not None:
            seconds = max(seconds, (seconds + _bound(known, units)) / 2)
        self._seen[size] = (units, seconds)


def _bound(seen: tuple[float, float], units: float) -> float:
    known_units, seconds = seen
    return seconds * max(1.0, units / known_units)


def _size(units: float) -> int:
    return math.frexp(units)[1]
