"""The state directory: whose it is, who runs on it, and whether its files can be read."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from p2pnode import system
from p2pnode.errors import UserError
from p2pnode.interfaces.doctor.findings import Finding, Verdict
from p2pnode.node.disk import free_bytes, size_in_words
from p2pnode.node.identity import StateDirectory
from p2pnode.phrases import plural

TOPIC = "state"

LEAST_FREE = 1_000_000
"""Bytes: all of a node's own files take less."""


def check_state(directory: Path) -> Iterator[Finding]:
    """Look at a state directory without changing or creating anything in it."""
    try:
        found = directory.stat()
    except FileNotFoundError:
        yield _absent(directory)
        return
    except OSError as error:
        yield Finding(TOPIC, "fail", f"{directory}: {error.strerror}", "choose another: --state")
        return
    yield report_directory(
        directory,
        found.st_mode,
        is_ours=system.is_ours(found),
        is_writable=os.access(directory, os.W_OK | os.X_OK),
    )
    yield from report_room(directory, free_bytes(directory))
    if stat.S_ISDIR(found.st_mode) and system.is_ours(found):
        yield from _files(StateDirectory(directory))


def report_directory(path: Path, mode: int, *, is_ours: bool, is_writable: bool) -> Finding:
    """Say whether a node can keep its files there."""
    if not stat.S_ISDIR(mode):
        return Finding(TOPIC, "fail", f"{path} is no directory", "choose another: --state")
    if not is_ours:
        return Finding(TOPIC, "fail", f"{path} belongs to another account", "choose your own")
    if not is_writable:
        return Finding(TOPIC, "fail", f"{path} cannot be written", f"chmod u+rwx {path}")
    if system.HAS_ACCOUNTS and mode & 0o022:
        return Finding(TOPIC, "warn", f"other accounts may write to {path}", f"chmod 700 {path}")
    return Finding(TOPIC, "ok", str(path))


def report_room(path: Path, free: int | None) -> list[Finding]:
    """Say so where the disk of the state directory is full."""
    if free is None or free >= LEAST_FREE:
        return []
    what = f"no space left in {path}: {size_in_words(free)} are free"
    return [Finding(TOPIC, "fail", what, "make room, or choose another directory: --state DIR")]


def lock_holder(directory: Path) -> int | None:
    """Return the process that runs a node on ``directory``, without touching its lock.

    Taking the lock to see whether it is free would make a node that starts just then give up.
    """
    lock = directory / "lock"
    try:
        text = lock.read_text("ascii")[:20].strip()
        pid = int(text)
        opened = {file.path for file in psutil.Process(pid).open_files()}
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if os.path.realpath(lock) in opened else None


def boot_epoch(directory: Path) -> int | None:
    """Return the number of the latest start, or None before the first."""
    try:
        text = (directory / "boot-epoch").read_bytes()[:20].decode("ascii").strip()
    except FileNotFoundError:
        return None
    if not re.fullmatch(r"\d{1,15}", text):
        raise UserError(
            f"{directory / 'boot-epoch'} is broken: it must be a whole number",
            hint="move it away: a node starts afresh without it",
        )
    return int(text)


def _absent(directory: Path) -> Finding:
    parent = next(folder for folder in directory.parents if folder.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        what = f"{directory} cannot be made: {parent} is not writable"
        return Finding(TOPIC, "fail", what, "choose another: --state DIR, or P2PNODE_HOME")
    return Finding(TOPIC, "ok", f"{directory} is not there yet: the first start makes it")


def _files(state: StateDirectory) -> Iterator[Finding]:
    readers: tuple[tuple[str, Callable[[], object], Verdict], ...] = (
        ("identity.key", state.identity_seed, "fail"),
        ("swarm.secret", state.swarm_secret, "fail"),
        ("peers.json", state.remembered_peers, "warn"),  # a node sets these two aside
        ("boot-epoch", lambda: boot_epoch(state.path), "warn"),
    )
    broken = 0
    for name, read, verdict in readers:
        if not (state.path / name).exists():
            continue  # reading would draw a fresh identity
        try:
            read()
        except UserError as error:
            broken += 1
            yield Finding(TOPIC, verdict, str(error), error.hint)
    if not broken:
        yield _swarm_secret(state)


def _swarm_secret(state: StateDirectory) -> Finding:
    if (state.path / "swarm.secret").exists():
        known = len(state.remembered_peers())
        what = f"this node belongs to a swarm and remembers {plural(known, 'peer')}"
        return Finding("secret", "ok", what)
    what = "no swarm secret yet: the first start makes a swarm of its own"
    return Finding("secret", "ok", what, "to enter another's: p2pnode join CODE")
