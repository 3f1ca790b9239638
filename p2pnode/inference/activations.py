"""Batches of activations or tokens, and the Think frames that carry them along an edge.

A *batch* is what one stage computed at once, and what the next must compute at once too: how rows
are grouped decides the last bits of a result. A batch too large for one V-Frame is cut into
several; each says where its batch ends. ``frame_seq`` is the first row's position plus one, since
0 marks a stream's HEAD.

Rows of a coding with scales are several slices. Those are cut where they are made, each piece with
the scales of its own rows (:mod:`p2pnode.inference.coding`), so a frame can always be read alone.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.messages import MAX_CONTEXT
from p2pnode.values import value
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import MAX_FRAME, Frame, MessageType, Slice

_META = struct.Struct("<II")  # where the batch ends; compute so far along the chain, in us
_CODED_META = struct.Struct("<IIII")  # the same; micronats so far; mask of the codings so far
_TOKEN = struct.Struct("<I")
MAX_BATCH = 512
"""Rows computed at once; bounds how long one batch holds the engine. A prefill takes 64."""

ROOM = MAX_FRAME - 256
"""Payload bytes of a frame: header, slice heads, meta data, CRC and seal fit in the rest."""

MOST_SCALES = 3
"""Slices that a coding may have beside the rows: scales, minima, and one to spare."""

Piece: TypeAlias = tuple[Slice, ...]
"""Some consecutive rows, as one frame or more carries them: the rows, then what their coding
needs."""

_MOST = 0xFFFFFFFF


@value
class Batch:
    """Consecutive positions computed together.

    Attributes:
        start: Position of the first row.
        rows: How many positions.
        pieces: The rows: tensors [n, d_model] or token ids [n, 4] (I8, u32 each), in order; more
            than one only when they do not fit one frame.
        compute_us: Microseconds of engine time spent on it so far, along the whole chain.
        micronats: What the codings along the chain cost this batch, by their senders' estimates,
            in millionths of a nat of KL divergence.
        codings: Mask of the codings (:data:`~p2pnode.inference.terms.CODING_BITS`) that the
            session's states were sent in so far, along the chain; 0 where nobody keeps count.
    """

    start: int
    rows: int
    pieces: tuple[Piece, ...]
    compute_us: int = 0
    micronats: int = 0
    codings: int = 0

    @property
    def end(self) -> int:
        return self.start + self.rows


def token_batch(
    tokens: tuple[int, ...],
    start: int,
    compute_us: int = 0,
    micronats: int = 0,
    codings: int = 0,
    beside: Piece = (),
) -> Batch:
    """Return token ids, with slices ``beside`` them of as many rows."""
    payload = struct.pack(f"<{len(tokens)}I", *tokens)
    ids = Slice(DType.I8, (len(tokens), _TOKEN.size), payload)
    return Batch(start, len(tokens), ((ids, *beside),), compute_us, micronats, codings)


def token_of_untrusted(batch: Batch, beside: int = 0) -> int:
    """Return the one token of ``batch``, which has so many slices ``beside`` it.

    Raises:
        RemoteProtocolError: It holds something else.
    """
    (ids, *rest), *more = batch.pieces
    if len(rest) != beside or more or ids.dtype != DType.I8 or ids.shape != (1, _TOKEN.size):
        raise RemoteProtocolError("a last stage answers with one token a batch")
    return int(_TOKEN.unpack(ids.payload)[0])


def token_of(batch: Batch) -> int:
    """Return the token of a batch that was drawn here."""
    return int(_TOKEN.unpack(batch.pieces[0][0].payload)[0])


def to_frames(batch: Batch, stream: int, space_hash32: int) -> Iterator[Frame]:
    """Cut ``batch`` into frames that fit."""
    meta = _meta(batch)
    position = batch.start
    for piece in batch.pieces:
        is_whole = len(piece[0].payload) <= ROOM or len(piece) > 1
        for part in (piece,) if is_whole else _cut(piece):
            slices = (*part, meta)
            yield Frame(MessageType.THINK, stream, position + 1, space_hash32, slices=slices)
            position += part[0].shape[0]


def _meta(batch: Batch) -> Slice:
    compute_us = min(batch.compute_us, _MOST)
    if not batch.codings:
        return Slice(DType.I8, (_META.size,), _META.pack(batch.end, compute_us))
    micronats = min(batch.micronats, _MOST)
    packed = _CODED_META.pack(batch.end, compute_us, micronats, batch.codings)
    return Slice(DType.I8, (_CODED_META.size,), packed)


def _cut(piece: Piece) -> Iterator[Piece]:
    """Cut plain rows to what a frame holds; those of any other coding were made to fit."""
    whole = piece[0]
    width = len(whole.payload) // whole.shape[0]
    fit = max(1, ROOM // width)
    payload = memoryview(whole.payload)
    for first in range(0, whole.shape[0], fit):
        part = payload[first * width : (first + fit) * width]
        yield (Slice(whole.dtype, (len(part) // width, *whole.shape[1:]), part),)


_Meta: TypeAlias = tuple[int, int, int, int]
"""Where the batch ends; microseconds, micronats and mask of codings as :class:`Batch` has them."""


def _meta_untrusted(meta: Slice) -> _Meta:
    if meta.dtype == DType.I8 and len(meta.payload) == _META.size:
        end, compute_us = _META.unpack(meta.payload)
        return end, compute_us, 0, 0
    if meta.dtype == DType.I8 and len(meta.payload) == _CODED_META.size:
        return _CODED_META.unpack(meta.payload)
    raise RemoteProtocolError("meta data of a wrong size")


@dataclass(slots=True)
class Inbox:
    """Puts the frames of one edge back into batches, in order of position.

    Attributes:
        width: Values in a row: d_model, or 4 where token ids come in.
        dtypes: What the rows may be coded as.
        limit: Positions end here; a frame beyond is refused, so memory is bounded.
        scales: Slices that a frame may have beside its rows and the meta data.
        position: Everything below has been handed out.
    """

    width: int
    dtypes: frozenset[int]
    limit: int
    scales: int = 0
    position: int = 0
    _frames: dict[int, tuple[Piece, _Meta]] = field(default_factory=dict)
    _rows: int = 0

    def add_untrusted(self, frame: Frame) -> bool:
        """Take a frame; False when its positions were handed out or are here already.

        Raises:
            RemoteProtocolError: It is no piece of a batch on this edge.
        """
        start = frame.frame_seq - 1
        if not 2 <= len(frame.slices) <= 2 + self.scales:
            raise RemoteProtocolError("a Think frame of a session has rows and their meta data")
        piece = frame.slices[:-1]
        rows = piece[0]
        if rows.dtype not in self.dtypes or len(rows.shape) != 2 or rows.shape[1] != self.width:
            raise RemoteProtocolError(
                f"rows of dtype {rows.dtype:#x} and shape {rows.shape}, expected width {self.width}"
            )
        if len(piece) > 1 and any(one.shape[:1] != rows.shape[:1] for one in piece):
            raise RemoteProtocolError("scales of other rows than the frame's")
        meta = _meta_untrusted(frame.slices[-1])
        end = meta[0]
        if not 0 <= start < start + rows.shape[0] <= end <= min(self.limit, MAX_CONTEXT):
            raise RemoteProtocolError(f"positions {start} to {end} do not fit the session")
        if end - start > MAX_BATCH:
            raise RemoteProtocolError(f"a batch of {end - start} rows; the most is {MAX_BATCH}")
        if start < self.position or start in self._frames:
            return False
        if self._rows + rows.shape[0] > self.limit - self.position:
            raise RemoteProtocolError("more rows than the session has room for: frames overlap")
        self._frames[start] = (piece, meta)
        self._rows += rows.shape[0]
        return True

    @property
    def rows(self) -> int:
        """Rows that are here and wait for the rest of their batch."""
        return self._rows

    @property
    def has_batch(self) -> bool:
        """Whether the next batch is one frame that is here: of tokens none is more."""
        found = self._frames.get(self.position)
        return found is not None and self.position + found[0][0].shape[0] == found[1][0]

    def take_batch(self) -> Batch | None:
        """Hand out the next batch if it is complete.

        Raises:
            RemoteProtocolError: The frames contradict each other; they were dropped.
        """
        starts: list[int] = []
        pieces: list[Piece] = []
        position = self.position
        while (found := self._frames.get(position)) is not None:
            piece, meta = found
            end = meta[0]
            starts.append(position)
            pieces.append(piece)
            position += piece[0].shape[0]
            if position == end:
                batch = Batch(self.position, end - self.position, tuple(pieces), *meta[1:])
                self._hand_out(starts, end)
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

    def _hand_out(self, starts: list[int], end: int) -> None:
        """Forget the frames of a batch, and nothing else: a look at all is work that others choose.

        What overlaps them stays, and counts, until the next epoch: no honest frame does.
        """
        for start in starts:
            del self._frames[start]
        self._rows -= end - self.position
        self.position = end
