"""Stops a node, and waits until it is gone."""

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import note
from p2pnode.interfaces.cli.running_node import connect
from p2pnode.interfaces.cli.settings import state_of
from p2pnode.net.control_client import ControlClient
from p2pnode.node.identity import lock_holder
from p2pnode.node.log_file import log_path
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import from_json

_LIMIT = 30.0  # seconds: a drain (10), a farewell (1), and a machine that is busy
_LIMIT_AT_ONCE = 10.0
_SILENT = 2.0  # seconds after which a word is said of the wait
_GLANCE = 0.05


def stop_node(state: Path | None, *, at_once: bool) -> str:
    """Have the node of ``state`` leave its swarm, wait for its end, and return who it was.

    Raises:
        UserError: No node runs there, or it has not ended in time.
    """
    until = time.monotonic() + (_LIMIT_AT_ONCE if at_once else _LIMIT)
    holder = lock_holder(state_of(state))
    try:
        found = connect(state, "stop")
    except UserError:
        if holder is not None and lock_holder(state_of(state)) is None:
            return f"the node of {state_of(state)} (process {holder})"  # it was leaving
        raise
    with found as client:
        picture = from_json(client.call("snapshot"))
        who = f"{picture.name} (process {picture.pid})" if picture.pid else picture.name
        with _process(picture.pid) as process:
            with suppress(UserError):  # it may be gone before it answers
                client.call("stop", {"at_once": at_once})
            _tell(who, picture, at_once=at_once)
            if _is_gone(client, process, who, until):
                return who
    hint = "" if at_once else "p2pnode stop --now does not wait for others; "
    raise UserError(
        f"{who} has not ended yet", hint=f"{hint}its log is {log_path(state_of(state))}"
    )


def _tell(who: str, picture: NodeSnapshot, *, at_once: bool) -> None:
    """Say what the node waits for, if it does."""
    asking = sorted({stage.requester for stage in picture.stages})
    if asking and not at_once:
        names = ", ".join(asking)
        note(f"{who} finishes what it computes for {names}, for 10 s at most (--now: at once)")


def _is_gone(client: ControlClient, process: "_Process", who: str, until: float) -> bool:
    """Wait until the node has hung up and its process has ended."""
    has_closed = client.wait_until_closed(min(_SILENT, until - time.monotonic()))
    if not has_closed:
        note(f"{who} is leaving its swarm")
        has_closed = client.wait_until_closed(until - time.monotonic())
    return has_closed and process.wait(until)


class _Process:
    """A process that is nobody's child here, by a descriptor where the system has such."""

    def __init__(self, pid: int, descriptor: int | None) -> None:
        self._pid = pid
        self._descriptor = descriptor

    def wait(self, until: float) -> bool:
        """Wait for its end until a moment of the monotonic clock; return whether it came."""
        if self._descriptor is not None:
            left = max(0.0, until - time.monotonic())
            return bool(select.select([self._descriptor], [], [], left)[0])
        while self._runs():
            if time.monotonic() >= until:
                return False
            time.sleep(_GLANCE)
        return True

    def _runs(self) -> bool:
        if not self._pid:
            return False  # an older node does not say: that it hung up must do
        try:
            return psutil.Process(self._pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True


@contextmanager
def _process(pid: int) -> Iterator[_Process]:
    """Take hold of a process while it lives: afterwards its id may be another's."""
    descriptor = None
    if pid and hasattr(os, "pidfd_open"):
        with suppress(OSError):
            descriptor = os.pidfd_open(pid)
    try:
        yield _Process(pid, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)
