"""What an acknowledgement covers, and how much work a peer can make of it."""

from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.transport.frames import PING_FRAME, Ack, decode_frames_untrusted
from p2pnode.transport.recovery import _covered

NUMBERS = st.sets(st.integers(0, 60)).map(sorted)


@given(NUMBERS, st.sets(st.integers(0, 60), min_size=1))
def test_what_is_covered_is_what_a_look_at_each_range_finds(
    numbers: list[int], acknowledged: set[int]
) -> None:
    ranges: list[tuple[int, int]] = []
    for number in sorted(acknowledged, reverse=True):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = (number, ranges[-1][1])
        else:
            ranges.append((number, number))
    expected = [one for low, high in ranges for one in numbers if low <= one <= high]
    assert _covered(numbers, tuple(ranges)) == expected


def test_many_ranges_are_one_walk() -> None:
    """32 ranges were 32 walks along all that was lost; a datagram of 16 KiB full of them, 60 ms."""
    looked_at: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(0, 512, 2):
            looked_at.append(number)
            yield number

    ranges = tuple((511 - 4 * at, 511 - 4 * at) for at in range(32))
    assert _covered(numbers(), ranges) == []
    assert len(looked_at) == 256


def test_a_datagram_has_one_acknowledgement() -> None:
    ack = Ack(((3, 7),), 0.0).encode(100)
    assert len(decode_frames_untrusted(ack + PING_FRAME)) == 2
    with pytest.raises(RemoteProtocolError, match="two acknowledgements"):
        decode_frames_untrusted(ack + PING_FRAME + ack)
