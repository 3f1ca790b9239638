"""What a pull does so that two of them, a signal and a full disk leave nothing half done."""

import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from p2pnode import system
from p2pnode.errors import UserError
from p2pnode.node.disk import is_full, no_space
from p2pnode.node.fetching import ROOM_HINT
from p2pnode.node.places import CACHE_VARIABLE

ELSEWHERE: Final = f"choose a directory of your own with {CACHE_VARIABLE}"
_READ_ONLY: Final = 0o444


def forbid_writing(path: Path) -> None:
    """Make a model read-only: nodes map it, and one that changes under them is refused.

    A link is left alone, as what it leads to is not the cache's; so is another account's file.
    """
    with suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o222:
            path.chmod(_READ_ONLY)


@contextmanager
def kept_in(folder: Path, needed: int) -> Iterator[None]:
    """Say in a person's words why a model of ``needed`` bytes cannot be kept in the cache."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_space(folder, needed, ROOM_HINT) from error
        raise UserError(
            f"cannot keep models in {folder}: {error.strerror or error}", hint=ELSEWHERE
        ) from error


@contextmanager
def locked(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file; the system frees it when the process ends, however it ends."""
    with path.open("a") as file:
        if not system.lock(file):
            tell("another process fetches this model: waiting for it to end")
            system.lock(file, wait=True)
        yield


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let a request to end (not one that nohup ignores) end this as Ctrl-C does, in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [
        number
        for number in (signal.SIGTERM, *system.HANG_UP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def lock_of(folder: Path, name: str) -> Path:
    """Return the lock of a model, and so of its files: no two names share one."""
    return folder / f".{name.casefold()}.lock"


@contextmanager
def work_folder(folder: Path, name: str) -> Iterator[Path]:
    """Make an empty folder to bring a model into, whose lock is held; it goes at the end."""
    work = _work_folder(folder, name)
    clear_leftovers(folder, name)
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def clear_leftovers(folder: Path, name: str) -> None:
    """Remove what a killed pull of this model left; its lock, held, says that none is running."""
    shutil.rmtree(_work_folder(folder, name), ignore_errors=True)


def _work_folder(folder: Path, name: str) -> Path:
    return folder / f".pull-{name.casefold()}"
