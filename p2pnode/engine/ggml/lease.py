"""Read leases: whoever wants to write to a file waits until we let go of it. Only on Linux.

``fcntl(2)``, "Leases": an open for writing or a truncation blocks, and the holder gets a signal.
The kernel waits for ``lease-break-time`` seconds, then goes on without the holder's consent.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Also sent where data is urgent on a socket, and ignored by default: one that nobody waits for
# does nothing. The signal's own default, SIGIO, ends the process.
_SIGNAL: Final = signal.SIGURG
_CHECK_SECONDS: Final = 5.0  # a signal may be lost; the kernel waits at least twice as long
_LEAST_BREAK_SECONDS: Final = 10
_BREAK_TIME: Final = Path("/proc/sys/fs/lease-break-time")
_F_SETSIG: Final = 10
_F_SETOWN_EX: Final = 15
_F_OWNER_TID: Final = 0

# File systems whose every write passes this machine's kernel: statfs(2).
_LOCAL: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0xF2F52010,  # f2fs
        0x2FC12FC1,  # zfs
        0xCA451A4E,  # bcachefs
        0x01021994,  # tmpfs
        0x794C7630,  # overlayfs
    }
)


class Lease:
    """A read lease on an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def wanted_back(self) -> bool:
        """Tell whether somebody waits to write, or no longer has to."""
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def release(self) -> bool:
        """Let writers go on; False where the kernel had let them already."""
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return False
        return True


def take(descriptor: int) -> Lease | None:
    """Lease a file that was opened for reading only; None where there is no lease to be had.

    That is so on network file systems, for a file of another user, and while somebody has it open
    for writing.
    """
    if _file_system(descriptor) not in _LOCAL:
        return None
    try:
        if int(_BREAK_TIME.read_text()) < _LEAST_BREAK_SECONDS:
            return None
        owner = struct.pack("ii", _F_OWNER_TID, _watcher().thread_id)
        fcntl.fcntl(descriptor, _F_SETOWN_EX, owner)
        fcntl.fcntl(descriptor, _F_SETSIG, _SIGNAL)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (OSError, ValueError):
        return None
    return Lease(descriptor)


def watch(lease: Lease, give_back: Callable[[], None]) -> None:
    """Call ``give_back`` in a thread of our own once ``lease`` is wanted back; it must release."""
    _watcher().add(lease, give_back)


def forget(lease: Lease) -> None:
    """Watch ``lease`` no longer."""
    _watcher().remove(lease)


class _Watcher:
    """One daemon thread for all leases of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[Lease, Callable[[], None]] = {}
        self._started = threading.Event()
        self.thread_id = 0
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()
        self._started.wait()

    def add(self, lease: Lease, give_back: Callable[[], None]) -> None:
        with self._lock:
            self._watched[lease] = give_back
        ident = self._thread.ident or 0
        signal.pthread_kill(ident, _SIGNAL)  # it may have been wanted back already

    def remove(self, lease: Lease) -> None:
        with self._lock:
            self._watched.pop(lease, None)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})  # so that it is kept for sigtimedwait
        self.thread_id = threading.get_native_id()
        self._started.set()
        while True:
            with self._lock:
                watched = list(self._watched.items())
            for lease, give_back in watched:
                with contextlib.suppress(OSError):  # its file was closed just now
                    if lease.wanted_back():
                        self.remove(lease)
                        give_back()
            signal.sigtimedwait({_SIGNAL}, _CHECK_SECONDS)


_lock = threading.Lock()
_watchers: Final[dict[int, _Watcher]] = {}  # by process: a fork's child has no other threads


def _watcher() -> _Watcher:
    with _lock:
        watcher = _watchers.get(os.getpid())
        if watcher is None:
            watcher = _watchers[os.getpid()] = _Watcher()
        return watcher


def _file_system(descriptor: int) -> int:
    """Return the magic number of the file system, 0 where unknown."""
    buffer = (ctypes.c_long * 64)()  # struct statfs takes 120 bytes; its first word is the type
    if ctypes.CDLL(None).fstatfs(descriptor, ctypes.byref(buffer)):
        return 0
    return int(buffer[0]) & 0xFFFFFFFF
