"""Whether a node on this machine works with a model's files just now.

A node holds a shared lock on them for as long as it runs; the system drops it when the process
ends, however it ends. Nobody is kept from reading or writing by it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from p2pnode import system


@contextmanager
def held(paths: Iterable[Path]) -> Iterator[None]:
    """Let others see that these files are in use, as far as the file system has locks."""
    with ExitStack() as stack:
        for path in paths:
            descriptor = _open(path)
            if descriptor is not None:
                stack.callback(_let_go, descriptor)
                _lock(descriptor, shared=True)
        yield


def is_in_use(path: Path) -> bool:
    """Tell whether somebody holds this file."""
    descriptor = _open(path)
    if descriptor is None:
        return False
    try:
        return not _lock(descriptor, shared=False)
    finally:
        os.close(descriptor)


def _let_go(descriptor: int) -> None:
    with suppress(OSError):
        system.unlock(descriptor)
    os.close(descriptor)


def _open(path: Path) -> int | None:
    try:
        return os.open(path, system.READ)
    except OSError:
        return None


def _lock(descriptor: int, *, shared: bool) -> bool:
    """Lock; tell whether nobody was in the way. Where there are no locks, nobody is."""
    try:
        return system.lock(descriptor, shared=shared)
    except OSError:
        return True
