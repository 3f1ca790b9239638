"""Groups of errors, as nurseries raise them, and the one that a program is to see."""

from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.errors import UserError


@contextmanager
def freed() -> Iterator[None]:
    """Raise the only error of a nursery's group without that; it may be a program's own group."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        only = group.exceptions[0]
        raise only from only.__cause__


def mistake_in(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first UserError anywhere in a group; the group itself where there is none."""
    found = group.subgroup(UserError)
    while isinstance(found, BaseExceptionGroup):
        first = found.exceptions[0]
        if not isinstance(first, BaseExceptionGroup):
            return first
        found = first
    return group
