"""What the engine thread computes."""

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
