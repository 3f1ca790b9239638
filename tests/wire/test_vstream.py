"""A stream is taken whole, in whatever order its frames come, or refused whole."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import xxhash
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.messages import byte_slice
from p2pnode.wire.vframe import Frame, MessageType, decode_frame_untrusted, encode_frame
from p2pnode.wire.vstream import Batch, StreamHead, StreamReader, is_head, write_stream

VECTORS = json.loads(
    Path(__file__).parent.parent.joinpath("vectors", "vframe.json").read_text("utf-8")
)["xxh3_64"]

BATCHES: list[Batch] = [(byte_slice(b"keys"), byte_slice(b"values")), (byte_slice(b""),)]


def some_stream(batches: Sequence[Batch] | None = None) -> list[Frame]:
    return write_stream(
        BATCHES if batches is None else batches,
        kind=MessageType.CACHE,
        stream_id=9,
        space_hash32=1,
        direction=1,
    )


def read(frames: Iterable[Frame], *, max_bytes: int = 1000) -> list[Batch] | None:
    reader = StreamReader(9, max_bytes=max_bytes)
    for frame in frames:
        whole = reader.receive_untrusted(decode_frame_untrusted(encode_frame(frame)))
        if whole is not None:
            return list(whole)
    return None


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: str(len(entry["data"])))
def test_xxh3_is_the_published_one(entry: dict[str, Any]) -> None:
    batches = [(byte_slice(bytes.fromhex(entry["data"])),)]
    head = StreamHead.of_frame_untrusted(some_stream(batches)[0])
    assert head.xxh3_64 == entry["xxh3_64"]


def test_the_head_promises_what_the_tail_repeats() -> None:
    frames = some_stream()
    assert [frame.frame_seq for frame in frames] == [0, 1, 2, 3]
    assert [is_head(frame) for frame in frames] == [True, False, False, False]
    assert [frame.strong_tail for frame in frames] == [False, False, False, True]
    head = StreamHead.of_frame_untrusted(frames[0])
    assert (head.length, head.direction) == (10, 1)
    assert head.xxh3_64 == xxhash.xxh3_64_intdigest(b"keysvalues")
    assert bytes(frames[3].slices[0].payload) == head.xxh3_64.to_bytes(8, "little")


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=3)), st.integers(0, 99))
def test_a_stream_survives_any_order(payloads: list[list[bytes]], seed: int) -> None:
    batches = [tuple(map(byte_slice, batch)) for batch in payloads]
    frames = some_stream(batches)
    Random(seed).shuffle(frames)
    assert read(frames, max_bytes=10_000) == batches


def test_a_heart_takes_a_number_and_says_nothing() -> None:
    frames = some_stream()
    heart = replace(frames[1], slices=(), frame_seq=3)
    assert read([*frames[:3], heart, replace(frames[3], frame_seq=4)]) == BATCHES


def test_an_incomplete_stream_gives_nothing() -> None:
    for missing in range(4):
        frames = some_stream()
        del frames[missing]
        assert read(frames) is None


@pytest.mark.parametrize(
    "change",
    [
        {"length": 11},
        {"md5": bytes(16)},
        {"xxh3_64": 5},
    ],
)
def test_a_broken_promise_refuses_the_whole(change: dict[str, Any]) -> None:
    frames = some_stream()
    head = replace(StreamHead.of_frame_untrusted(frames[0]), **change)
    frames[0] = replace(frames[0], slices=(head.to_slice(),))
    with pytest.raises(RemoteProtocolError, match="HEAD"):
        read(frames)


def test_a_tail_that_contradicts_the_head_refuses_the_whole() -> None:
    frames = some_stream()
    frames[3] = replace(frames[3], slices=(byte_slice(bytes(8)),))
    with pytest.raises(RemoteProtocolError, match="TAIL"):
        read(frames)


def test_a_changed_payload_refuses_the_whole_and_ends_the_reader() -> None:
    frames = some_stream()
    frames[1] = replace(frames[1], slices=(byte_slice(b"keysvaluez"),))
    reader = StreamReader(9, max_bytes=100)
    for frame in frames[:3]:
        assert reader.receive_untrusted(frame) is None
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            reader.receive_untrusted(frames[3])


@pytest.mark.parametrize(
    "change",
    [
        {"stream_id": 8},
        {"space_hash32": 2},
        {"type": MessageType.THINK},
        {"type": MessageType.SYNC},
        {"frame_seq": 0},
        {"frame_seq": 4},
        {"frame_seq": 2**64 - 1},
    ],
)
def test_a_stray_frame_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    head, first, second, tail = some_stream()
    reader = StreamReader(9, max_bytes=100)
    for frame in (head, first, tail):
        reader.receive_untrusted(frame)
    with pytest.raises(RemoteProtocolError):
        reader.receive_untrusted(replace(second, **change))
    assert reader.receive_untrusted(second) == tuple(BATCHES)


def test_a_tail_amid_the_stream_is_refused() -> None:
    head, first, second, tail = some_stream()
    for frames in ([head, second, replace(tail, frame_seq=1)], [replace(tail, frame_seq=0)]):
        with pytest.raises(RemoteProtocolError):
            read([*frames, first])


def test_a_reader_holds_no_more_than_it_may() -> None:
    frames = some_stream()
    with pytest.raises(RemoteProtocolError):
        read(frames, max_bytes=9)
    with pytest.raises(RemoteProtocolError):
        read(frames[1:], max_bytes=9)


def test_what_makes_no_stream_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        some_stream([()])
    with pytest.raises(LocalProtocolError):
        write_stream(BATCHES, kind=MessageType.SYNC, stream_id=1, space_hash32=0)


@given(st.data())
def test_any_frames_are_read_or_refused(data: st.DataObject) -> None:
    frames = some_stream()
    reader = StreamReader(9, max_bytes=100)
    for _ in range(data.draw(st.integers(0, 8))):
        frame = data.draw(st.sampled_from(frames))
        number = data.draw(st.sampled_from([frame.frame_seq, 0, 1, 5]))
        with contextlib.suppress(RemoteProtocolError):
            reader.receive_untrusted(replace(frame, frame_seq=number))
