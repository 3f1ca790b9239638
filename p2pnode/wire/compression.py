"""zstd with a bound on what comes out."""

import zstandard

from p2pnode.errors import RemoteProtocolError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_LEVEL = 1  # hidden states hardly compress; a higher level buys 1-2 % for 3-10 times the time
_BLOCK = 128 * 1024  # the most that a zstd block inflates to (RFC 8878, section 3.1.1.2.4)
_BLOCK_BYTES = 4  # the fewest that one takes: its header, and the byte that an RLE block repeats
_UNKNOWN_SIZE = (1 << 64) - 1  # what libzstd calls ZSTD_CONTENTSIZE_UNKNOWN


def compress(data: bytes) -> bytes:
    """Return one zstd frame that names its content size."""
    # A context per call costs 30 us, and a shared one is not safe across threads.
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def decompress_untrusted(data: bytes, *, at_least: int, at_most: int) -> bytes:
    """Inflate exactly one zstd frame of a plausible size.

    Args:
        data: The frame, with nothing after it.
        at_least: The fewest bytes the result may have.
        at_most: The most bytes the result may have; never is more allocated, nor more than
            so short a frame can inflate to.

    Raises:
        RemoteProtocolError: It is no zstd frame, is cut short, has trailing bytes, or inflates
            to a size outside the bounds.
    """
    # Where a frame does not state its size, the library allocates what we allow.
    at_most = min(at_most, len(data) // _BLOCK_BYTES * _BLOCK)
    try:
        stated = zstandard.get_frame_parameters(data).content_size
        # The library allocates what the frame states, whatever max_output_size says.
        if stated != _UNKNOWN_SIZE and not at_least <= stated <= at_most:
            raise RemoteProtocolError(f"a zstd body states {stated} bytes, not what the slices say")
        inflated = zstandard.ZstdDecompressor().decompress(
            data, max_output_size=at_most, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a zstd body does not inflate: {error}") from error
    if not at_least <= len(inflated) <= at_most:
        raise RemoteProtocolError(f"a zstd body inflates to {len(inflated)} bytes")
    return inflated
