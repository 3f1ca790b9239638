"""V-Stream: a run of frames that is taken whole or refused whole.

frame_seq 0 is the HEAD, which says how long the payload is and what it hashes to; then come the
frames with slices, and HEARTs where there is nothing to say yet; the last is the TAIL, which
repeats the hash. The payload is that of every slice between HEAD and TAIL, one after another.
Sync frames make no streams.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xxhash

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.layout import HEAD, TAIL, fixed_struct
from p2pnode.wire.vframe import Frame, MessageType, Modality, Slice

MAX_FRAMES = 1 << 16
"""The most frames a reader keeps of one stream. A guess: full frames make 4 GiB of it."""
MAX_SLICES = 1 << 16
"""The most slices a reader keeps of one stream, empty ones too. A guess: a KV cache of 100
layers, a token a batch, has 600 slices a token."""

_HEAD = fixed_struct(HEAD)  # 33 bytes: length, md5, xxh3_64, direction
_TAIL = fixed_struct(TAIL)  # xxh3_64

Batch = tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What a HEAD promises.

    Attributes:
        length: Bytes of the whole payload.
        md5: Of the payload, 16 bytes; against accidents, not against forgers.
        xxh3_64: Of the payload, the same number that the TAIL repeats.
        direction: One byte that the two sides agree on, such as 0 for there and 1 for back.

    Raises:
        LocalProtocolError: A field does not fit its width.
    """

    length: int
    md5: bytes
    xxh3_64: int
    direction: int

    def __post_init__(self) -> None:
        if len(self.md5) != 16:
            raise LocalProtocolError("an md5 has 16 bytes")
        try:
            _HEAD.pack(self.length, self.md5, self.xxh3_64, self.direction)
        except struct.error as error:
            raise LocalProtocolError(f"a HEAD's field is too wide: {error}") from error

    def to_slice(self) -> Slice:
        data = _HEAD.pack(self.length, self.md5, self.xxh3_64, self.direction)
        return Slice(DType.I8, (_HEAD.size,), data)

    @classmethod
    def of_frame_untrusted(cls, frame: Frame) -> "StreamHead":
        """Read a stream's first frame.

        Raises:
            RemoteProtocolError: It has not a HEAD's form.
        """
        if not is_head(frame):
            raise RemoteProtocolError("a stream that does not begin with a HEAD")
        return cls(*_HEAD.unpack(frame.slices[0].payload))


def is_head(frame: Frame) -> bool:
    """Tell whether a frame has a HEAD's form: number 0, no Sync, one I8 slice of 33 bytes."""
    return (
        frame.frame_seq == 0
        and frame.type is not MessageType.SYNC
        and len(frame.slices) == 1
        and frame.slices[0].dtype == DType.I8
        and len(frame.slices[0].payload) == _HEAD.size
    )


def write_stream(
    batches: Sequence[Batch],
    *,
    kind: MessageType,
    stream_id: int,
    space_hash32: int,
    modality: Modality = Modality.TEXT,
    direction: int = 0,
) -> list[Frame]:
    """Return the frames of a stream: a HEAD, one frame for each batch of slices, and a TAIL.

    Raises:
        LocalProtocolError: A Sync, or a batch without slices, which would be a HEART.
    """
    if kind is MessageType.SYNC:
        raise LocalProtocolError("Sync frames make no streams")
    if not all(batches):
        raise LocalProtocolError("a batch without slices")
    head = _digest(batches, direction)
    tail = Slice(DType.I8, (_TAIL.size,), _TAIL.pack(head.xxh3_64))
    contents = [(head.to_slice(),), *batches, (tail,)]
    last = len(contents) - 1
    return [
        Frame(kind, stream_id, number, space_hash32, modality, slices, strong_tail=number == last)
        for number, slices in enumerate(contents)
    ]


class StreamReader:
    """Gathers one stream's frames, in whatever order they come.

    Args:
        stream_id: The stream; a frame of another is refused.
        max_bytes: The most payload to hold, whatever the HEAD promises.
    """

    def __init__(self, stream_id: int, *, max_bytes: int) -> None:
        self._stream_id = stream_id
        self._max_bytes = max_bytes
        self._frames: dict[int, Frame] = {}
        self._head: StreamHead | None = None
        self._tail_seq: int | None = None
        self._held = 0
        self._slices = 0
        self._over = False

    @property
    def head(self) -> StreamHead | None:
        """What the HEAD promised, once it has come."""
        return self._head

    def receive_untrusted(self, frame: Frame) -> tuple[Batch, ...] | None:
        """Take one frame, and return the stream's batches with the one that completes it.

        Raises:
            RemoteProtocolError: The frame does not belong here, and nothing changed; or the
                stream is complete and is not what its HEAD and TAIL promised, and all of it
                is gone.
        """
        self._check_untrusted(frame)
        if frame.frame_seq == 0:
            head = StreamHead.of_frame_untrusted(frame)
            if head.length > self._max_bytes:
                raise RemoteProtocolError(f"a stream of {head.length} bytes")
            self._head = head
        elif frame.strong_tail:
            self._tail_seq = frame.frame_seq
        else:
            held = self._held + _payload_size(frame.slices)
            if held > self._max_bytes or (self._head and held > self._head.length):
                raise RemoteProtocolError("a stream longer than it may be")
            if self._slices + len(frame.slices) > MAX_SLICES:
                raise RemoteProtocolError("a stream of too many slices")
            self._held = held
            self._slices += len(frame.slices)
        self._frames[frame.frame_seq] = frame
        if self._head is None or self._tail_seq is None or len(self._frames) <= self._tail_seq:
            return None
        return self._finish_untrusted(self._head, self._frames[self._tail_seq])

    def _check_untrusted(self, frame: Frame) -> None:
        number = frame.frame_seq
        if self._over or frame.stream_id != self._stream_id:
            raise RemoteProtocolError("a frame of another stream, or of one that is over")
        if number in self._frames or number >= MAX_FRAMES:
            raise RemoteProtocolError("a stream's frame came twice, or its number is too high")
        first = next(iter(self._frames.values()), frame)
        if _kind(frame) != _kind(first) or frame.type is MessageType.SYNC:
            raise RemoteProtocolError("a stream is of one type, space and modality, and no Sync")
        if self._tail_seq is not None and (frame.strong_tail or number > self._tail_seq):
            raise RemoteProtocolError("a frame after the stream's TAIL")
        if frame.strong_tail and max(self._frames, default=0) > number:
            raise RemoteProtocolError("a TAIL before the stream's last frame")
        if frame.strong_tail and number == 0:
            raise RemoteProtocolError("a stream that begins with its TAIL")

    def _finish_untrusted(self, head: StreamHead, tail: Frame) -> tuple[Batch, ...]:
        between = (self._frames[number].slices for number in range(1, tail.frame_seq))
        batches = tuple(slices for slices in between if slices)  # a HEART has none
        self._frames.clear()
        self._over = True
        if _digest(batches, head.direction) != head:
            raise RemoteProtocolError("a stream's length or hash is not what its HEAD promised")
        if _TAIL.unpack(tail.slices[0].payload)[0] != head.xxh3_64:
            raise RemoteProtocolError("a stream's TAIL contradicts its HEAD")
        return batches


def _digest(batches: Iterable[Batch], direction: int) -> StreamHead:
    length = 0
    md5 = hashlib.md5(usedforsecurity=False)
    xxh3 = xxhash.xxh3_64()
    for batch in batches:
        for piece in batch:
            length += len(piece.payload)
            md5.update(piece.payload)
            xxh3.update(piece.payload)
    return StreamHead(length, md5.digest(), xxh3.intdigest(), direction)


def _payload_size(slices: Batch) -> int:
    return sum(len(piece.payload) for piece in slices)


def _kind(frame: Frame) -> tuple[MessageType, int, Modality]:
    return frame.type, frame.space_hash32, frame.modality
