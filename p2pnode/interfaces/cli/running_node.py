"""The node that a command means: the one of its state directory, or a word on those elsewhere."""

import shlex
import time
from contextlib import suppress
from pathlib import Path

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import note
from p2pnode.interfaces.cli.settings import state_of
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path
from p2pnode.net.local_nodes import LocalNode, local_nodes
from p2pnode.node.identity import lock_holder
from p2pnode.node.log_file import log_path

_MOST_NAMED = 8

BETWEEN = 10.0
"""Seconds for which a node that is starting or leaving is waited for: reading a model takes one or
two, and a farewell one. Its first start, which hashes the model's file, may take longer."""

ANSWERING = 10.0
"""Seconds for which an answer of a node is waited for that takes it no time."""

_GLANCE = 0.1


def connect(
    state: Path | None, command: str, *, timeout: float | None = ANSWERING
) -> ControlClient:
    """Return a connection to the node of ``state``; ``command`` is what was asked, for hints.

    ``timeout`` bounds every wait for it, in seconds; None does not.

    Raises:
        UserError: No node runs there; it names those that run elsewhere on this machine.
    """
    directory = state_of(state)
    client = reach(directory, timeout=timeout)
    if client is None:
        error = _nobody(directory, command, is_chosen=state is not None)
        if state is not None and command == "stop":  # no other is to end for it
            error.hint = "nothing is left to stop there"
        raise error
    return client


def reach(directory: Path, *, timeout: float | None = ANSWERING) -> ControlClient | None:
    """Return a connection to the node of ``directory``, or None where none runs.

    One that is starting or leaving holds its directory, and answers nobody: it is waited for.

    Raises:
        UserError: It does not answer for :data:`BETWEEN` seconds.
    """
    until, is_told = time.monotonic() + BETWEEN, False
    while True:
        with suppress(UserError):
            return ControlClient(find_control_path(directory), timeout=timeout)
        pid = lock_holder(directory)
        if pid is None:
            return None
        if time.monotonic() >= until:
            raise _silent(directory, pid)
        if not is_told:
            note(f"the node of {directory} (process {pid}) is starting or leaving: waiting for it")
            is_told = True
        time.sleep(_GLANCE)


def others_than(directory: Path) -> str:
    """Name the nodes that run on this machine with other state directories; empty for none."""
    others = [node for node in local_nodes() if node.state != directory]
    more = f"; and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return "; ".join(_named(node) for node in others[:_MOST_NAMED]) + more


def _silent(directory: Path, pid: int) -> UserError:
    """Explain that a node runs and cannot be reached: its control socket was deleted, say."""
    return UserError(
        f"a node runs on {directory} (process {pid}), and does not answer",
        hint="wait, if it reads a large model for the first time; or end it with "
        f"kill {pid}, and start it again; its log is {log_path(directory)}",
    )


def _nobody(directory: Path, command: str, *, is_chosen: bool) -> UserError:
    others = [node for node in local_nodes() if node.state != directory]
    problem = f"no node runs on {directory}"
    if not others:
        chosen = f" --state {shlex.quote(str(directory))}" if is_chosen else ""
        return UserError(problem, hint=f"start one: p2pnode up{chosen}")
    there = f"p2pnode {command} --state {shlex.quote(str(others[0].state))}"
    if len(others) == 1:
        return UserError(f"{problem}; one runs on {_named(others[0])}", hint=there)
    named = "; ".join(_named(node) for node in others[:_MOST_NAMED])
    more = f"; and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return UserError(
        f"no node runs on {directory}; {len(others)} run elsewhere: {named}{more}",
        hint=f"choose one of them, e.g. {there}",
    )


def _named(node: LocalNode) -> str:
    return f"{node.state} ({node.name}, process {node.pid})"
