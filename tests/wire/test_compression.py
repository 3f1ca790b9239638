"""What inflates is bounded by what is allowed, and by what so few bytes can hold."""

import tracemalloc

import pytest
import zstandard
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.compression import compress, decompress_untrusted

GIB = 1 << 30
UNSTATED = b"\x28\xb5\x2f\xfd\x00\x00"
"""A frame header that does not say how large the content is."""


@pytest.mark.parametrize("body", [b"", b"\x01\0\0", bytes(9), b"\xff" * 9])
def test_a_few_bytes_never_take_a_gibibyte(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decompress_untrusted(UNSTATED + body, at_least=1, at_most=GIB)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_few_bytes_that_state_a_gibibyte_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="states"):
        decompress_untrusted(
            b"\x28\xb5\x2f\xfd\xa0" + GIB.to_bytes(4, "little") + bytes(9), at_least=1, at_most=GIB
        )


@given(
    st.sampled_from([1, 131_071, 131_072, 131_073, 1 << 20, 10_000_000]),
    st.integers(1, 22),
    st.booleans(),
    st.binary(max_size=3),
)
def test_what_inflates_most_is_not_refused(
    size: int, level: int, says_size: bool, tail: bytes
) -> None:
    data = bytes(size) + tail
    frame = zstandard.ZstdCompressor(level=level, write_content_size=says_size).compress(data)
    assert decompress_untrusted(frame, at_least=len(data), at_most=len(data)) == data


def test_an_rle_block_of_the_largest_size_is_not_refused() -> None:
    # The densest frame there is: RLE blocks of 128 KiB, each four bytes.
    block = (131_072 << 3 | 1 << 1).to_bytes(3, "little") + b"a"
    last = (131_072 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"a"
    frame = b"\x28\xb5\x2f\xfd\x00\x38" + block * 99 + last
    assert decompress_untrusted(frame, at_least=0, at_most=GIB) == b"a" * (100 * 131_072)


def test_our_own_frames_state_their_size() -> None:
    assert zstandard.get_frame_parameters(compress(bytes(1000))).content_size == 1000
