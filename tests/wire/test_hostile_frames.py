"""Numbers at the edges of their fields: refused, cheaply, and never believed."""

import contextlib
import struct
import tracemalloc
from collections.abc import Iterator
from random import Random
from zlib import crc32

import numpy as np
import pytest
import zstandard
from hypothesis import given, strategies as st

from p2pnode.errors import NonceReuseError, RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import byte_slice
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.tensor import group_slices, slices_to_tensor_untrusted
from p2pnode.wire.vframe import (
    MAX_FRAME,
    MAX_INFLATED,
    Flags,
    Frame,
    MessageType,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)
from p2pnode.wire.vstream import Batch, StreamReader, write_stream

KEY, SALT = bytes(range(32)), bytes(range(12))
FEW_BYTES = 2 * MAX_FRAME
"""What refusing a frame may take beyond the frame: far less than any number in it asks for."""

near_u32 = st.integers(2**32 - 9, 2**32 - 1) | st.integers(2**31 - 2, 2**31 + 2)
near_u64 = st.integers(2**64 - 2**10, 2**64 - 1) | st.integers(2**62 - 9, 2**62 + 9)


def raw_frame(
    lengths: list[int], body: bytes, *, flags: int = 0, count: int | None = None
) -> bytes:
    """Return a frame with exactly these numbers in its header, and the right CRC."""
    stated = len(lengths) if count is None else count
    data = struct.pack("<BBHIQQ", 1, 0, flags, 7, 1, stated)
    data += struct.pack(f"<{len(lengths)}I", *lengths) + struct.pack("<IB", 0, 0) + body
    return data + struct.pack("<I", crc32(data))


def raw_slice(dtype: int, dims: tuple[int, ...], payload: bytes) -> bytes:
    return struct.pack(f"<BB{len(dims)}I", dtype, len(dims), *dims) + payload


@contextlib.contextmanager
def at_most(most: int) -> Iterator[None]:
    """Fail if more than so many bytes are held at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= most
    finally:
        tracemalloc.stop()


def refused(data: bytes) -> None:
    with at_most(FEW_BYTES), pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(data)


# Counts and lengths


@given(near_u64, st.binary(max_size=100))
def test_a_count_of_slices_near_its_limit_is_refused(count: int, body: bytes) -> None:
    refused(raw_frame([], body, count=count))


@given(st.integers(0, 60), st.integers(1, 2**14))
def test_a_count_that_wraps_around_is_refused(spare: int, wraps: int) -> None:
    # 4 * count is a small number modulo 2^32 and 2^64.
    for count in ((wraps << 30) + spare, (1 << 62) + spare):
        refused(raw_frame([0] * 8, bytes(64), count=count))


@given(st.lists(near_u32 | st.integers(0, 8), min_size=1, max_size=6), st.integers(0, 7))
def test_lengths_near_their_limit_are_refused(lengths: list[int], flags: int) -> None:
    lengths[-1] = 2**32 - 1
    body = b"".join(raw_slice(DType.I8, (8,), bytes(8)) for _ in lengths)
    for wrapped in (body, zstandard.compress(body)):
        refused(raw_frame(lengths, wrapped, flags=flags & ~Flags.XCHACHA))


@given(near_u32, st.integers(0, 40))
def test_a_length_that_wraps_to_the_body_is_refused(length: int, size: int) -> None:
    refused(raw_frame([length, 2**32 - length + size], raw_slice(DType.I8, (size,), bytes(size))))


def test_as_many_slices_as_fit_are_read_and_not_one_more() -> None:
    most = (MAX_FRAME - 33) // 6  # 4 bytes of length and 2 of head: a scalar sparse tensor of none
    empty = raw_slice(DType.COO, (), b"")
    with at_most(64 * MAX_FRAME):  # an object for each slice: 43 bytes for one of the frame
        frame = decode_frame_untrusted(raw_frame([0] * most, empty * most))
        assert len(frame.slices) == most
    with pytest.raises(RemoteProtocolError, match="ends before"):
        decode_frame_untrusted(raw_frame([0] * most, empty * (most - 1)))
    refused(raw_frame([0] * (most + 1), empty * (most + 1)))


# Dims


dims = st.lists(
    near_u32 | st.sampled_from([2**16, 2**24, 2**31, 0, 1]), min_size=2, max_size=255
).map(tuple)


@given(st.sampled_from(list(DType)), dims, st.integers(0, 16))
def test_dims_whose_product_overflows_are_no_small_tensor(
    dtype: DType, shape: tuple[int, ...], size: int
) -> None:
    data = raw_frame([size], raw_slice(dtype, shape, bytes(size)))
    with contextlib.suppress(RemoteProtocolError), at_most(FEW_BYTES):
        [piece] = decode_frame_untrusted(data).slices
        # What is left has no elements at all, or is sparse and has hardly any values.
        assert 0 in shape or dtype is DType.COO or np.prod([*map(float, shape)]) <= 8 * size
        with contextlib.suppress(RemoteProtocolError):
            assert slices_to_tensor_untrusted([piece]).size <= 8 * size


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("shape", [(2**16,) * 4, (2**32 - 1,) * 2, (2**31, 2), (2**8,) * 8])
def test_a_product_that_is_zero_in_64_bits_is_not_taken_for_none(
    dtype: DType, shape: tuple[int, ...]
) -> None:
    piece = raw_slice(dtype, shape, b"")
    if dtype is not DType.COO:
        refused(raw_frame([0], piece))
        return
    frame = decode_frame_untrusted(raw_frame([0, 0], piece + raw_slice(DType.I8, (0,), b"")))
    with at_most(FEW_BYTES), pytest.raises(RemoteProtocolError):
        slices_to_tensor_untrusted(frame.slices)


# Bombs


@given(
    st.integers(0, 3 * MAX_INFLATED),
    st.lists(st.integers(0, 2**17), min_size=1, max_size=20),
    st.booleans(),
    st.integers(1, 19),
)
def test_a_bomb_takes_no_more_than_its_slices_say(
    size: int, lengths: list[int], says_size: bool, level: int
) -> None:
    compressor = zstandard.ZstdCompressor(level=level, write_content_size=says_size)
    data = raw_frame(lengths, compressor.compress(bytes(size)), flags=Flags.ZSTD)
    room = min(MAX_INFLATED, sum(lengths) + 1022 * len(lengths))
    with at_most(2 * room + FEW_BYTES), pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(data)  # zeros are no slice: dtype 0 is unknown


@given(st.integers(1, 4))
def test_bombs_within_one_another_are_opened_once(depth: int) -> None:
    body = raw_slice(DType.I8, (60_000,), bytes(60_000))
    for _ in range(depth):
        body = zstandard.compress(body)
    data = raw_frame([60_000], body, flags=Flags.ZSTD)
    if depth == 1:
        assert len(decode_frame_untrusted(data).slices[0].payload) == 60_000
    else:
        refused(data)


# Scales


halves = st.sampled_from([0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF, 0x7BFF, 0x0001, 0x0000, 0x3C00])


@given(
    st.sampled_from([DType.I8, DType.Q4, DType.Q2]),
    st.lists(halves, min_size=4, max_size=4),
    st.lists(halves, max_size=4),
)
def test_nan_and_infinities_in_scales_stay_what_they_are_or_are_refused(
    dtype: DType, scales: list[int], minima: list[int]
) -> None:
    size = {DType.I8: 16, DType.Q4: 8, DType.Q2: 4}[dtype]
    slices = [Slice(dtype, (2, 8), bytes(range(size))), f16_bits(scales, (2, 2))]
    if len(minima) == 4:
        slices.append(f16_bits(minima, (2, 2)))
    array = slices_to_tensor_untrusted(slices)  # and not so much as a warning
    assert array.shape == (2, 8)
    if np.isfinite(array).all():
        assert (slices_to_tensor_untrusted(slices, finite=True) == array).all()
    else:
        with pytest.raises(RemoteProtocolError, match="NaN"):
            slices_to_tensor_untrusted(slices, finite=True)


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32, DType.BF16, DType.COO])
@given(data=st.data())
def test_any_bits_are_numbers_or_refused(dtype: DType, data: st.DataObject) -> None:
    size = {DType.F32: 4}.get(dtype, 2) * 6
    payload = data.draw(st.binary(min_size=size, max_size=size))
    slices = [Slice(dtype, (6,), payload)]
    if dtype is DType.COO:
        slices.append(byte_slice(np.arange(6, dtype="<u4").tobytes()))
    array = slices_to_tensor_untrusted(slices)
    with contextlib.suppress(RemoteProtocolError):
        assert np.isfinite(slices_to_tensor_untrusted(slices, finite=True)).all()
        assert np.isfinite(array).all()
    assert group_slices(slices) == [tuple(slices)]


def f16_bits(bits: list[int], shape: tuple[int, ...]) -> Slice:
    return Slice(DType.F16, shape, np.array(bits, "<u2").tobytes())


# Nonces


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3) | st.integers(2**32 - 3, 2**32 - 1),
            st.integers(0, 3) | st.integers(2**64 - 3, 2**64 - 1) | st.integers(2**32, 2**32 + 3),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_no_two_frames_ever_share_a_nonce(numbers: list[tuple[int, int]], compress: bool) -> None:
    sealer, opener = FrameSealer(KEY, SALT), FrameOpener(KEY, SALT)
    used: set[tuple[int, int]] = set()
    for stream_id, frame_seq in numbers:
        frame = Frame(MessageType.THINK, stream_id, frame_seq, 0, slices=(byte_slice(bytes(64)),))
        if (stream_id, frame_seq) in used:
            with pytest.raises(NonceReuseError):
                encode_frame(frame, compress=compress, sealer=sealer)
            continue
        data = encode_frame(frame, compress=compress, sealer=sealer)
        assert decode_frame_untrusted(data, opener=opener) == frame
        used.add((stream_id, frame_seq))


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(4, 15), st.integers(1, 255)
)
def test_a_sealed_frame_opens_under_no_other_number(
    stream_id: int, frame_seq: int, offset: int, change: int
) -> None:
    frame = Frame(MessageType.THINK, stream_id, frame_seq, 0, slices=(byte_slice(b"secret"),))
    data = bytearray(encode_frame(frame, sealer=FrameSealer(KEY, SALT))[:-4])
    data[offset] ^= change
    data += struct.pack("<I", crc32(data))
    with pytest.raises(RemoteProtocolError, match="MAC"):
        decode_frame_untrusted(bytes(data), opener=FrameOpener(KEY, SALT))


# Streams


batches = st.lists(
    st.lists(st.binary(max_size=12).map(byte_slice), min_size=1, max_size=3).map(tuple), max_size=6
)


def some_stream(content: list[Batch]) -> list[Frame]:
    return write_stream(content, kind=MessageType.CACHE, stream_id=9, space_hash32=1)


@given(batches, st.data())
def test_a_stream_with_a_frame_missing_is_never_whole(
    content: list[Batch], data: st.DataObject
) -> None:
    frames = some_stream(content)
    missing = data.draw(st.integers(0, len(frames) - 1))
    rest = frames[:missing] + frames[missing + 1 :]
    data.draw(st.randoms(use_true_random=False)).shuffle(rest)
    reader = StreamReader(9, max_bytes=1000)
    assert [reader.receive_untrusted(frame) for frame in rest] == [None] * len(rest)
    assert reader.receive_untrusted(frames[missing]) == tuple(content)


@given(batches, st.integers(0, 2**32), st.data())
def test_a_doubled_frame_is_refused_and_spoils_nothing(
    content: list[Batch], seed: int, data: st.DataObject
) -> None:
    frames = some_stream(content)
    Random(seed).shuffle(frames)
    reader = StreamReader(9, max_bytes=1000)
    whole = None
    for at, frame in enumerate(frames):
        assert whole is None
        whole = reader.receive_untrusted(frame)
        again = frames[data.draw(st.integers(0, at))]
        with pytest.raises(RemoteProtocolError):
            reader.receive_untrusted(again)
    assert whole == tuple(content)


@given(batches.filter(lambda content: len(content) > 1), st.data())
def test_frames_that_swapped_their_numbers_are_refused_whole(
    content: list[Batch], data: st.DataObject
) -> None:
    one, other = sorted(
        data.draw(st.sets(st.integers(0, len(content) - 1), min_size=2, max_size=2))
    )
    swapped = [*content]
    swapped[one], swapped[other] = content[other], content[one]

    def payload(some: list[Batch]) -> bytes:
        return b"".join(bytes(piece.payload) for batch in some for piece in batch)

    frames = some_stream(content)
    mixed = [frames[0], *some_stream(swapped)[1:-1], frames[-1]]
    reader = StreamReader(9, max_bytes=1000)
    assert [reader.receive_untrusted(frame) for frame in mixed[:-1]] == [None] * (len(mixed) - 1)
    if payload(swapped) == payload(content):
        assert reader.receive_untrusted(mixed[-1]) == tuple(swapped)
    else:
        with pytest.raises(RemoteProtocolError, match="HEAD"):
            reader.receive_untrusted(mixed[-1])
