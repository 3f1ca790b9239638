from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.transport.events import Delivery
from p2pnode.transport.frames import Shard
from p2pnode.transport.messages import ID_MASK, ID_SPAN, Outgoing, Reassembly


def shard_of(message: Outgoing, index: int) -> Shard:
    return Shard(
        message.delivery,
        message.id,
        len(message.payload),
        message.count,
        index,
        message.shard(index),
    )


@given(
    seed=st.integers(0, 2**32),
    length=st.integers(0, 5000),
    shard_size=st.integers(50, 1500),
    parity=st.integers(0, 6),
    loss=st.floats(0, 0.6),
)
@settings(max_examples=60)
def test_a_message_survives_any_loss_and_arrives_once(
    seed: int, length: int, shard_size: int, parity: int, loss: float
) -> None:
    rng = Random(seed)
    payload = rng.randbytes(length)
    message = Outgoing(3, payload, Delivery.LATENCY, shard_size, parity)
    reassembly = Reassembly(1 << 20)
    arrived: list[bytes] = []
    in_flight: list[tuple[int, int]] = []
    for step in range(10_000):
        if message.is_done:
            break
        if step == 7:
            message.recut(max(40, shard_size // 2))
        if message.is_waiting:
            index = message.next_index()
            message.on_sent(index)
            in_flight.append((index, message.geometry))
            continue
        index, geometry = in_flight.pop(rng.randrange(0, len(in_flight)))
        if rng.random() < loss:
            message.on_lost(index, geometry)
            continue
        if geometry == message.geometry:
            got, _ = reassembly.add_untrusted(shard_of(message, index))
            arrived += [] if got is None else [got]
        message.on_acked(index, geometry)
    assert message.is_done
    assert arrived == [payload]


def test_shards_of_an_abandoned_cut_do_no_harm() -> None:
    message = Outgoing(0, bytes(range(256)) * 10, Delivery.BULK, 700, 0)
    reassembly = Reassembly(1 << 20)
    coarse = [shard_of(message, index) for index in range(message.count)]
    message.recut(300)
    fine = [shard_of(message, index) for index in range(message.count)]
    for shard in [*coarse[:3], *fine[:-1], coarse[3]]:
        assert reassembly.add_untrusted(shard) == (None, False)
    assert reassembly.add_untrusted(fine[-1]) == (message.payload, False)
    assert reassembly.add_untrusted(fine[-1]) == (None, True)


def test_memory_for_half_messages_is_bounded() -> None:
    reassembly = Reassembly(1000)
    half = Outgoing(0, bytes(100), Delivery.BULK, 50, 0)
    more = Outgoing(1, bytes(100), Delivery.BULK, 50, 0)
    reassembly.add_untrusted(shard_of(half, 0))
    with pytest.raises(RemoteProtocolError):
        reassembly.add_untrusted(shard_of(more, 0))
    reassembly.add_untrusted(shard_of(half, 1))
    assert reassembly.add_untrusted(shard_of(more, 0)) == (None, False)


def test_a_message_far_ahead_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Reassembly(1000).add_untrusted(Shard(Delivery.BULK, ID_SPAN, 1, 1, 0, b"x"))


def test_numbers_begin_again_after_the_last() -> None:
    reassembly = Reassembly(1000)
    reassembly._floor = ID_MASK - 1
    for number in (ID_MASK, ID_MASK - 1, 1, 0):
        payload = b"%d" % number
        shard = Shard(Delivery.BULK, number, len(payload), 1, 0, payload)
        assert reassembly.add_untrusted(shard) == (payload, False)
        assert reassembly.add_untrusted(shard) == (None, True)
    assert reassembly._floor == 2


def test_what_arrived_of_incomplete_messages_is_counted() -> None:
    message = Outgoing(0, bytes(3000), Delivery.LATENCY, 1000, 0)
    reassembly = Reassembly(1 << 20)
    counts = []
    for index in range(3):
        reassembly.add_untrusted(shard_of(message, index))
        counts.append(reassembly.arrived)
    assert counts == [1000, 2000, 0]
