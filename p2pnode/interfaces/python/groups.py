"""Groups of errors, as nurseries raise them, and the one that a program is to see."""

from collections.abc import Iterator
from contextlib import contextmanager


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
