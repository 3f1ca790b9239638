"""Where to listen, as people write it, and the socket that listens there."""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass

from p2pnode.errors import UserError
from p2pnode.sansio import format_address

LOOPBACK = "127.0.0.1"

_EXAMPLES = "write PORT or HOST:PORT, for instance 8080, 0.0.0.0:8080 or [::1]:8080"
_BRACKETS = "write an IPv6 address in brackets, for instance [::1]:8080"
_BACKLOG = 1024
_LONGEST_HOST = 255
_LEAST_FREE = 1024


@dataclass(frozen=True, slots=True)
class Where:
    """A host as it was written, without brackets, and a port; 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address((self.host, self.port))


def parse_where(text: str) -> Where:
    """Read ``PORT``, ``:PORT``, ``HOST:PORT`` or ``[IPV6]:PORT``; without a host it is loopback.

    Raises:
        UserError: It is none of these.
    """
    host, _, port = text.strip().rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    if ":" in host and not is_bracketed:
        raise UserError(f"not an address: {text[:80]!r}", hint=_BRACKETS)
    if (is_bracketed and ":" not in host) or len(host) > _LONGEST_HOST or not _is_printable(host):
        raise UserError(f"not an address: {text[:80]!r}", hint=_EXAMPLES)
    if not (port.isascii() and port.isdigit()):
        raise UserError(f"no port in {text[:80]!r}", hint=_EXAMPLES)
    if len(port) > 5 or int(port) > 65535:
        raise UserError(f"no such port: {port[:80]!r}", hint="ports go from 0 to 65535")
    return Where(host or LOOPBACK, int(port))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises:
        UserError: That is not possible here.
    """
    family, address = _look_up(host, port)
    # With its protocol named: asyncio turns Nagle's delay off only for such.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two programs have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(Where(host, port), error) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _look_up(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Return the family and address of a host; an IPv4 address where it has several."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"unknown host {host!r}: {why}",
            hint="give an address of this machine, or 0.0.0.0 for all of them",
        ) from error
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]


def _cannot_listen(where: Where, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        hint = (
            "the API of another node, or another program, listens there: choose another port, or 0"
        )
        return UserError(f"{where} is taken", hint=f"{hint} for any free one")
    if error.errno == errno.EACCES and where.port < _LEAST_FREE:
        message = f"{where} may not be had: ports below {_LEAST_FREE} are the system's"
        return UserError(message, hint="choose a port from 1024 on, for instance 8080")
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        message = f"this machine has no address {where.host!r}"
        return UserError(message, hint="127.0.0.1 is for this machine alone, 0.0.0.0 for all")
    return UserError(
        f"cannot listen on {where}: {error.strerror or error}", hint="choose another address"
    )


def _is_printable(host: str) -> bool:
    return host.isprintable() and not any(character in host for character in "[]/@? ")
