"""Invite codes: everything a newcomer needs, in one line that survives being read aloud.

``p2p1-`` and then, in lower-case base32 without padding::

    version 1 | swarm secret 32 | count 1 | count addresses | checksum 4

An address is a kind (4, 6, or the length of a name plus 16), the host's bytes, and the port in
two bytes, big-endian. The checksum is a short BLAKE2s hash of all before it: it catches typing
mistakes, it authenticates nothing.
"""

import base64
import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import NoReturn

from p2pnode.errors import UserError
from p2pnode.sansio import Address, format_address

PREFIX = "p2p1-"
MAX_ADDRESSES = 4
MAX_NAME = 128
SECRET_BYTES = 32

_VERSION = 1
_CHECKSUM_BYTES = 4
_NAME_BASE = 16
_MAX_CODE = 2000
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_MISREAD = str.maketrans("018", "olb")
"""Base32 has no such digits, so each can only be the letter it looks like."""


@dataclass(frozen=True, slots=True)
class Invite:
    """A way into a swarm.

    Attributes:
        secret: The swarm's secret, 32 bytes; whoever holds it is a member.
        addresses: Where members may be found, at most four; IP addresses or host names.

    Raises:
        UserError: An address cannot be written into an invite.
    """

    secret: bytes = field(repr=False)
    addresses: tuple[Address, ...] = ()

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise UserError(f"a swarm secret has {SECRET_BYTES} bytes")
        if len(self.addresses) > MAX_ADDRESSES:
            raise UserError(f"an invite has at most {MAX_ADDRESSES} addresses")
        for host, port in self.addresses:
            if not 0 < port < 65536 or not (_is_ip(host) or _is_name(host)):
                raise UserError(
                    f"{format_address((host, port))} cannot be part of an invite",
                    hint="give an IP address or a host name that others can reach, and its port",
                )


def encode_invite(invite: Invite) -> str:
    """Return the code; the same invite always has the same code."""
    body = bytes([_VERSION]) + invite.secret + bytes([len(invite.addresses)])
    body += b"".join(_encode_address(address) for address in invite.addresses)
    return PREFIX + _base32(body + _checksum(body))


def decode_invite(code: str) -> Invite:
    """Read a code; spaces, dashes, line breaks and case do not matter.

    Raises:
        UserError: It is no invite code, or it was mistyped; the hint says which.
    """
    plain = "".join(code.split()).replace("-", "").lower()
    prefix = PREFIX.removesuffix("-")
    if not plain.startswith(prefix) or len(plain) > _MAX_CODE:
        if re.match(r"p2p[2-9]", plain):
            _refuse("this invite code was made by a newer version", "update p2pnode and try again")
        _refuse("this is not an invite code", f"one begins with {PREFIX}; copy the whole line")
    text = plain.removeprefix(prefix).translate(_MISREAD)
    if len(text) * 5 < (SECRET_BYTES + 2 + _CHECKSUM_BYTES) * 8:
        _refuse("this invite code is incomplete", "copy the whole line, to its last letter")
    data = _from_base32(text)
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if _base32(data) != text:
        _refuse("this invite code is incomplete", "copy the whole line, to its last letter")
    if checksum != _checksum(body):
        _refuse("this invite code has a typing mistake", "copy it instead of typing it")
    if body[0] != _VERSION:
        _refuse("this invite code was made by a newer version", "update p2pnode and try again")
    secret, count = body[1 : 1 + SECRET_BYTES], body[1 + SECRET_BYTES]
    return Invite(secret, _decode_addresses(body[2 + SECRET_BYTES :], count))


def _encode_address(address: Address) -> bytes:
    host, port = address
    if _is_ip(host):
        ip = ipaddress.ip_address(host)
        return bytes([ip.version]) + ip.packed + port.to_bytes(2, "big")
    name = host.encode("ascii")
    return bytes([_NAME_BASE + len(name)]) + name + port.to_bytes(2, "big")


def _decode_addresses(data: bytes, count: int) -> tuple[Address, ...]:
    addresses: list[Address] = []
    while data and len(addresses) < MAX_ADDRESSES:
        kind = data[0]
        size = {4: 4, 6: 16}.get(kind, kind - _NAME_BASE)
        if not 0 < size <= len(data) - 3:
            break
        host = data[1 : 1 + size]
        text = str(ipaddress.ip_address(host)) if kind < _NAME_BASE else host.decode("latin-1")
        addresses.append((text, int.from_bytes(data[1 + size : 3 + size], "big")))
        data = data[3 + size :]
    if data or len(addresses) != count:
        _refuse("this invite code contradicts itself", "ask for a new one")
    return tuple(addresses)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_BYTES, person=b"p2pinvit").digest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def _from_base32(text: str) -> bytes:
    try:
        return base64.b32decode(text.upper().encode("ascii") + b"=" * (-len(text) % 8))
    except ValueError:
        _refuse("this invite code has a typing mistake", "copy it instead of typing it")


def _is_ip(host: str) -> bool:
    """Tell whether it is an address that means the same on every machine, so without a scope."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _is_name(host: str) -> bool:
    return len(host) <= MAX_NAME and _HOST_NAME.fullmatch(host) is not None


def _refuse(message: str, hint: str) -> NoReturn:
    raise UserError(message, hint=hint)
