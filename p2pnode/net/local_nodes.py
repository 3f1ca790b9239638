"""The nodes that run on this machine for this account, whatever their state directories.

Each leaves a small private file beside its control socket, which a client of another state
directory can find. A file says nothing that its socket does not confirm: where nobody answers
there, the node has ended, and the file is removed.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pnode import system
from p2pnode.net.control_door import answers
from p2pnode.net.control_lines import runtime_directories
from p2pnode.replacing import replace_file

MOST_NODES = 64
"""Files looked at in one directory: more nodes than a machine has memory for."""

MOST_BYTES = 8192
"""Of one file: two paths of the greatest length."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A node on this machine.

    Attributes:
        state: Its state directory.
        log: Where it logs.
        name: What its owner calls it.
        node_id: Its ed25519 key, in hex.
        pid: Its process.
    """

    state: Path
    log: Path
    name: str
    node_id: str
    pid: int


@contextmanager
def registered(control: Path, node: LocalNode) -> Iterator[None]:
    """Let others find ``node``, which answers on the socket ``control``, while this lasts.

    Where the file cannot be written, as on a full disk, the node is found by its own state
    directory alone.
    """
    path = _file_beside(control)
    with suppress(OSError):
        _write(path, node)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def local_nodes() -> list[LocalNode]:
    """Return the nodes of this account that run, by state directory; stale files are removed."""
    found: dict[Path, LocalNode] = {}
    for directory in filter(_is_private, runtime_directories()):
        for path in sorted(directory.glob("*.json"))[:MOST_NODES]:
            node = _read(path)
            if node is None or not answers(path.with_suffix(".sock")):
                with suppress(OSError):
                    path.unlink()
            else:
                found[node.state] = node
    return [found[state] for state in sorted(found)]


def node_behind(control: Path) -> LocalNode | None:
    """Return what the node of the socket ``control`` left beside it, if it runs or was killed."""
    return _read(_file_beside(control)) if _is_private(control.parent) else None


def _file_beside(control: Path) -> Path:
    return control.with_suffix(".json")


def _write(path: Path, node: LocalNode) -> None:
    body = {
        "state": str(node.state),
        "log": str(node.log),
        "name": node.name,
        "node_id": node.node_id,
        "pid": node.pid,
    }
    replace_file(path, json.dumps(body).encode())  # private to us


def _read(path: Path) -> LocalNode | None:
    try:
        descriptor = os.open(path, system.READ | system.NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or not system.is_ours(found):
                return None
            data = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    try:
        return _node_of(data) if len(data) <= MOST_BYTES else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _node_of(data: bytes) -> LocalNode:
    """Check what a file holds.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: It is not what a node wrote.
    """
    body = json.loads(data)
    texts = [body[key] for key in ("state", "log", "name", "node_id")]
    pid = body["pid"]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise TypeError("texts expected")
    if type(pid) is not int or not 0 < pid < 2**31:
        raise ValueError("not a process id")
    state, log, name, node_id = texts
    return LocalNode(Path(state), Path(log), name, node_id, pid)


def _is_private(directory: Path) -> bool:
    """Whether ``directory`` is ours and lets nobody else in: others' files are not believed."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and system.is_private(found)
