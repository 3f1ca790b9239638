from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.transport.acks import Arrivals
from p2pnode.transport.events import Delivery
from p2pnode.transport.frames import (
    MAX_RANGES,
    PING_FRAME,
    Ack,
    Close,
    Done,
    Ping,
    Shard,
    close_frame,
    decode_frames_untrusted,
    done_frame,
    shard_header,
)


@given(st.binary(max_size=100))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        decode_frames_untrusted(data)


@given(kind=st.integers(1, 7), rest=st.binary(max_size=60))
def test_any_bytes_behind_a_kind_parse_or_are_refused(kind: int, rest: bytes) -> None:
    with suppress(RemoteProtocolError):
        decode_frames_untrusted(bytes([kind]) + rest)


def ranges_of(numbers: set[int]) -> list[tuple[int, int]]:
    """The runs of consecutive numbers, newest first."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers, reverse=True):
        if runs and runs[-1][0] == number + 1:
            runs[-1] = (number, runs[-1][1])
        else:
            runs.append((number, number))
    return runs


@given(st.sampled_from([Delivery.LATENCY, Delivery.BULK]), st.booleans())
def test_a_shard_may_ask_for_its_acknowledgement(delivery: Delivery, asks: bool) -> None:
    data = shard_header(delivery, 7, 3, 1, 0, immediate_ack=asks) + b"abc"
    assert decode_frames_untrusted(data) == [
        Shard(delivery, 7, 3, 1, 0, b"abc", immediate_ack=asks)
    ]


@given(st.lists(st.integers(0, 120), min_size=1, max_size=80, unique=True))
def test_arrivals_are_told_as_they_came(numbers: list[int]) -> None:
    arrivals = Arrivals(max_delay=0.0, ack_every=1)
    for number in numbers:
        arrivals.record(number, 0.0, wants_ack=True)
    ack = arrivals.take(0.0)
    assert ack is not None
    expected = ranges_of(set(numbers))
    assert list(ack.ranges) == expected[:MAX_RANGES] or len(expected) > MAX_RANGES
    (decoded,) = decode_frames_untrusted(ack.encode(room=1000))
    assert decoded == Ack(ack.ranges, 0.0)
    (short,) = decode_frames_untrusted(ack.encode(room=18))
    assert isinstance(short, Ack)
    assert short.ranges == ack.ranges[:2]


def test_a_wide_run_is_told_in_part() -> None:
    ack = Ack(((10, 200_000), (0, 3)), 0.0)
    (decoded,) = decode_frames_untrusted(ack.encode(room=1000))
    assert decoded == Ack(((200_000 - 0xFFFF, 200_000),), 0.0)


def test_an_acknowledgement_waits_for_company_but_not_for_long() -> None:
    arrivals = Arrivals(max_delay=0.005, ack_every=3)
    due = []
    for number, at in ((0, 1.0), (1, 1.001), (2, 1.002)):
        arrivals.record(number, at, wants_ack=True)
        due.append(arrivals.due)
    assert due == [1.005, 1.005, 1.002]  # the third is one too many to wait
    arrivals.take(1.002)
    assert arrivals.take(1.002) is None
    arrivals.record(4, 1.003, wants_ack=True)
    assert arrivals.due == 1.003  # a hole


def test_several_frames_share_a_datagram() -> None:
    shard = shard_header(Delivery.BULK, 7, 3, 1, 0) + b"abc"
    frames = decode_frames_untrusted(done_frame(5) + PING_FRAME + shard)
    assert frames == [Done(5), Ping(), Shard(Delivery.BULK, 7, 3, 1, 0, b"abc")]
    assert decode_frames_untrusted(close_frame("bye")) == [Close("bye")]


@pytest.mark.parametrize(
    ("length", "count", "index", "size"),
    [
        (70_000, 1, 0, 70_000),  # longer than any message
        (10, 0, 0, 10),  # no shards
        (10, 2, 0, 4),  # too short a shard
        (10, 2, 34, 5),  # no such parity
        (5, 4, 3, 0),  # a cut that leaves nothing for the last
    ],
)
def test_an_impossible_shard_is_refused(length: int, count: int, index: int, size: int) -> None:
    data = shard_header(Delivery.LATENCY, 1, length, count, index) + bytes(size)
    with pytest.raises(RemoteProtocolError):
        decode_frames_untrusted(data)
