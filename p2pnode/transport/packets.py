"""The outermost layer: what a UDP datagram of this transport is.

All integers are little-endian. The first byte tells the kind; everything but DATA ends in a 16-byte
mac1 keyed by the swarm's secret, which costs a microsecond to check, and INIT in a further mac2,
keyed by a cookie (the scheme of WireGuard's paper, section 5.3)::

    INIT      1, pattern u8, sender u32, Noise message 1, mac1, mac2
    RESPONSE  2, sender u32, receiver u32, Noise message 2, mac1
    FINISH    3, receiver u32, Noise message 3, mac1             (XX alone)
    COOKIE    4, receiver u32, nonce 24, sealed cookie 32, mac1
    DATA      5, receiver u32, packet number u64, sealed frames
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import NodeId
from p2pnode.transport.identity import static_key_untrusted
from p2pnode.transport.noise import IK_PSK2, XX_PSK3, Pattern

MAC_SIZE = 16
COOKIE_SIZE = 16
VERSION = 1


class Kind(IntEnum):
    """The first byte of a datagram."""

    INIT = 1
    RESPONSE = 2
    FINISH = 3
    COOKIE = 4
    DATA = 5


DATA_HEADER = struct.Struct("<BIQ")
DATA_OVERHEAD = DATA_HEADER.size + 16
"""Bytes a sealed datagram adds to its frames."""

_INIT = struct.Struct("<BBI")
_RESPONSE = struct.Struct("<BII")
_FINISH = struct.Struct("<BI")
_COOKIE = struct.Struct("<BI24s32s")
_HELLO = struct.Struct("<B32s8sH")
_PATTERNS = (XX_PSK3, IK_PSK2)


_RESPONSE_SIZES = {XX_PSK3: 164, IK_PSK2: 116}
INIT_PADDING = 78
"""Zeros in the INIT of XX, which make it as long as its RESPONSE: a responder sends no more than it
got to an address that proved nothing, and asks for a cookie where that would be more."""


def response_size(pattern: Pattern) -> int:
    """Return the bytes of a RESPONSE, macs included."""
    return _RESPONSE_SIZES[pattern]


class DroppedError(RemoteProtocolError):
    """A datagram was dropped.

    Attributes:
        reason: The counter it falls under, a few words joined by underscores.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason.replace("_", " "))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Init:
    """An initiator's first message; ``sender`` is the index it wants to be answered under."""

    pattern: Pattern
    sender: int
    noise: bytes

    def encode(self) -> bytes:
        return _INIT.pack(Kind.INIT, _PATTERNS.index(self.pattern), self.sender) + self.noise

    @classmethod
    def decode_untrusted(cls, body: bytes) -> "Init":
        """Parse a datagram without its macs."""
        if len(body) < _INIT.size + 32:
            raise DroppedError("handshake_malformed")
        _, pattern, sender = _INIT.unpack_from(body)
        if pattern >= len(_PATTERNS):
            raise DroppedError("handshake_malformed", f"no pattern has the number {pattern}")
        return cls(_PATTERNS[pattern], sender, body[_INIT.size :])

    @property
    def ephemeral(self) -> bytes:
        """The initiator's ephemeral public key: what makes this dial unlike any other."""
        return self.noise[:32]


@dataclass(frozen=True, slots=True)
class Response:
    """The responder's message, to the index ``receiver`` of the initiator."""

    sender: int
    receiver: int
    noise: bytes

    def encode(self) -> bytes:
        return _RESPONSE.pack(Kind.RESPONSE, self.sender, self.receiver) + self.noise

    @classmethod
    def decode_untrusted(cls, body: bytes) -> "Response":
        if len(body) < _RESPONSE.size:
            raise DroppedError("handshake_malformed")
        _, sender, receiver = _RESPONSE.unpack_from(body)
        return cls(sender, receiver, body[_RESPONSE.size :])


@dataclass(frozen=True, slots=True)
class Finish:
    """The initiator's last message of XX."""

    receiver: int
    noise: bytes

    def encode(self) -> bytes:
        return _FINISH.pack(Kind.FINISH, self.receiver) + self.noise

    @classmethod
    def decode_untrusted(cls, body: bytes) -> "Finish":
        if len(body) < _FINISH.size:
            raise DroppedError("handshake_malformed")
        _, receiver = _FINISH.unpack_from(body)
        return cls(receiver, body[_FINISH.size :])


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Sent instead of a response under load: come back with this cookie."""

    receiver: int
    nonce: bytes
    sealed: bytes

    def encode(self) -> bytes:
        return _COOKIE.pack(Kind.COOKIE, self.receiver, self.nonce, self.sealed)

    @classmethod
    def decode_untrusted(cls, body: bytes) -> "CookieReply":
        if len(body) != _COOKIE.size:
            raise DroppedError("handshake_malformed")
        _, receiver, nonce, sealed = _COOKIE.unpack(body)
        return cls(receiver, nonce, sealed)


@dataclass(frozen=True, slots=True)
class Hello:
    """What each side tells the other inside the encrypted handshake.

    Attributes:
        node_id: Its ed25519 key.
        instance: Eight random bytes drawn when its endpoint was made: a process started anew is
            told from one that merely dials again.
        max_datagram: The largest UDP payload it can receive.
    """

    node_id: NodeId
    instance: bytes
    max_datagram: int

    def __post_init__(self) -> None:
        if len(self.instance) != 8 or not 1200 <= self.max_datagram <= 65535:
            raise LocalProtocolError(f"an impossible hello: {self}")

    def encode(self) -> bytes:
        return _HELLO.pack(VERSION, self.node_id, self.instance, self.max_datagram)

    @classmethod
    def decode_untrusted(cls, payload: bytes, static: bytes | None) -> "Hello":
        """Parse a handshake's payload, and check it against the Noise static key proven there."""
        try:
            version, node_id, instance, max_datagram = _HELLO.unpack(payload)
            hello = cls(NodeId(node_id), instance, max_datagram)
        except (struct.error, LocalProtocolError) as error:
            raise DroppedError("handshake_malformed", "a malformed hello") from error
        if version != VERSION:
            raise DroppedError("handshake_version", f"version {version} of the transport")
        if static_key_untrusted(node_id) != static:
            raise DroppedError("handshake_false_identity")
        return hello
