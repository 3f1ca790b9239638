"""What members say and sign: a record of oneself, a claim about another.

Both are bound to the swarm by its tag, which is signed with them but not sent: a record of
another swarm does not verify. Both name one :class:`Version` of one node, so neither means
anything for a later life of it: replaying them does nothing.

Layout (little-endian, as V-Frame is)::

    record  01  node id 32  boot epoch u64  incarnation u32  flags u8  addresses u8
            { family u8 (4 or 6)  address 4 or 16  port u16 }  ad length u16  ad  signature 64
    claim   02  accusation u8  claimant 32  subject 32  boot epoch u64  incarnation u32
            signature 64

The signature covers ``p2pnode membership 1``, the swarm's tag, and all that comes before it.
"""

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.membership.codec import Reader
from p2pnode.sansio import Address, NodeId

SIGNED_VERSION = 1
"""Of what is signed; it is part of it, so that no other version's signature is ours."""

MAX_AD = 512
MAX_ADDRESSES = 8
NODE_ID_SIZE = 32
SIGNATURE_SIZE = 64
SWARM_TAG_SIZE = 8

LAST_BOOT_EPOCH = (1 << 64) - 1
LAST_INCARNATION = (1 << 32) - 1

RECORD_TAG = 1
CLAIM_TAG = 2

_REMEMBERED_HOSTS = 1024
"""Addresses whose other form is remembered, each way: to make it costs 2 to 10 us, and every
record of every push/pull holds some. A guess; a stranger who names more has them made again."""

Verify: TypeAlias = Callable[[NodeId, bytes, bytes], bool]
"""``verify(node_id, message, signature)``: whether that node signed that message."""


class Signer(Protocol):
    """Whoever holds this node's key."""

    @property
    def node_id(self) -> NodeId: ...

    def sign(self, message: bytes, /) -> bytes:
        """Return the 64-byte ed25519 signature of ``message``."""


class Version(NamedTuple):
    """Which word of which life of a node; later ones compare greater.

    Attributes:
        boot_epoch: Grows with every start of the node; 64 bits.
        incarnation: Grows with every record it signs in that life; 32 bits.
    """

    boot_epoch: int
    incarnation: int


class Accusation(IntEnum):
    """What a claim says of its subject."""

    SUSPECT = 1
    DEAD = 2


@dataclass(frozen=True, slots=True)
class Record:
    """What a node says about itself.

    Attributes:
        node_id: Its ed25519 verify key.
        incarnation: Grows with every record of one life.
        boot_epoch: Grows with every life.
        addresses: Where it can be reached; at most 8, as plain IP addresses without a scope.
        ad: Whatever it offers, opaque here; at most 512 bytes.
        left: whether this is its departure, the last record of this life.

    Raises:
        LocalProtocolError: A field breaks a bound.
    """

    node_id: NodeId
    incarnation: int
    boot_epoch: int
    addresses: tuple[Address, ...]
    ad: bytes
    left: bool = False

    def __post_init__(self) -> None:
        if len(self.node_id) != NODE_ID_SIZE:
            raise LocalProtocolError("a node id is 32 bytes")
        if not (
            0 <= self.incarnation <= LAST_INCARNATION and 0 <= self.boot_epoch <= LAST_BOOT_EPOCH
        ):
            raise LocalProtocolError(f"no such version: {self.version}")
        if len(self.addresses) > MAX_ADDRESSES or len(self.ad) > MAX_AD:
            raise LocalProtocolError("a record holds at most 8 addresses and an ad of 512 bytes")
        for host, port in self.addresses:
            _pack_address(host, port)

    @property
    def version(self) -> Version:
        return Version(self.boot_epoch, self.incarnation)


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record and the bytes in which it travels, its signature at their end."""

    record: Record
    encoded: bytes

    @property
    def author(self) -> NodeId:
        return self.record.node_id


@dataclass(frozen=True, slots=True)
class Claim:
    """``claimant`` accuses this version of ``subject`` of being silent, or dead."""

    accusation: Accusation
    claimant: NodeId
    subject: NodeId
    version: Version


@dataclass(frozen=True, slots=True)
class SignedClaim:
    """A claim and the bytes in which it travels, its claimant's signature at their end."""

    claim: Claim
    encoded: bytes

    @property
    def author(self) -> NodeId:
        return self.claim.claimant


News: TypeAlias = SignedRecord | SignedClaim


def sign_record(record: Record, signer: Signer, swarm_tag: bytes) -> SignedRecord:
    """Sign our own record."""
    packed = b"".join(_pack_address(host, port) for host, port in record.addresses)
    head = _RECORD.pack(
        RECORD_TAG, record.node_id, *record.version, int(record.left), len(record.addresses)
    )
    body = head + packed + _LENGTH.pack(len(record.ad)) + record.ad
    return SignedRecord(record, body + signer.sign(_signed_text(body, swarm_tag)))


def sign_claim(claim: Claim, signer: Signer, swarm_tag: bytes) -> SignedClaim:
    """Sign our own claim about another."""
    body = _CLAIM.pack(CLAIM_TAG, claim.accusation, claim.claimant, claim.subject, *claim.version)
    return SignedClaim(claim, body + signer.sign(_signed_text(body, swarm_tag)))


def is_genuine(news: News, verify: Verify, swarm_tag: bytes) -> bool:
    """Return whether its author signed it, for this swarm. Costs one signature check."""
    body, signature = news.encoded[:-SIGNATURE_SIZE], news.encoded[-SIGNATURE_SIZE:]
    return verify(news.author, _signed_text(body, swarm_tag), signature)


def read_news_untrusted(reader: Reader) -> News:
    """Parse one record or claim; its signature is not looked at yet.

    Raises:
        RemoteProtocolError: For any malformed input, and nothing else ever.
    """
    start = reader.position
    (tag,) = reader.unpack_untrusted(_TAG)
    try:
        if tag == RECORD_TAG:
            return _read_record(reader, start)
        if tag == CLAIM_TAG:
            return _read_claim(reader, start)
    except (LocalProtocolError, ValueError) as error:
        raise RemoteProtocolError(f"malformed news: {error}") from error
    raise RemoteProtocolError(f"news of unknown kind {tag}")


def short(node_id: NodeId) -> str:
    """Return the start of a node's id, as people see it."""
    return node_id.hex()[:8]


_SIGNED_PREFIX = f"p2pnode membership {SIGNED_VERSION}".encode()
_TAG = struct.Struct("<B")
_RECORD = struct.Struct("<B32sQIBB")
_RECORD_REST = struct.Struct("<32sQIBB")  # after the tag
_CLAIM = struct.Struct("<BB32s32sQI")
_CLAIM_REST = struct.Struct("<B32s32sQI")
_LENGTH = struct.Struct("<H")
_PORT = struct.Struct("<H")
_ADDRESS_SIZE = {4: 4, 6: 16}


def _signed_text(body: bytes, swarm_tag: bytes) -> bytes:
    return _SIGNED_PREFIX + swarm_tag + body


def _read_record(reader: Reader, start: int) -> SignedRecord:
    node_id, boot_epoch, incarnation, flags, count = reader.unpack_untrusted(_RECORD_REST)
    if flags > 1 or count > MAX_ADDRESSES:
        raise RemoteProtocolError("unknown flags or too many addresses")
    addresses = tuple(_read_address(reader) for _ in range(count))
    (length,) = reader.unpack_untrusted(_LENGTH)
    if length > MAX_AD:
        raise RemoteProtocolError(f"an ad of {length} bytes")
    ad = reader.take_untrusted(length)
    reader.take_untrusted(SIGNATURE_SIZE)
    record = Record(NodeId(node_id), incarnation, boot_epoch, addresses, ad, left=flags == 1)
    return SignedRecord(record, reader.since(start))


def _read_claim(reader: Reader, start: int) -> SignedClaim:
    accusation, claimant, subject, *version = reader.unpack_untrusted(_CLAIM_REST)
    reader.take_untrusted(SIGNATURE_SIZE)
    claim = Claim(Accusation(accusation), NodeId(claimant), NodeId(subject), Version(*version))
    return SignedClaim(claim, reader.since(start))


def _read_address(reader: Reader) -> Address:
    (family,) = reader.unpack_untrusted(_TAG)
    if family not in _ADDRESS_SIZE:
        raise RemoteProtocolError(f"an address of family {family}")
    host = _host_of(reader.take_untrusted(_ADDRESS_SIZE[family]))
    (port,) = reader.unpack_untrusted(_PORT)
    return host, port


def _pack_address(host: str, port: int) -> bytes:
    packed = _packed_host(host)
    if not 0 < port < 1 << 16:
        raise LocalProtocolError(f"no such port: {port}")
    return packed + _PORT.pack(port)


@lru_cache(_REMEMBERED_HOSTS)
def _host_of(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


@lru_cache(_REMEMBERED_HOSTS)
def _packed_host(host: str) -> bytes:
    """Return the family and the address.

    Raises:
        LocalProtocolError: It is no address that others could use.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise LocalProtocolError(f"not an IP address: {host!r}") from error
    if getattr(address, "scope_id", None) is not None:
        raise LocalProtocolError(f"a scope means nothing to others: {host!r}")
    return bytes([address.version]) + address.packed
