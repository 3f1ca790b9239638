"""A node in the background, begun by a command that waits until it is up, or ends as it did.

The node is a process of its own in a session of its own. Until it is up it says what it has to say
where the command would: an error too, and how far a model is fetched. Its standard input is one end
of a pair of sockets. There it says that it is up, and hears that whoever waited for it has gone.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.own_command import own_command

_ENDING = 5.0  # seconds for a node that is told to end while it starts

_IS_UP = b"\n"


def start_detached(command: str, options: Sequence[str], said: str = "") -> int:
    """Start a node by ``command``, and return 0 once it is up, else the status that it ended with.

    What it met stands on standard error then. ``said`` is for it to read on its standard input. A
    Ctrl-C while it starts ends it.

    Raises:
        UserError: It ended and cannot have said why.
    """
    ours, its = socket.socketpair()
    with ours:
        with its:
            words = [*own_command(), command, *options, "--detached"]
            node = subprocess.Popen(words, stdin=its.fileno(), start_new_session=True)
        try:
            return 0 if _is_up(ours, said) else _status_of(node)
        except BaseException:
            _end(node)
            raise


def begin_detached() -> None:
    """Be a node that a closed terminal does not end, nor a hang-up that is sent as to a daemon."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def leave_starter() -> bool:
    """Say that the node is up, and use the starter's streams no more; return whether it was there.

    From here on standard input, output and error are the null device.
    """
    try:
        os.write(0, _IS_UP)
    except OSError:
        return False
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    return True


def _is_up(node: socket.socket, said: str) -> bool:
    """Wait for the node's word; a node that ended has hung up."""
    with suppress(OSError):  # it ended before it read that
        node.sendall(said.encode())
    try:
        return node.recv(1) == _IS_UP
    except ConnectionError:
        return False  # it left unread what was said


def _status_of(node: "subprocess.Popen[bytes]") -> int:
    status = node.wait()
    if status > 0:
        return status
    how = f"by signal {-status}" if status else "though nothing was wrong"
    raise UserError(
        f"the node ended {how} while it started",
        hint="the same command without --detach shows more; so does its log",
    )


def _end(node: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGINT, signal.SIGKILL):
        node.send_signal(sign)
        with suppress(subprocess.TimeoutExpired):
            node.wait(_ENDING)
            return
