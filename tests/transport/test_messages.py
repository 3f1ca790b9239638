from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.transport.events import Delivery
from p2pnode.transport.messages import ID_MASK, ID_SPAN, Outgoing, Reassembly


def add(reassembly: Reassembly, message: Outgoing, index: int) -> tuple[bytes | None, bool]:
    return reassembly.add_piece_untrusted(*piece_of(message, index))


def piece_of(message: Outgoing, index: int) -> tuple[int, Delivery, int, int, int, bytes]:
    shard = message.shard(index)
    return message.id, message.delivery, len(message.payload), message.count, index, shard


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
            got, _ = add(reassembly, message, index)
            arrived += [] if got is None else [got]
        message.on_acked(index, geometry)
    assert message.is_done
    assert arrived == [payload]


def test_shards_of_an_abandoned_cut_do_no_harm() -> None:
    message = Outgoing(0, bytes(range(256)) * 10, Delivery.BULK, 700, 0)
    reassembly = Reassembly(1 << 20)
    coarse = [piece_of(message, index) for index in range(message.count)]
    message.recut(300)
    fine = [piece_of(message, index) for index in range(message.count)]
    for piece in [*coarse[:3], *fine[:-1], coarse[3]]:
        assert reassembly.add_piece_untrusted(*piece) == (None, False)
    assert reassembly.add_piece_untrusted(*fine[-1]) == (message.payload, False)
    assert reassembly.add_piece_untrusted(*fine[-1]) == (None, True)


def test_memory_for_half_messages_is_bounded() -> None:
    reassembly = Reassembly(1000)
    half = Outgoing(0, bytes(100), Delivery.BULK, 50, 0)
    more = Outgoing(1, bytes(100), Delivery.BULK, 50, 0)
    add(reassembly, half, 0)
    with pytest.raises(RemoteProtocolError):
        add(reassembly, more, 0)
    add(reassembly, half, 1)
    assert add(reassembly, more, 0) == (None, False)


def test_a_message_far_ahead_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Reassembly(1000).add_piece_untrusted(ID_SPAN, Delivery.BULK, 1, 1, 0, b"x")


def test_numbers_begin_again_after_the_last() -> None:
    reassembly = Reassembly(1000)
    reassembly._floor = ID_MASK - 1
    for number in (ID_MASK, ID_MASK - 1, 1, 0):
        payload = b"%d" % number
        piece = (number, Delivery.BULK, len(payload), 1, 0, payload)
        assert reassembly.add_piece_untrusted(*piece) == (payload, False)
        assert reassembly.add_piece_untrusted(*piece) == (None, True)
    assert reassembly._floor == 2


def test_what_arrived_of_incomplete_messages_is_counted() -> None:
    message = Outgoing(0, bytes(3000), Delivery.LATENCY, 1000, 0)
    reassembly = Reassembly(1 << 20)
    counts = []
    for index in range(3):
        add(reassembly, message, index)
        counts.append(reassembly.arrived)
    assert counts == [1000, 2000, 0]
