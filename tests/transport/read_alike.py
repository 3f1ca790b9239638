"""That the fast path reads frames as the general one does, for its tests and for fuzzing."""

from p2pnode.transport.events import Delivery
from p2pnode.transport.frames import (
    Ack,
    Shard,
    decode_frames_untrusted,
    plain_frames_untrusted,
)
from p2pnode.transport.packets import DroppedError


def assert_read_alike(data: bytes) -> None:
    """Whatever the fast path reads of ``data``, the general one reads too; it may read more."""
    plain = plain_frames_untrusted(data)
    if plain is None:
        return
    low, high, delay, number, length, count, index, is_urgent, body = plain
    expected: list[Ack | Shard] = []
    if high >= 0:
        expected.append(Ack(((low, high),), delay))
    if body is not None:
        latency = Delivery.LATENCY
        expected.append(Shard(latency, number, length, count, index, body, immediate_ack=is_urgent))
    try:
        assert decode_frames_untrusted(data) == expected
    except DroppedError as error:
        raise AssertionError(f"read as {plain}, and refused: {error}") from error
