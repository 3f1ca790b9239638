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
import unicodedata
from dataclasses import dataclass, field
from typing import NoReturn

from p2pnode.errors import UserError
from p2pnode.sansio import Address, format_address

PREFIX = "p2p1-"
MAX_ADDRESSES = 4
MAX_NAME = 128
SECRET_BYTES = 32
MAX_PASTED = 20_000
"""Letters of what may be pasted around a code: a mail, not a mailbox."""

_VERSION = 1
_CHECKSUM_BYTES = 4
_NAME_BASE = 16
_MAX_CODE = 2000  # letters
_MAX_STARTS = 16  # places where a code may begin in what was pasted
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


def decode_invite(pasted: str) -> Invite:
    """Find the code in what was pasted, and read it.

    Case does not matter, nor what people and programs put around and into a code: words before
    and after it, quotes, Markdown, marks of quoted mail, dashes of every kind, white space, line
    breaks, letters of no width. Full-width letters are read as what they stand for.

    Raises:
        UserError: It is no invite code, or it was mistyped; the hint says which.
    """
    if len(pasted) > MAX_PASTED:
        _refuse("this is too long for an invite code", "copy the code alone")
    letters = _letters(pasted)
    plain = "".join(letter for letter, _ in letters)
    starts = [match.end() for match in re.finditer(re.escape(PREFIX[:-1]), plain)][:_MAX_STARTS]
    if not starts:
        if re.search(r"p2p[2-9]", plain):
            _refuse("this invite code was made by a newer version", "update p2pnode and try again")
        _refuse("this is not an invite code", f"one begins with {PREFIX}; copy the whole line")
    problems: list[UserError] = []
    for start in starts:
        try:
            return _decode(letters[start : start + _MAX_CODE])
        except UserError as error:
            problems.append(error)
    raise problems[0]


def _letters(pasted: str) -> list[tuple[str, bool]]:
    """Return the letters and digits, each with whether anything stands between it and the next."""
    found: list[tuple[str, bool]] = []
    for letter in unicodedata.normalize("NFKC", pasted).lower():
        if letter.isalnum():
            found.append((letter, False))
        elif found and unicodedata.category(letter) != "Cf":  # those have no width
            found[-1] = (found[-1][0], True)
    return found


def _decode(letters: list[tuple[str, bool]]) -> Invite:
    """Read what follows the prefix: it says itself how long it is.

    Raises:
        UserError: It is mistyped or incomplete.
    """
    text = "".join(letter for letter, _ in letters).translate(_MISREAD)
    size = 2 + SECRET_BYTES
    version, count = _first_bytes(text, size)[0], _first_bytes(text, size)[-1]
    if version != _VERSION or count > MAX_ADDRESSES:
        _mistyped()
    for _ in range(count):
        size += 1 + _host_size(_first_bytes(text, size + 1)[-1]) + 2
    size += _CHECKSUM_BYTES
    data, used = _first_bytes(text, size), _letters_of(size)
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    goes_on = len(letters) > used and not letters[used - 1][1]
    if checksum != _checksum(body) or _base32(data) != text[:used] or goes_on:
        _mistyped()
    return Invite(body[1 : 1 + SECRET_BYTES], _decode_addresses(body[2 + SECRET_BYTES :], count))


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


def _first_bytes(text: str, size: int) -> bytes:
    """Decode as many letters as ``size`` bytes take.

    Raises:
        UserError: There are fewer, or one is no letter of a code.
    """
    needed = _letters_of(size)
    if len(text) < needed:
        _refuse("this invite code is incomplete", "copy the whole line, to its last letter")
    try:
        first = text[:needed].upper().encode("ascii")
        return base64.b32decode(first + b"=" * (-needed % 8))
    except ValueError:
        _mistyped()


def _letters_of(size: int) -> int:
    return -(-size * 8 // 5)


def _host_size(kind: int) -> int:
    size = {4: 4, 6: 16}.get(kind, kind - _NAME_BASE)
    if not 0 < size <= MAX_NAME:
        _mistyped()
    return size


def _mistyped() -> NoReturn:
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
