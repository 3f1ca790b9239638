"""What a node says about itself over mDNS, and how little of a stranger's word is believed.

The TXT record holds ``v=1``, ``id`` (the node id in hex), ``tag`` (the swarm tag in hex: a hash,
no secret) and ``name``. All of it is a hint: nothing is true before a handshake succeeded.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import Address, NodeId

SERVICE_TYPE = "_p2pnode._udp.local."
VERSION = b"1"

MAX_TEXT = 1024
"""Bytes of a TXT record that are looked at; ours has about 140."""

MAX_ENTRIES = 16
MAX_NAME = 32
MAX_ADDRESSES = 8
TAG_BYTES = 8
_ID_BYTES = 32
_FRAME_BYTES = (
    81  # header 12, PTR 35, SRV 22 and the TXT record's own head 12, with names of a byte
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A node on the local network, as it describes itself.

    Attributes:
        node_id: Its ed25519 key.
        swarm_tag: 8 bytes that name its swarm and reveal nothing of the secret.
        name: What its owner calls it, at most 32 bytes of printable text.
        addresses: Where it says it listens, 1 to 8 of them, all of one port.

    Raises:
        LocalProtocolError: A field breaks its bound.
    """

    node_id: NodeId
    swarm_tag: bytes
    name: str
    addresses: tuple[Address, ...]

    def __post_init__(self) -> None:
        if len(self.node_id) != _ID_BYTES or len(self.swarm_tag) != TAG_BYTES:
            raise LocalProtocolError("a node id has 32 bytes and a swarm tag 8")
        if not self.name.isprintable() or len(self.name.encode()) > MAX_NAME:
            raise LocalProtocolError(f"a name has at most {MAX_NAME} printable bytes")
        if not 0 < len(self.addresses) <= MAX_ADDRESSES or not 0 < self.port < 65536:
            raise LocalProtocolError(f"an announcement has 1 to {MAX_ADDRESSES} addresses")

    @property
    def port(self) -> int:
        return self.addresses[0][1]

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.addresses]

    @property
    def instance(self) -> str:
        """The service's name; a label has at most 63 bytes, so half of the key must do."""
        return f"{self.node_id.hex()[:32]}.{SERVICE_TYPE}"

    def wire_bytes(self, text_bytes: int) -> int:
        """Return how many bytes this took on the wire at the least, its TXT record given.

        Names after the first are taken as compressed, as RFC 1035 has it.
        """
        addresses = sum(28 if ":" in host else 16 for host in self.hosts)
        return _FRAME_BYTES + text_bytes + addresses

    def text(self) -> bytes:
        """Return the TXT record."""
        entries = (
            b"v=" + VERSION,
            b"id=" + self.node_id.hex().encode(),
            b"tag=" + self.swarm_tag.hex().encode(),
            b"name=" + self.name.encode(),
        )
        return b"".join(bytes([len(entry)]) + entry for entry in entries)


def parse_announcement_untrusted(
    text: bytes, hosts: Sequence[str], port: int | None
) -> Announcement:
    """Believe a stranger's records as far as they make sense.

    Raises:
        RemoteProtocolError: They make none; nothing else ever.
    """
    entries = parse_text_untrusted(text)
    if entries.get(b"v") != VERSION:
        raise RemoteProtocolError("an announcement of another version")
    try:
        return Announcement(
            NodeId(bytes.fromhex(entries[b"id"].decode("ascii"))),
            bytes.fromhex(entries[b"tag"].decode("ascii")),
            entries.get(b"name", b"").decode("utf-8"),
            _usable(hosts, port or 0),
        )
    except (KeyError, ValueError, LocalProtocolError) as error:
        raise RemoteProtocolError(f"a malformed announcement: {error}") from error


def parse_text_untrusted(text: bytes) -> dict[bytes, bytes]:
    """Take a TXT record apart: ``key=value`` entries, each after a byte with its length.

    Of a key said twice the first counts, as RFC 6763 has it.

    Raises:
        RemoteProtocolError: It is longer than its bound, or an entry runs past its end.
    """
    if len(text) > MAX_TEXT:
        raise RemoteProtocolError("a TXT record beyond its bound")
    entries: dict[bytes, bytes] = {}
    position = 0
    while position < len(text):
        end = position + 1 + text[position]
        if end > len(text) or len(entries) >= MAX_ENTRIES:
            raise RemoteProtocolError("a TXT record that does not add up")
        key, _, value = text[position + 1 : end].partition(b"=")
        entries.setdefault(key.lower(), value)
        position = end
    return entries


def _usable(hosts: Sequence[str], port: int) -> tuple[Address, ...]:
    """Keep the addresses one can send to; a multicast one would make us flood for a stranger."""
    found = []
    for host in hosts[: 4 * MAX_ADDRESSES]:
        ip = ipaddress.ip_address(host)
        if not (ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255"):
            found.append((str(ip), port))
    return tuple(dict.fromkeys(found))[:MAX_ADDRESSES]
