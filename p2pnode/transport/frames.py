"""What a sealed datagram holds: frames, the last of which runs to the datagram's end.

All integers are little-endian::

    ACK    1, largest u64, delay u16 (16 us), further ranges u8, length u16,
              then for each further range: gap u16, length u16
    DONE   2, message u32                  this message was rebuilt; send no more of it
    PING   3
    CLOSE  4, reason (UTF-8, to the end)
    PROBE  5, padding (to the end)
    DATAGRAM 6, payload (to the end)
    SHARD  7, delivery u8, message u32, length u32, count u8, index u8, shard (to the end)

The highest bit of a SHARD's delivery asks for an acknowledgement as soon as the message is whole.

A range of ``length`` n holds n + 1 packet numbers; a gap of n skips n + 1, as in RFC 9000,
section 19.3.1. A datagram has one ACK at most: each is a walk along all that is in flight.
"""

import struct
from typing import TypeAlias

from p2pnode.errors import LocalProtocolError
from p2pnode.transport.events import MAX_MESSAGE, Delivery
from p2pnode.transport.fec import MAX_DATA, MAX_PARITY
from p2pnode.transport.packets import DroppedError
from p2pnode.values import value

_ACK = struct.Struct("<BQHBH")
_RANGE = struct.Struct("<HH")
_DONE = struct.Struct("<BI")
_SHARD = struct.Struct("<BBIIBB")

_IMMEDIATE_ACK = 0x80
_DELIVERIES = {
    travels | bit: travels
    for travels in (Delivery.LATENCY, Delivery.BULK)
    for bit in (0, _IMMEDIATE_ACK)
}

_LATENCY = int(Delivery.LATENCY)

ACK, DONE, PING, CLOSE, PROBE, DATAGRAM, SHARD = range(1, 8)

_ACK_SIZE = _ACK.size

SHARD_HEADER = _SHARD.size
ACK_ROOM = _ACK.size + 2 * _RANGE.size
"""Left free in every shard's datagram, so that a short acknowledgement can ride along."""
MAX_RANGES = 32
_DELAY_UNIT = 16e-6
_WIDEST = 0xFFFF


@value
class Ack:
    """Packets that arrived.

    Attributes:
        ranges: (lowest, highest) of each run, the newest first; all disjoint, with gaps between.
        delay: Seconds the newest packet waited for this acknowledgement.
    """

    ranges: tuple[tuple[int, int], ...]
    delay: float

    @property
    def largest(self) -> int:
        return self.ranges[0][1]

    def encode(self, room: int) -> bytes:
        """Return the frame, with as many ranges as fit ``room`` bytes."""
        lowest, highest = self.ranges[0]
        if len(self.ranges) == 1:
            return ack_of_run(lowest, highest, self.delay)
        delay = min(int(self.delay / _DELAY_UNIT), _WIDEST)
        first = min(highest - lowest, _WIDEST)
        parts = [b""]
        space = min(MAX_RANGES - 1, (room - _ACK.size) // _RANGE.size)
        edge = highest - min(highest - lowest, _WIDEST)
        for low, high in self.ranges[1:]:
            gap = edge - high - 2
            if len(parts) > space or gap > _WIDEST or edge != lowest:
                break
            parts.append(_RANGE.pack(gap, min(high - low, _WIDEST)))
            lowest, edge = low, high - min(high - low, _WIDEST)
        parts[0] = _ACK.pack(ACK, highest, delay, len(parts) - 1, first)
        return b"".join(parts)


@value
class Done:
    """The peer needs no more shards of this message of ours."""

    message: int


@value
class Ping:
    """Asks for nothing but its acknowledgement."""


@value
class Close:
    """The peer ends the connection."""

    reason: str


@value
class Probe:
    """Padding, to learn whether a datagram of this size arrives."""


@value
class Datagram:
    """A whole message that is sent once."""

    payload: bytes


@value
class Shard:
    """A piece of a message.

    Attributes:
        delivery: LATENCY or BULK.
        message: The message's number on this connection.
        length: Bytes in the whole message.
        count: How many data shards it is cut into, 1 to 223.
        index: Which shard this is: data below ``count``, parity from there on.
        data: All data shards have the same length, but for a shorter last one; parity shards are
            as long as the first.
        immediate_ack: Whether the sender wants to hear at once that the message is whole.
    """

    delivery: Delivery
    message: int
    length: int
    count: int
    index: int
    data: bytes
    immediate_ack: bool = False

    def __post_init__(self) -> None:
        if not (
            self.length <= MAX_MESSAGE
            and 1 <= self.count <= MAX_DATA
            and self.index < self.count + MAX_PARITY
            and len(self.data) == self._expected()
        ):
            raise LocalProtocolError(f"an impossible shard: {self.index} of {self.count}")

    def _expected(self) -> int:
        size = -(-self.length // self.count)
        last = self.length - size * (self.count - 1)
        if self.count > 1 and last < 1:
            return -1
        return last if self.index == self.count - 1 else size


Frame: TypeAlias = Ack | Done | Ping | Close | Probe | Datagram | Shard

PING_FRAME = bytes([PING])

FEW = 4
"""Data shards up to which a message takes the fast path."""

Plain: TypeAlias = tuple[int, int, float, int, int, int, int, bool, bytes | None]
"""An acknowledgement of one range, a data shard of a latency message of few, or both.

The range's lowest and highest number (-1 without one) and its delay; then of the shard the fields
of :class:`Shard`: message, length, count, index, immediate_ack, and its bytes (None without one).
"""


def shard_header(
    delivery: int, message: int, length: int, count: int, index: int, *, immediate_ack: bool = False
) -> bytes:
    if immediate_ack:
        delivery |= _IMMEDIATE_ACK
    return _SHARD.pack(SHARD, delivery, message, length, count, index)


def ack_of_run(lowest: int, highest: int, delay: float) -> bytes:
    """Return the acknowledgement of one range, as :meth:`Ack.encode` has it."""
    waited = min(int(delay / _DELAY_UNIT), _WIDEST)
    return _ACK.pack(ACK, highest, waited, 0, min(highest - lowest, _WIDEST))


def done_frame(message: int) -> bytes:
    return _DONE.pack(DONE, message)


def close_frame(reason: str) -> bytes:
    return bytes([CLOSE]) + reason.encode()[:200]


def probe_frame(size: int) -> bytes:
    """Return a frame of ``size`` bytes in all."""
    return bytes([PROBE]) + bytes(size - 1)


def plain_frames_untrusted(data: bytes) -> Plain | None:
    """Return what nearly every datagram holds; None for all else, and for whatever is wrong.

    What it returns, :func:`decode_frames_untrusted` reads too, and the same.
    """
    size = len(data)
    low = high = message = -1
    delay, at = 0.0, 0
    if size >= _ACK_SIZE and data[0] == ACK:
        _, high, waited, further, length = _ACK.unpack_from(data)
        low = high - length
        if further or low < 0:
            return None
        delay, at = waited * _DELAY_UNIT, _ACK_SIZE
        if at == size:
            return low, high, delay, message, 0, 0, 0, False, None
    body_at = at + SHARD_HEADER
    if body_at > size or data[at] != SHARD:
        return None
    _, delivery, message, length, count, index = _SHARD.unpack_from(data, at)
    if not index < count <= FEW or length > MAX_MESSAGE or delivery & ~_IMMEDIATE_ACK != _LATENCY:
        return None
    each = -(-length // count)
    last = length - each * (count - 1)
    if last < 1 < count or size - body_at != (last if index == count - 1 else each):
        return None
    is_urgent = delivery != _LATENCY
    return low, high, delay, message, length, count, index, is_urgent, data[body_at:]


def decode_frames_untrusted(data: bytes) -> list[Frame]:
    """Parse what a sealed datagram held.

    Raises:
        DroppedError: For any malformed input, and nothing else ever.
    """
    frames: list[Frame] = []
    offset, end = 0, len(data)
    try:
        while offset < end:
            kind = data[offset]
            if kind == SHARD:
                frames.append(_shard(data, offset))
                break
            if kind == ACK:
                if any(isinstance(frame, Ack) for frame in frames):
                    raise DroppedError("frame_malformed", "two acknowledgements in one datagram")
                ack, offset = _ack_untrusted(data, offset)
                frames.append(ack)
            elif kind == DONE:
                frames.append(Done(_DONE.unpack_from(data, offset)[1]))
                offset += _DONE.size
            elif kind == PING:
                frames.append(Ping())
                offset += 1
            else:
                frames.append(_last_untrusted(kind, data[offset + 1 :]))
                break
    except (struct.error, ValueError, LocalProtocolError) as error:
        raise DroppedError("frame_malformed", str(error)) from error
    return frames


def _shard(data: bytes, offset: int) -> Shard:
    _, delivery, message, length, count, index = _SHARD.unpack_from(data, offset)
    travels = _DELIVERIES.get(delivery)
    if travels is None:
        raise LocalProtocolError(f"no shard travels as class {delivery}")
    body = data[offset + _SHARD.size :]
    return Shard(
        travels, message, length, count, index, body, immediate_ack=delivery >= _IMMEDIATE_ACK
    )


def _last_untrusted(kind: int, rest: bytes) -> Frame:
    if kind == DATAGRAM:
        return Datagram(rest)
    if kind == CLOSE:
        return Close(rest[:200].decode(errors="replace"))
    if kind == PROBE:
        return Probe()
    raise DroppedError("frame_malformed", f"no frame is of kind {kind}")


def _ack_untrusted(data: bytes, offset: int) -> tuple[Ack, int]:
    _, largest, delay, further, length = _ACK.unpack_from(data, offset)
    offset += _ACK.size
    low = largest - length
    ranges = [(low, largest)]
    if further >= MAX_RANGES:
        raise DroppedError("frame_malformed", f"{further} ranges in an acknowledgement")
    for _ in range(further):
        gap, length = _RANGE.unpack_from(data, offset)
        offset += _RANGE.size
        high = low - gap - 2
        low = high - length
        ranges.append((low, high))
    if low < 0:
        raise DroppedError("frame_malformed", "a negative packet number is acknowledged")
    return Ack(tuple(ranges), delay * _DELAY_UNIT), offset
