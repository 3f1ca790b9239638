"""Batches of activations or tokens, and the Think frames that carry them along an edge.

A *batch* is what one stage computed at once, and what the next must compute at once too: how rows
are grouped decides the last bits of a result. A batch too large for one V-Frame is cut into
several; each says where its batch ends. ``frame_seq`` is the first row's position plus one, since
0 marks a stream's HEAD.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.messages import MAX_CONTEXT
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import MAX_FRAME, Frame, MessageType, Slice

_META = struct.Struct("<II")  # where the batch ends; compute so far along the chain, in us
_TOKEN = struct.Struct("<I")
MAX_BATCH = 512
"""Rows computed at once; bounds how long one batch holds the engine. A prefill takes 64."""

_ROOM = MAX_FRAME - 256  # header, slice heads, CRC and a seal, with room to spare


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive positions computed together.

    Attributes:
        start: Position of the first row.
        rows: How many positions.
        pieces: The rows: tensors [n, d_model] (F16 or F32) or token ids [n, 4] (I8, u32 each), in
            order; more than one only when the batch came in several frames.
        compute_us: Microseconds of engine time spent on it so far, along the whole chain.
    """

    start: int
    rows: int
    pieces: tuple[Slice, ...]
    compute_us: int = 0

    @property
    def end(self) -> int:
        return self.start + self.rows


def token_batch(tokens: tuple[int, ...], start: int, compute_us: int = 0) -> Batch:
    payload = struct.pack(f"<{len(tokens)}I", *tokens)
    piece = Slice(DType.I8, (len(tokens), _TOKEN.size), payload)
    return Batch(start, len(tokens), (piece,), compute_us)


def token_of_untrusted(batch: Batch) -> int:
    """Return the one token of ``batch``.

    Raises:
        RemoteProtocolError: It holds something else.
    """
    piece = batch.pieces[0]
    if len(batch.pieces) != 1 or piece.dtype != DType.I8 or piece.shape != (1, _TOKEN.size):
        raise RemoteProtocolError("a last stage answers with one token a batch")
    return int(_TOKEN.unpack(piece.payload)[0])


def to_frames(batch: Batch, stream: int, space_hash32: int) -> Iterator[Frame]:
    """Cut ``batch`` into frames that fit."""
    meta = Slice(DType.I8, (_META.size,), _META.pack(batch.end, min(batch.compute_us, 0xFFFFFFFF)))
    position = batch.start
    for piece in batch.pieces:
        for part in _cut(piece):
            yield Frame(MessageType.THINK, stream, position + 1, space_hash32, slices=(part, meta))
            position += part.shape[0]


def _cut(piece: Slice) -> Iterator[Slice]:
    rows = piece.shape[0]
    width = len(piece.payload) // rows
    fit = max(1, _ROOM // width)
    if rows <= fit:
        yield piece
        return
    payload = memoryview(piece.payload)
    for first in range(0, rows, fit):
        part = payload[first * width : (first + fit) * width]
        yield Slice(piece.dtype, (len(part) // width, *piece.shape[1:]), part)


@dataclass(slots=True)
class Inbox:
    """Puts the frames of one edge back into batches, in order of position.

    Attributes:
        width: Values in a row: d_model, or 4 where token ids come in.
        dtypes: What the rows may be coded as.
        limit: Positions end here; a frame beyond is refused, so memory is bounded.
        position: Everything below has been handed out.
    """

    width: int
    dtypes: frozenset[int]
    limit: int
    position: int = 0
    _frames: dict[int, tuple[Slice, int, int]] = field(default_factory=dict)
    _rows: int = 0

    def add_untrusted(self, frame: Frame) -> bool:
        """Take a frame; False when its positions were handed out or are here already.

        Raises:
            RemoteProtocolError: It is no piece of a batch on this edge.
        """
        start = frame.frame_seq - 1
        if len(frame.slices) != 2:
            raise RemoteProtocolError("a Think frame of a session has rows and their meta data")
        rows, meta = frame.slices
        if rows.dtype not in self.dtypes or len(rows.shape) != 2 or rows.shape[1] != self.width:
            raise RemoteProtocolError(
                f"rows of dtype {rows.dtype:#x} and shape {rows.shape}, expected width {self.width}"
            )
        if meta.dtype != DType.I8 or len(meta.payload) != _META.size:
            raise RemoteProtocolError("meta data of a wrong size")
        end, compute_us = _META.unpack(meta.payload)
        if not 0 <= start < start + rows.shape[0] <= end <= min(self.limit, MAX_CONTEXT):
            raise RemoteProtocolError(f"positions {start} to {end} do not fit the session")
        if end - start > MAX_BATCH:
            raise RemoteProtocolError(f"a batch of {end - start} rows; the most is {MAX_BATCH}")
        if start < self.position or start in self._frames:
            return False
        if self._rows + rows.shape[0] > self.limit - self.position:
            raise RemoteProtocolError("more rows than the session has room for: frames overlap")
        self._frames[start] = (rows, end, compute_us)
        self._rows += rows.shape[0]
        return True

    def take_batch(self) -> Batch | None:
        """Hand out the next batch if it is complete.

        Raises:
            RemoteProtocolError: The frames contradict each other; they were dropped.
        """
        pieces, position = [], self.position
        while (found := self._frames.get(position)) is not None:
            rows, end, compute_us = found
            pieces.append(rows)
            position += rows.shape[0]
            if position == end:
                batch = Batch(self.position, end - self.position, tuple(pieces), compute_us)
                self._forget_below(end)
                return batch
            if position > end:
                self.skip_to(self.position)
                raise RemoteProtocolError("frames of a batch overlap")
        return None

    def skip_to(self, position: int) -> None:
        """Forget frames of an older epoch; the next batch starts at ``position``."""
        self._frames.clear()
        self._rows = 0
        self.position = position

    def _forget_below(self, position: int) -> None:
        self.position = position
        for start in [start for start in self._frames if start < position]:
            self._rows -= self._frames.pop(start)[0].shape[0]
