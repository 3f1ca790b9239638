"""What membership nodes say to one another, and its bytes.

Every message is a :class:`Packet`: who speaks (the version of the sender's own record), for pings
and acks where it is, the message proper, and piggybacked news. Layout (little-endian)::

    A5  kind u8  boot epoch u64  incarnation u32  [coordinate 22, pings and acks]
    ping, ack, nack   number u32
    ping request      number u32  target 32
    gossip, records   nothing
    digest            answer wanted u8  first u64  last u64  count u16
                      { id prefix u64  boot epoch u64  incarnation u32  health u8 }
    then records and claims (see records.py) up to the end
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.membership.codec import Reader
from p2pnode.membership.coordinates import COORDINATE_SIZE, Coordinate
from p2pnode.membership.health import Health
from p2pnode.membership.records import NODE_ID_SIZE, News, Version, read_news_untrusted
from p2pnode.sansio import NodeId

MAGIC = 0xA5
"""First byte of every payload; a V-Frame's is 1."""

MAX_MESSAGE = 8192
LAST_PREFIX = (1 << 64) - 1

_HEALTHS = tuple(Health)  # by number: to call the class takes ten times as long


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer me."""

    number: int


@dataclass(frozen=True, slots=True)
class Ack:
    """I do; or: the member you asked about answered me."""

    number: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The member you asked about has not answered me, but I am here (Lifeguard)."""

    number: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ping ``target`` for me."""

    number: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class Gossip:
    """Nothing but the news I bring."""


@dataclass(frozen=True, slots=True)
class Records:
    """Nothing but news too, as the answer to a digest: most of the swarm may know it."""


@dataclass(frozen=True, slots=True)
class DigestEntry:
    """What the sender believes of one node.

    Attributes:
        prefix: The first 8 bytes of its id, as a big-endian number. Ids are keys: nobody finds
            two with one prefix by chance, and by intent only with 2^32 work for two of his own.
        version: The latest of its records that the sender holds.
        health: What the sender thinks of it.
    """

    prefix: int
    version: Version
    health: Health


@dataclass(frozen=True, slots=True)
class Digest:
    """Half of a push/pull: all I know of the ids in a range, in short.

    The receiver sends back the records that the sender lacks; a member of the range that is not
    in ``entries`` is unknown to the sender.

    Attributes:
        answer_wanted: Whether the receiver's own digest of the range is asked for.
        first: Lowest prefix covered.
        last: Highest prefix covered.
        entries: In any order.
    """

    answer_wanted: bool
    first: int
    last: int
    entries: tuple[DigestEntry, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= LAST_PREFIX:
            raise LocalProtocolError(f"no such range: {self.first} to {self.last}")


Message: TypeAlias = Ping | Ack | Nack | PingRequest | Gossip | Digest | Records


@dataclass(frozen=True, slots=True)
class Packet:
    """One message as it travels.

    Attributes:
        version: That of the sender's own record.
        coordinate: Where the sender is; in pings and acks, and there alone.
        message: What it says.
        news: What rides along, most urgent first.
    """

    version: Version
    coordinate: Coordinate | None
    message: Message
    news: tuple[News, ...] = ()


def encode_head(version: Version, coordinate: Coordinate, message: Message) -> bytes:
    """Return the bytes of a message without news; news is appended as it was signed.

    The coordinate is left out where the kind of message carries none.
    """
    kind = _KIND[type(message)]
    place = coordinate.encode() if kind in _PLACED else b""
    return _HEAD.pack(MAGIC, kind, *version) + place + _encode_body(message)


def encode_packet(packet: Packet) -> bytes:
    """Return all the bytes of ``packet``."""
    head = encode_head(packet.version, packet.coordinate or Coordinate(), packet.message)
    return head + b"".join(news.encoded for news in packet.news)


def digest_room(max_bytes: int, news_bytes: int) -> int:
    """Return how many digest entries fit a message of ``max_bytes`` that also brings news."""
    return (max_bytes - news_bytes - _HEAD.size - _DIGEST.size) // _ENTRY.size


def decode_packet_untrusted(data: bytes) -> Packet:
    """Parse one message; the signatures of its news are not looked at yet.

    Raises:
        RemoteProtocolError: For any malformed input, and nothing else ever.
    """
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(f"a membership message of {len(data)} bytes")
    reader = Reader(data)
    magic, number, *version = reader.unpack_untrusted(_HEAD)
    try:
        kind = Kind(number)
    except ValueError as error:
        raise RemoteProtocolError(f"message of unknown kind {number}") from error
    if magic != MAGIC:
        raise RemoteProtocolError(f"not a membership message: {magic:#x}")
    place = None
    if kind in _PLACED:
        place = Coordinate.decode_untrusted(reader.take_untrusted(COORDINATE_SIZE))
    message = _read_body_untrusted(kind, reader)
    news: list[News] = []
    while reader.left:
        news.append(read_news_untrusted(reader))
    return Packet(Version(*version), place, message, tuple(news))


class Kind(IntEnum):
    """The second byte."""

    PING = 1
    ACK = 2
    NACK = 3
    PING_REQUEST = 4
    GOSSIP = 5
    DIGEST = 6
    RECORDS = 7


_KIND: dict[type[Message], Kind] = {
    Ping: Kind.PING,
    Ack: Kind.ACK,
    Nack: Kind.NACK,
    PingRequest: Kind.PING_REQUEST,
    Gossip: Kind.GOSSIP,
    Digest: Kind.DIGEST,
    Records: Kind.RECORDS,
}
_NUMBERED: dict[Kind, type[Ping | Ack | Nack]] = {
    Kind.PING: Ping,
    Kind.ACK: Ack,
    Kind.NACK: Nack,
}
_PLACED = frozenset({Kind.PING, Kind.ACK})
_HEAD = struct.Struct("<BBQI")
_NUMBER = struct.Struct("<I")
_DIGEST = struct.Struct("<?QQH")
_ENTRY = struct.Struct("<QQIB")


def _encode_body(message: Message) -> bytes:
    match message:
        case Ping(number) | Ack(number) | Nack(number):
            return _NUMBER.pack(number)
        case PingRequest(number, target):
            return _NUMBER.pack(number) + target
        case Gossip() | Records():
            return b""
        case Digest(answer_wanted, first, last, entries):
            packed = [_ENTRY.pack(entry.prefix, *entry.version, entry.health) for entry in entries]
            return _DIGEST.pack(answer_wanted, first, last, len(packed)) + b"".join(packed)


def _read_body_untrusted(kind: Kind, reader: Reader) -> Message:
    if kind in _NUMBERED:
        return _NUMBERED[kind](*reader.unpack_untrusted(_NUMBER))
    if kind is Kind.PING_REQUEST:
        (number,) = reader.unpack_untrusted(_NUMBER)
        return PingRequest(number, NodeId(reader.take_untrusted(NODE_ID_SIZE)))
    if kind is Kind.GOSSIP:
        return Gossip()
    if kind is Kind.RECORDS:
        return Records()
    return _read_digest_untrusted(reader)


def _read_digest_untrusted(reader: Reader) -> Digest:
    answer_wanted, first, last, count = reader.unpack_untrusted(_DIGEST)
    packed = reader.take_untrusted(count * _ENTRY.size)
    try:
        entries = tuple(
            DigestEntry(prefix, Version(boot_epoch, incarnation), _HEALTHS[health])
            for prefix, boot_epoch, incarnation, health in _ENTRY.iter_unpack(packed)
        )
        return Digest(answer_wanted, first, last, entries)
    except (IndexError, LocalProtocolError) as error:
        raise RemoteProtocolError(f"malformed digest: {error}") from error
