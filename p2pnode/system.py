"""What systems have in different forms, or lack: accounts, locks on files, flags of opening.

POSIX numbers its accounts and keeps others out by a file's mode. Windows has neither: there a file
is private because it lies in a folder of its account, which is where ours lie.
"""

import errno
import os
import signal
import stat
import threading
from importlib import import_module
from typing import IO, Final

NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)
"""Flags of :func:`os.open`; nothing where the system has no such thing to guard against."""

READ: Final[int] = os.O_RDONLY | NONBLOCK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""To open a file for reading, its bytes as they are; without waiting, were it a pipe."""

HANG_UP: Final = tuple(one for one in signal.Signals if one.name == "SIGHUP")
"""The signal of a terminal that was closed, where there is one."""

HAS_ACCOUNTS: Final = hasattr(os, "getuid")
"""Whether files belong to numbered accounts, and their modes keep others out."""

_READING: Final = threading.Lock()  # one place in a file is shared by all who read it


def is_ours(found: os.stat_result) -> bool:
    """Whether a file belongs to the account that runs this; True where that cannot be told."""
    return not HAS_ACCOUNTS or found.st_uid == os.getuid()


def is_private(found: os.stat_result) -> bool:
    """Whether a file is ours, and its mode lets nobody else in."""
    return is_ours(found) and (not HAS_ACCOUNTS or not stat.S_IMODE(found.st_mode) & 0o077)


def account() -> str:
    """Return a word for the account, to make names of files with."""
    return str(os.getuid()) if HAS_ACCOUNTS else os.environ.get("USERNAME", "me")


def start_deaf_to_continue(thread: threading.Thread) -> None:
    """Start a thread that is not told, nor those it starts, when a stopped process goes on.

    Handlers run in the main thread, and a signal that another thread got does not wake that.
    """
    if not hasattr(signal, "pthread_sigmask"):
        thread.start()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """Read up to ``size`` bytes from ``start``, from any thread.

    Raises:
        OSError: The file cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, start)
    with _READING:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, size)


def lock(file: int | IO[str], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and tell whether nobody was in the way.

    Where locks cannot be shared, a shared one is none.

    Raises:
        OSError: The file system has no locks.
    """
    descriptor = file if isinstance(file, int) else file.fileno()
    if HAS_ACCOUNTS:
        return _flock(descriptor, shared=shared, wait=wait)
    return shared or _lock_first_byte(descriptor, wait=wait)


def unlock(descriptor: int) -> None:
    """Give a lock up, whoever else has the open file: a process that begins just now has a copy.

    Raises:
        OSError: The file system has no locks.
    """
    if HAS_ACCOUNTS:
        fcntl = import_module("fcntl")
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _flock(descriptor: int, *, shared: bool, wait: bool) -> bool:
    fcntl = import_module("fcntl")
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_first_byte(descriptor: int, *, wait: bool) -> bool:
    """Lock as Windows does: bytes of a file, here one far beyond what is in it."""
    try:
        msvcrt = import_module("msvcrt")
    except ModuleNotFoundError as error:
        raise OSError(errno.ENOTSUP, "this system has no locks on files") from error
    here = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, 1 << 30, os.SEEK_SET)
    try:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
            else:
                return True
    finally:
        os.lseek(descriptor, here, os.SEEK_SET)
