"""Where a control socket is: a Unix socket, or a loopback port and a token where there are none.

In both forms something lies at the socket's path that only its owner may open: the socket itself,
or a file with the port and a token. A client sends the token first, as a line; whoever does not
know it is hung up on, for any account of the machine may call a loopback port.
"""

import errno
import hmac
import json
import math
import os
import secrets
import socket
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pnode import system
from p2pnode.errors import UserError
from p2pnode.replacing import replace_file

LOOPBACK: Final = "127.0.0.1"
TOKEN_LINE: Final = 65
"""Bytes of a token's line: 32 random bytes in hex, and its end."""

BETWEEN_TRIES: Final = 0.01
"""Seconds until somebody is let in, where too many wait: the node takes some each turn."""

_MOST_WAITING: Final = 256
"""Connections that the system holds until the node takes them: as many as the HTTP API has."""

_MOST_FILE: Final = 256
_ANSWER: Final = 0.5  # seconds for a loopback port to answer; one that is there takes none


def has_unix_sockets() -> bool:
    """Whether control sockets are Unix sockets here."""
    return hasattr(socket, "AF_UNIX")


@dataclass(frozen=True, slots=True)
class Door:
    """An open control socket.

    Attributes:
        socket: Listens.
        token: The line that a client has to send first; empty where the system keeps others out.
    """

    socket: socket.socket
    token: bytes = field(default=b"", repr=False)

    def admits(self, line: bytes) -> bool:
        """Whether a client's first line is the token; in constant time."""
        return hmac.compare_digest(line, self.token)


@dataclass(frozen=True, slots=True)
class Port:
    """What the file at a control socket's path says, where that is a loopback port."""

    port: int
    token: bytes = field(repr=False)


def listen(path: Path) -> Door:
    """Listen at ``path``, in place of what a dead node left there.

    Raises:
        UserError: Another node listens there.
        OSError: It cannot be opened.
    """
    return _listen_unix(path) if has_unix_sockets() else _listen_loopback(path)


def connect(path: Path, timeout: float | None) -> socket.socket:
    """Return a connection to whoever listens at ``path``, who has been sent the token if need be.

    Raises:
        OSError: Nobody does, or it is not ours.
    """
    if has_unix_sockets():
        until = math.inf if timeout is None else time.monotonic() + timeout
        while (admitted := try_connect(path)) is None:
            if time.monotonic() >= until:
                raise TimeoutError("too many wait at the control socket")
            time.sleep(BETWEEN_TRIES)
        admitted.settimeout(timeout)
        return admitted
    there = read_port(path)
    made = socket.create_connection((LOOPBACK, there.port), timeout=timeout or None)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sendall(there.token)
    except BaseException:
        made.close()
        raise
    return made


def try_connect(path: Path) -> socket.socket | None:
    """Return a connection to a Unix socket that does not block; None while too many wait there.

    Where a socket may block the system lets it wait by itself, but not for a bounded time.

    Raises:
        OSError: Nobody listens there.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.connect(str(path))
    except BlockingIOError:
        made.close()
        return None
    except BaseException:
        made.close()
        raise
    return made


def answers(path: Path) -> bool:
    """Tell whether anybody listens at ``path``."""
    if not has_unix_sockets():
        try:
            connect(path, _ANSWER).close()
        except OSError:
            return False
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its queue is full: busy, not dead
        except OSError:
            return False
        return True


def is_ours(path: Path) -> bool:
    """Tell whether a socket of ours lies at ``path``: a stranger's could answer with anything."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return _is_form(found.st_mode) and system.is_ours(found)


def read_port(path: Path) -> Port:
    """Return what lies at ``path``, where control sockets are loopback ports.

    Raises:
        OSError: Nothing that we wrote.
    """
    descriptor = os.open(path, system.READ | system.NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not system.is_private(found):
            raise OSError(errno.EPERM, "the file of the control socket is not ours alone")
        data = file.read(_MOST_FILE)
    try:
        body = json.loads(data)
        port, token = int(body["port"]), bytes.fromhex(body["token"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise OSError(errno.EINVAL, "the file of the control socket is broken") from error
    line = token.hex().encode() + b"\n"
    if not 0 < port < 65536 or len(line) != TOKEN_LINE:
        raise OSError(errno.EINVAL, "the file of the control socket names no port or no token")
    return Port(port, line)


def _listen_unix(path: Path) -> Door:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(raw, path)
        path.chmod(0o600)  # its directory already lets nobody else in
        raw.listen(_MOST_WAITING)
    except BaseException:
        raw.close()
        raise
    return Door(raw)


def _bind(raw: socket.socket, path: Path) -> None:
    """Bind, replacing the socket that a dead node left behind."""
    try:
        raw.bind(str(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    else:
        return
    if not stat.S_ISSOCK(path.lstat().st_mode) or answers(path):
        raise _taken(path)
    path.unlink()
    raw.bind(str(path))


def _listen_loopback(path: Path) -> Door:
    if path.exists() and answers(path):
        raise _taken(path)
    token = secrets.token_hex(32)
    raw = socket.create_server((LOOPBACK, 0), backlog=16)
    try:
        body = {"port": raw.getsockname()[1], "token": token}
        replace_file(path, json.dumps(body).encode())  # private to us
    except BaseException:
        raw.close()
        raise
    return Door(raw, token.encode() + b"\n")


def _taken(path: Path) -> UserError:
    return UserError(f"another node already listens on {path}", hint="stop it first: p2pnode stop")


def _is_form(mode: int) -> bool:
    return stat.S_ISSOCK(mode) if has_unix_sockets() else stat.S_ISREG(mode)
