"""Runs a program as on Windows, as far as that can be told here: what POSIX alone has is hidden.

It is hidden from modules of p2pnode alone. The libraries that we use have code for each system, so
they see all there is.
"""

import builtins
import fcntl
import importlib
import json
import pkgutil
import runpy
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, cast

MODULES = frozenset(
    ("curses", "fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
)
PREFIXES: Mapping[str, tuple[str, ...]] = {
    "mmap": ("MADV_", "MAP_", "PROT_"),
    "os": ("EFD_", "POSIX_FADV_", "PRIO_", "SCHED_", "W", "eventfd", "posix_", "sched_", "wait"),
    "select": ("EPOLL", "POLL"),
    "signal": ("ITIMER_", "SIGRT", "pthread_", "siginterrupt", "sigpending", "sigtimed", "sigwait"),
    "socket": ("CMSG_", "SCM_"),
    "time": ("CLOCK_", "clock_", "pthread_"),
}
NAMES: Mapping[str, tuple[str, ...]] = {
    "mmap": (),
    "os": (
        *("chown", "chroot", "fchmod", "fchown", "fdatasync", "fork", "forkpty", "getegid"),
        *("geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpriority", "getsid"),
        *("getuid", "killpg", "lchown", "lockf", "memfd_create", "mkfifo", "mknod", "nice"),
        *("openpty", "pidfd_open", "pipe2", "pread", "preadv", "pwrite", "pwritev", "readv"),
        *("register_at_fork", "sendfile", "set_blocking", "get_blocking", "setpgid"),
        *("setpriority", "setsid", "setuid", "statvfs", "fstatvfs", "sync", "sysconf", "uname"),
        *("writev", "O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH"),
    ),
    "select": ("epoll", "kqueue", "poll"),
    "signal": (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGIO", "SIGKILL", "SIGPIPE", "SIGPROF"),
        *("SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM"),
        *("SIGWINCH", "SIGXCPU", "alarm", "getitimer", "pause", "setitimer"),
    ),
    "socket": (
        *("AF_NETLINK", "AF_PACKET", "AF_UNIX", "MSG_DONTWAIT", "MSG_NOSIGNAL", "SO_PEERCRED"),
        "SO_REUSEPORT",
    ),
    "time": ("tzset",),
}
KEPT: Mapping[str, tuple[str, ...]] = {"os": ("waitpid", "waitstatus_to_exitcode", "walk", "W_OK")}


class _System(ModuleType):
    """``sys``, but for the platform that it names."""

    def __getattribute__(self, name: str) -> Any:
        return "win32" if name == "platform" else getattr(sys, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(sys, name, value)


def hide() -> None:
    """Hide from modules of p2pnode what only POSIX has."""
    instead = {name: _without(importlib.import_module(name)) for name in NAMES}
    instead["sys"] = _System("sys")
    real = builtins.__import__

    def hiding(
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 -- as Python calls it
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and str((globals or {}).get("__name__", "")).partition(".")[0] == "p2pnode":
            if name.partition(".")[0] in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in instead:
                return instead[name]
        return real(name, globals, locals, fromlist or (), level)

    builtins.__import__ = hiding
    finding = importlib.import_module

    def found(name: str, package: str | None = None) -> ModuleType:
        by = sys._getframe(1).f_globals.get("__name__", "")
        if name in MODULES and str(by).startswith("p2pnode"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return _msvcrt() if name == "msvcrt" else finding(name, package)

    importlib.import_module = found


def _msvcrt() -> ModuleType:
    """Return a stand-in for what Windows locks files with."""
    made: Any = ModuleType("msvcrt")
    made.LK_LOCK, made.LK_NBLCK = 1, 2

    def locking(descriptor: int, mode: int, size: int) -> None:
        del size
        fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if mode == made.LK_NBLCK else 0))

    made.locking = locking
    return cast(ModuleType, made)


def _without(module: ModuleType) -> ModuleType:
    name = module.__name__
    made = ModuleType(name, module.__doc__)
    vars(made).update(
        {key: value for key, value in vars(module).items() if not _is_hidden(name, key)}
    )
    return made


def _is_hidden(module: str, name: str) -> bool:
    if name in KEPT.get(module, ()):
        return False
    return name in NAMES[module] or name.startswith(PREFIXES[module])


def import_all() -> dict[str, str]:
    """Import every module of p2pnode; return what failed, and why."""
    package = importlib.import_module("p2pnode")
    failed: dict[str, str] = {}
    for found in pkgutil.walk_packages(package.__path__, "p2pnode."):
        if found.name.endswith("__main__") or "._compiled" in found.name:
            continue
        try:
            importlib.import_module(found.name)
        except (ImportError, AttributeError) as error:
            failed[found.name] = str(error)
    return failed


if __name__ == "__main__":
    hide()
    if sys.argv[1:] == ["--import-all"]:
        print(json.dumps(import_all()))
    else:
        sys.argv = ["p2pnode", *sys.argv[1:]]
        runpy.run_module("p2pnode", run_name="__main__", alter_sys=True)
