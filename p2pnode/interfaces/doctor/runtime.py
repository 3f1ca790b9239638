"""The runtime directory, where the control socket of a running node lies."""

import os
import stat
from pathlib import Path

from p2pnode import system
from p2pnode.interfaces.doctor.findings import Finding
from p2pnode.net.control_lines import MAX_SOCKET_PATH, find_control_path

TOPIC = "control"


def check_runtime(state: Path) -> list[Finding]:
    """Look at where the node of ``state`` listens, or would."""
    path = find_control_path(state)
    return [report_length(path) or _directory(path.parent)]


def report_length(path: Path) -> Finding | None:
    """Say so where the kernel cannot bind a path; None where it can."""
    size = len(os.fsencode(path))
    if size <= MAX_SOCKET_PATH:
        return None
    what = f"the control socket's path has {size} bytes, more than {MAX_SOCKET_PATH}"
    return Finding(TOPIC, "fail", what, "set XDG_RUNTIME_DIR to a shorter one")


def report_runtime(directory: Path, mode: int, *, is_ours: bool) -> Finding:
    """Say whether a control socket there is out of others' reach."""
    hint = "remove it, or set XDG_RUNTIME_DIR to a directory of yours"
    if not stat.S_ISDIR(mode):
        return Finding(TOPIC, "fail", f"{directory} is no directory", hint)
    if not is_ours or (system.HAS_ACCOUNTS and mode & 0o077):
        return Finding(TOPIC, "fail", f"the runtime directory {directory} is not yours alone", hint)
    return Finding(TOPIC, "ok", f"sockets lie in {directory}, which is yours alone")


def _directory(directory: Path) -> Finding:
    try:
        found = directory.lstat()
    except FileNotFoundError:
        if os.access(directory.parent, os.W_OK | os.X_OK):
            return Finding(TOPIC, "ok", f"{directory} is not there yet: the first start makes it")
        what = f"{directory} cannot be made"
        return Finding(TOPIC, "fail", what, "set XDG_RUNTIME_DIR to a directory of yours")
    return report_runtime(directory, found.st_mode, is_ours=system.is_ours(found))
