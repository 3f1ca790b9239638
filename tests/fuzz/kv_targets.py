"""Coded KV caches, and the calibrations they are coded with."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from p2pnode.testing.kv import some_calibration, some_span, some_turns
from p2pnode.wire.entropy import CLASSES, decode_untrusted, encode
from p2pnode.wire.kv_calibration import KvCalibration, KvShape
from p2pnode.wire.kv_codec import (
    batches_to_spans_untrusted,
    decode_span_untrusted,
    encode_span,
    spans_to_batches,
)
from p2pnode.wire.messages import byte_slice
from tests.fuzz.target import MIB, Script, Target, blob

_SHAPE = KvShape(2, 8)
_LAYERS = range(1, 4)
_POSITIONS = range(64)
_SPACE = 1


def entropy(data: bytes) -> None:
    """A row of classes, then the block that is coded with them."""
    script = Script(data)
    classes = np.frombuffer(script.blob(), np.uint8) % CLASSES
    assert len(decode_untrusted(script.take(len(data)), classes)) == len(classes)


def span(data: bytes) -> None:
    read = decode_span_untrusted(
        data, _turns(), _calibration(), layers=_LAYERS, shape=_SHAPE, positions=_POSITIONS
    )
    assert np.isfinite(read.keys).all()
    assert np.isfinite(read.values).all()
    assert read.positions.stop <= _POSITIONS.stop


def spans(data: bytes) -> None:
    """The pieces of a Cache stream, each a slice of bytes."""
    script, pieces = Script(data), []
    while script:
        pieces.append((byte_slice(script.blob()),))
    parts = batches_to_spans_untrusted(pieces)
    assert b"".join(parts) == b"".join(bytes(piece.payload) for [piece] in pieces)


def calibration(data: bytes) -> None:
    read = KvCalibration.from_bytes_untrusted(data, space_hash32=_SPACE)
    again = KvCalibration.from_bytes_untrusted(read.to_bytes(), space_hash32=_SPACE)
    assert again.digest == read.digest


@lru_cache(maxsize=1)
def _calibration() -> KvCalibration:
    return some_calibration(5, _SHAPE, space_hash32=_SPACE)


@lru_cache(maxsize=1)
def _turns() -> "np.ndarray[tuple[int, ...], np.dtype[np.complex64]]":
    return some_turns(_POSITIONS.stop, _SHAPE.head_dim)


# Seeds


def _entropy_seeds() -> Iterator[bytes]:
    for count in (1, 40, 300):
        classes = (np.arange(count) % CLASSES).astype(np.uint8)
        numbers = np.arange(count, dtype=np.int32) * 7 - 100
        yield blob(classes.tobytes()) + encode(numbers, classes)


def _spans() -> Iterator[bytes]:
    for positions in (range(20), range(5, 6)):
        some = some_span(_LAYERS, _SHAPE, positions)
        yield encode_span(some, _turns(), None)
        yield encode_span(some, _turns(), _calibration())


def _stream_seeds() -> Iterator[bytes]:
    batches = spans_to_batches([*_spans()])
    yield b"".join(blob(bytes(piece.payload)) for [piece] in batches)


TARGETS = (
    Target("entropy", entropy, _entropy_seeds, max_len=3000, memory=4 * MIB),
    Target("kv-span", span, _spans, memory=4 * MIB),
    Target("kv-spans", spans, _stream_seeds, max_len=20_000),
    Target(
        "kv-calibration",
        calibration,
        lambda: (some_calibration(2, KvShape(1, 4)).to_bytes(), _calibration().to_bytes()),
        max_len=8000,
        memory=4 * MIB,
    ),
)
