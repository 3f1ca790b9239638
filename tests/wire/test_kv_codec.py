"""A KV cache comes back as near as its steps are fine, wherever it was cut; junk is refused."""

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.testing.kv import some_calibration, some_span, some_turns
from p2pnode.wire.compression import compress
from p2pnode.wire.kv_calibration import KvCalibration, KvShape
from p2pnode.wire.kv_codec import (
    MAX_SPAN,
    KvSpan,
    batches_to_spans_untrusted,
    decode_span_untrusted,
    encode_span,
    spans_to_batches,
)
from p2pnode.wire.messages import byte_slice
from p2pnode.wire.vframe import Frame, MessageType, encode_frame
from p2pnode.wire.vstream import StreamReader, write_stream

SHAPE = KvShape(2, 8)
LAYERS = range(1, 4)
CALIBRATION = some_calibration(5, SHAPE)
TURNS = some_turns(400, 8)
SPAN = some_span(LAYERS, SHAPE, range(20))


def read(data: bytes, calibration: KvCalibration | None = CALIBRATION, **other: Any) -> KvSpan:
    asked: dict[str, Any] = {"layers": LAYERS, "shape": SHAPE, "positions": range(400), **other}
    return decode_span_untrusted(data, TURNS, calibration, **asked)


def through(span: KvSpan, calibration: KvCalibration | None, fineness: int = 0) -> KvSpan:
    data = encode_span(span, TURNS, calibration, fineness=fineness)
    return read(data, calibration, layers=span.layers)


def apart(one: KvSpan, other: KvSpan) -> float:
    gap: npt.NDArray[np.float32] = np.stack([one.keys - other.keys, one.values - other.values])
    return float(np.sqrt(np.square(gap).mean()))


@pytest.mark.parametrize("layers", [range(5), range(2, 3), LAYERS])
@pytest.mark.parametrize("positions", [range(20), range(1), range(7, 40), range(1, 2)])
def test_a_span_comes_back_nearly(layers: range, positions: range) -> None:
    span = some_span(layers, SHAPE, positions)
    found = through(span, CALIBRATION)
    assert (found.layers, found.positions, found.shape) == (layers, positions, SHAPE)
    assert apart(span, found) < 0.04  # a step is a tenth, and rounding costs 1/sqrt(12) of it


def test_four_more_of_fineness_halve_the_error() -> None:
    errors = [apart(SPAN, through(SPAN, CALIBRATION, fineness)) for fineness in (0, 4, 8)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_without_a_calibration_it_travels_in_groups() -> None:
    found = through(SPAN, None)
    assert np.abs(found.keys - SPAN.keys).max() < np.abs(SPAN.keys).max() / 200


def test_the_first_position_travels_in_groups_whatever_it_holds() -> None:
    keys = SPAN.keys.copy()
    keys[:, :, 0] *= 10_000
    found = through(KvSpan(LAYERS, 0, keys, SPAN.values), CALIBRATION)
    gap = np.abs(found.keys - keys)  # [layers, kv_heads, positions, head_dim]
    assert gap[:, :, 0].max() < np.abs(keys).max() / 200
    assert gap[:, :, 1:].max() < 0.3


def test_what_is_unlike_any_calibration_still_comes_back() -> None:
    span = KvSpan(LAYERS, 5, SPAN.keys * 1000, SPAN.values * 1000)
    assert apart(span, through(span, CALIBRATION)) < 0.04


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("calibration", [CALIBRATION, None])
def test_what_is_no_number_is_our_own_mistake(value: float, calibration: Any) -> None:
    for at in (0, 7):
        values = SPAN.values.copy()
        values[1, 1, at, 2] = value
        with pytest.raises(LocalProtocolError, match="no number"):
            encode_span(KvSpan(LAYERS, 0, SPAN.keys, values), TURNS, calibration)


def test_arguments_that_do_not_fit_are_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="calibration is of"):
        encode_span(SPAN, TURNS, some_calibration(5, KvShape(1, 16)))
    with pytest.raises(LocalProtocolError, match="calibration is of"):
        encode_span(SPAN, TURNS, some_calibration(3, SHAPE))
    with pytest.raises(LocalProtocolError, match="rotations"):
        encode_span(SPAN, TURNS[:19], CALIBRATION)
    with pytest.raises(LocalProtocolError, match="fineness 25"):
        encode_span(SPAN, TURNS, CALIBRATION, fineness=25)
    with pytest.raises(LocalProtocolError, match="1025 positions"):
        encode_span(some_span(range(1), SHAPE, range(MAX_SPAN + 1)), TURNS)


def test_a_calibration_is_never_guessed() -> None:
    data = encode_span(SPAN, TURNS, CALIBRATION)
    for other in (None, some_calibration(5, SHAPE, seed=9)):
        with pytest.raises(RemoteProtocolError, match="do not have"):
            read(data, other)


def test_groups_need_no_calibration_and_do_not_mind_one() -> None:
    data = encode_span(SPAN, TURNS)
    assert (read(data, None).keys == read(data, CALIBRATION).keys).all()


@pytest.mark.parametrize(
    "other",
    [
        {"layers": range(3)},
        {"layers": range(1, 5)},
        {"shape": KvShape(8, 2)},
        {"positions": range(19)},
        {"positions": range(1, 400)},
    ],
)
def test_a_span_that_was_not_asked_for_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read(encode_span(SPAN, TURNS, CALIBRATION), **other)


@pytest.mark.parametrize("calibration", [CALIBRATION, None])
def test_a_span_of_another_length_is_refused(calibration: Any) -> None:
    data = encode_span(SPAN, TURNS, calibration)
    for wrong in (data[:-1], data + b"\0", data[:40], data[:3], b""):
        with pytest.raises(RemoteProtocolError):
            read(wrong, calibration)


def test_a_plain_part_that_would_inflate_is_refused() -> None:
    data = bytearray(encode_span(SPAN, TURNS))
    bomb = compress(bytes(10_000_000))
    data[26:30] = len(bomb).to_bytes(4, "little")
    with pytest.raises(RemoteProtocolError, match="zstd body states"):
        read(bytes(data[:34]) + bomb, None)


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        read(junk)
    with contextlib.suppress(RemoteProtocolError):
        batches_to_spans_untrusted([(byte_slice(junk),)])


@pytest.mark.parametrize("calibration", [None, CALIBRATION], ids=["plain", "calibrated"])
def test_a_changed_byte_is_refused_or_gives_numbers(calibration: KvCalibration | None) -> None:
    check_changed_bytes(encode_span(SPAN, TURNS, calibration), calibration)


@settings(max_examples=60)
@given(where=st.integers(0, 10**9), change=st.integers(1, 255), near=st.booleans())
def check_changed_bytes(
    whole: bytes, calibration: KvCalibration | None, where: int, change: int, near: bool
) -> None:
    data = bytearray(whole)
    data[where % (60 if near else len(data))] ^= change
    with contextlib.suppress(RemoteProtocolError):
        found = read(bytes(data), calibration)
        assert np.isfinite(found.keys).all()
        assert found.positions.stop <= 400


def test_spans_travel_in_a_stream_of_frames_that_fit() -> None:
    wide = KvShape(4, 64)
    spans = [some_span(range(3), wide, range(at, at + 100)) for at in (0, 100)]
    turns = some_turns(200, 64)
    coded = [encode_span(span, turns) for span in spans]
    batches = spans_to_batches(coded)
    assert len(batches) > 2
    frames = write_stream(batches, kind=MessageType.CACHE, stream_id=7, space_hash32=1)
    assert all(len(encode_frame(frame)) <= 65536 for frame in frames)
    assert batches_to_spans_untrusted(received(frames)) == coded


def received(frames: list[Frame]) -> Any:
    reader = StreamReader(7, max_bytes=1 << 20)
    return [reader.receive_untrusted(frame) for frame in frames][-1]


def test_a_stream_that_ends_within_a_span_is_refused() -> None:
    data = encode_span(SPAN, TURNS)
    with pytest.raises(RemoteProtocolError, match="wrong length"):
        batches_to_spans_untrusted([(byte_slice(data + data[:-1]),)])
