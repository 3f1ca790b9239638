"""The node that a command means: the one of its state directory, or a word on those elsewhere."""

import shlex
from pathlib import Path

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.settings import state_of
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path
from p2pnode.net.local_nodes import LocalNode, local_nodes
from p2pnode.node.identity import lock_holder
from p2pnode.node.log_file import log_path

_MOST_NAMED = 8


def connect(state: Path | None, command: str) -> ControlClient:
    """Return a connection to the node of ``state``; ``command`` is what was asked, for hints.

    Raises:
        UserError: No node runs there; it names those that run elsewhere on this machine.
    """
    directory = state_of(state)
    try:
        return ControlClient(find_control_path(directory))
    except UserError as error:
        refuse_silent(directory)
        raise _nobody(directory, command, is_chosen=state is not None) from error


def others_than(directory: Path) -> str:
    """Name the nodes that run on this machine with other state directories; empty for none."""
    others = [node for node in local_nodes() if node.state != directory]
    more = f"; and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return "; ".join(_named(node) for node in others[:_MOST_NAMED]) + more


def refuse_silent(directory: Path) -> None:
    """Say so where a node runs on ``directory`` and cannot be reached.

    Raises:
        UserError: It does: its control socket was deleted, say, or the process is stopped.
    """
    pid = lock_holder(directory)
    if pid is not None:
        raise UserError(
            f"a node runs on {directory} (process {pid}), and does not answer",
            hint=f"end it with kill {pid}, and start it again; its log is {log_path(directory)}",
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
