"""Addresses as people write them, as the kernel gives them, and as cores want them.

Cores compare addresses for equality, so there must be one spelling: an IPv4 address is never
spelt as a v4-mapped IPv6 one, and a link-local IPv6 address carries its scope as a number.
"""

import ipaddress
import socket
from typing import Any

import trio

from p2pnode.errors import UserError
from p2pnode.sansio import Address, format_address

__all__ = [
    "MAX_RESOLVED",
    "address_of_sockaddr",
    "format_address",
    "is_loopback",
    "parse_address",
    "resolve",
    "sockaddr_of_address",
]

MAX_RESOLVED = 8
"""Addresses kept of one host name: more than a dual-stack host has, fewer than a joke has."""

_MAPPED = "::ffff:"


def parse_address(text: str, *, default_port: int | None = None) -> Address:
    """Read ``HOST:PORT``, ``[IPV6]:PORT`` or, given ``default_port``, a bare host.

    Raises:
        UserError: It is not an address.
    """
    host, port = _split(text.strip())
    if not port and default_port is not None:
        return host, default_port
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 65536:
        raise UserError(
            f"not an address: {text!r}",
            hint="write HOST:PORT, for instance 192.168.1.20:4747 or [fe80::1%eth0]:4747",
        )
    return host, int(port)


def address_of_sockaddr(sockaddr: tuple[Any, ...]) -> Address:
    """Return the one spelling of what the kernel calls ``sockaddr``."""
    host = sockaddr[0]
    if host.startswith(_MAPPED) and "." in host:
        return host[len(_MAPPED) :], sockaddr[1]
    if len(sockaddr) == 4 and sockaddr[3]:
        return f"{host.partition('%')[0]}%{sockaddr[3]}", sockaddr[1]
    return host, sockaddr[1]


def sockaddr_of_address(address: Address, family: int) -> tuple[Any, ...]:
    """Return what the kernel wants, for a socket of ``family``.

    Raises:
        ValueError: It is not a numeric address, or not one this family reaches. A name is refused
            because looking it up would block the loop.
        OSError: It names an interface that does not exist.
    """
    host, port = address
    ip = ipaddress.ip_address(host)
    if not 0 < port < 65536:
        raise ValueError(f"no such port: {port}")
    if family == socket.AF_INET:
        if ip.version != 4:
            raise ValueError("an IPv4 socket reaches no IPv6 address")
        return host, port
    if isinstance(ip, ipaddress.IPv4Address):
        return _MAPPED + host, port, 0, 0
    return str(ip).partition("%")[0], port, 0, _scope_number(ip.scope_id)


async def resolve(address: Address) -> tuple[Address, ...]:
    """Look up a host name; a numeric address comes back as it is, in its one spelling.

    Raises:
        UserError: The name is unknown.
    """
    host, port = address
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"unknown host {host!r}: {getattr(error, 'strerror', None) or error}",
            hint="check the spelling, or give the IP address",
        ) from error
    addresses = dict.fromkeys(address_of_sockaddr(entry[4]) for entry in found)
    return tuple(addresses)[:MAX_RESOLVED]


def is_loopback(address: Address) -> bool:
    """Tell whether ``address`` never leaves this machine."""
    return ipaddress.ip_address(address[0]).is_loopback


def _split(text: str) -> tuple[str, str]:
    """Part host and port; a bare IPv6 address has no port, for all its colons."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def _scope_number(scope: str | None) -> int:
    if not scope:
        return 0
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
