"""Memory holds: of one peer, of all together, and counted as it really is."""

import tracemalloc
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import LocalProtocolError, QueueFullError, RemoteProtocolError
from p2pnode.sansio import Address
from p2pnode.testing.links import Link
from p2pnode.testing.pair import Endpoints, connected_pair
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import Delivery, PeerUnresponsive
from p2pnode.transport.memory import Pool, Share
from p2pnode.transport.messages import LEAST_SHARD, MOST_PARTIALS, Outgoing, Reassembly
from p2pnode.transport.outbound import Outbound
from p2pnode.transport.packets import DroppedError
from p2pnode.transport.snapshot import TransportSnapshot

SIMULATION = TransportConfig.simulation()
KIB = 1024


def snapshot(peers: Endpoints, address: Address) -> TransportSnapshot:
    return peers.endpoints[address].snapshot(peers.network.now)


def add(
    reassembly: Reassembly, message: int, length: int, count: int, index: int, rng: Random
) -> None:
    """Add a shard of the size that it has in such a cut."""
    size = -(-length // count)
    size = size if index < count - 1 else length - size * (count - 1)
    data = rng.randbytes(size)
    reassembly.add_piece_untrusted(message, Delivery.BULK, length, count, index, data)


def _traced() -> int:
    """Return the bytes that the transport and this test hold, and no other thread's."""
    ours = ("*p2pnode*", "*random.py", __file__)
    snapshot = tracemalloc.take_snapshot()
    traces = snapshot.filter_traces([tracemalloc.Filter(True, name) for name in ours]).traces
    return sum(trace.size for trace in traces)


@pytest.mark.parametrize(
    ("length", "count", "present"),
    [(500, 2, 1), (2_000, 4, 3), (65_536, 58, 57), (65_536, 136, 135), (65_536, 223, 222)],
)
def test_what_unfinished_messages_hold_is_what_is_accounted(
    length: int, count: int, present: int
) -> None:
    rng = Random(1)
    reassembly = Reassembly(1 << 30)
    tracemalloc.start()
    before = _traced()
    for message in range(100):
        for index in range(present):
            add(reassembly, message, length, count, index, rng)
    really = _traced() - before
    tracemalloc.stop()
    assert really < 1.05 * reassembly.share.held
    if present > count / 2 > 2:
        assert really > 0.9 * reassembly.share.held


def test_a_message_may_be_cut_anew_although_others_hold_the_rest() -> None:
    """Less than before, and yet more than a fair part by now: an error of ours ended the node."""
    rng = Random(1)
    pool = Pool(200_000)
    one, length = Reassembly(1 << 30, pool, least_shard=LEAST_SHARD), 30_401
    add(one, 1, length, 100, 0, rng)
    Share(1 << 30, pool).take(30_000)
    Share(1 << 30, pool).take(20_000)
    held = one.share.held
    assert one.share.room == 0
    add(one, 1, length, 101, 0, rng)
    assert 0 < held - one.share.held < 100
    with pytest.raises(DroppedError):
        add(one, 1, length, 110, 0, rng)
    one.release()
    assert pool.held == 50_000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 3), st.integers(1, 65_536), st.integers(1, 223)
        ),
        max_size=40,
    )
)
def test_whatever_peers_send_together_their_memory_adds_up(
    sent: list[tuple[int, int, int, int]],
) -> None:
    rng = Random(1)
    pool = Pool(300_000)
    peers = [Reassembly(150_000, pool, least_shard=LEAST_SHARD) for _ in range(3)]
    for peer, message, length, count in sent:
        size = -(-length // count)
        if count > 1 and size * (count - 1) >= length:
            continue  # no such shard is decoded
        with suppress(DroppedError):
            add(peers[peer], message, length, count, 0, rng)
        assert pool.held == sum(one.share.held for one in peers)


@pytest.mark.parametrize("length", [1, 1_000, 5_000, 65_536])
@pytest.mark.parametrize("shard_size", [485, 1137, 16_320])
def test_what_queued_messages_hold_is_what_is_accounted(length: int, shard_size: int) -> None:
    payloads = [Random(number).randbytes(length) for number in range(50)]
    _queue_and_send(payloads, shard_size)  # what is made once, at first use, is nobody's
    tracemalloc.start()
    before = _traced()
    outbound = _queue_and_send(payloads, shard_size)
    really = _traced() - before + sum(map(len, payloads))
    tracemalloc.stop()
    assert really < 1.1 * outbound.share.held + 2 * KIB


def _queue_and_send(payloads: list[bytes], shard_size: int) -> Outbound:
    outbound = Outbound(SIMULATION, Pool(1 << 30))
    for payload in payloads:
        outbound.add(payload, Delivery.BULK, shard_size, 0.001)
    while message := outbound.next_waiting(1):
        message.on_sent(message.next_index())
    return outbound


def test_one_byte_shards_are_refused() -> None:
    reassembly = Reassembly(1 << 24, least_shard=LEAST_SHARD)
    with pytest.raises(DroppedError, match="223 bytes in 223 shards"):
        add(reassembly, 0, 223, 223, 0, Random(1))
    assert len(reassembly) == reassembly.share.held == 0


@given(length=st.integers(1, 65_536), path=st.sampled_from([548, 1020, 1152, 1200, 1472, 65_507]))
def test_every_honest_cut_is_taken(length: int, path: int) -> None:
    message = Outgoing(0, bytes(length), Delivery.BULK, path - 63, 0)
    reassembly = Reassembly(1 << 20, least_shard=LEAST_SHARD)
    got = [
        reassembly.add_piece_untrusted(
            0, Delivery.BULK, length, message.count, index, message.shard(index)
        )[0]
        for index in range(message.count)
    ]
    assert got[-1] == bytes(length)
    assert reassembly.share.held == 0


def test_unfinished_messages_are_few() -> None:
    reassembly = Reassembly(1 << 30)
    for number in range(MOST_PARTIALS):
        add(reassembly, number, 1000, 2, 0, Random(1))
    with pytest.raises(DroppedError) as refused:
        add(reassembly, MOST_PARTIALS, 1000, 2, 0, Random(1))
    assert refused.value.reason == "reassembly_too_many"
    add(reassembly, 0, 1000, 2, 1, Random(1))
    add(reassembly, MOST_PARTIALS, 1000, 2, 0, Random(1))


def test_messages_delivered_out_of_order_are_remembered_in_little() -> None:
    reassembly = Reassembly(1 << 20)
    tracemalloc.start()
    before = _traced()
    for number in range(1, 16_384):
        reassembly.add_piece_untrusted(number, Delivery.BULK, 1, 1, 0, b"x")
    assert _traced() - before < 16 * KIB
    tracemalloc.stop()
    again = reassembly.add_piece_untrusted(16_000, Delivery.BULK, 1, 1, 0, b"x")
    assert again == (None, True)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 90)), max_size=200))
def test_a_pool_is_never_overdrawn_and_always_has_something_for_the_next(
    wishes: list[tuple[int, int]],
) -> None:
    pool = Pool(1000)
    shares = [Share(180, pool) for _ in range(6)]
    for who, cost in wishes:
        if cost <= shares[who].room:
            shares[who].take(cost)
        else:
            with pytest.raises(LocalProtocolError):
                shares[who].take(cost)
        assert pool.free == 1000 - sum(share.held for share in shares)
        assert pool.free >= 1000 * 0.8**6 - 1
        assert max(share.held for share in shares) <= 180


def test_idle_pieces_of_messages_are_forgotten_and_counted() -> None:
    config = replace(SIMULATION, partial_idle=20.0)
    peers, alice, bob = connected_pair(1, config=config)
    peers.network.intercept = lambda source, _, payload: source != alice or len(payload) < 1000
    peers.send(alice, bob, bytes(5_500), Delivery.BULK)  # only its last shard gets through
    peers.network.run(0.5)
    held = snapshot(peers, bob).receiving_bytes
    assert held == 0  # equal shards: none is small
    peers.network.intercept = None
    peers.network.run(1)
    assert peers.received(bob) == [bytes(5_500)]

    connection = peers.endpoints[bob]._by_peer[peers.node_id(alice)]
    add(connection._reassembly, 7, 1000, 2, 0, Random(1))
    assert snapshot(peers, bob).receiving_bytes > 0
    peers.network.run(40)
    assert snapshot(peers, bob).receiving_bytes == 0
    assert snapshot(peers, bob).counters["partial_message_abandoned"] == 1


def test_mute_peers_together_are_sent_only_what_all_unproven_may_have() -> None:
    config = replace(SIMULATION, unproven_bytes=2048 * KIB)
    peers = Endpoints(2)
    hub = peers.add("hub", config=config)
    mutes = [peers.add(f"mute {number}") for number in range(30)]
    for mute in mutes:
        peers.connect(mute, hub)
        peers.network.run(0.2)
    peers.network.intercept = lambda source, _, __: source == hub
    accepted = refused = 0
    for _ in range(10):
        for mute in mutes:
            try:
                peers.send(hub, mute, bytes(60_000))
                accepted += 60_000
            except QueueFullError:
                refused += 1
    assert refused > 0
    assert accepted <= 2048 * KIB
    assert peers.endpoints[hub].room(peers.node_id(mutes[-1])) < 60_000
    late = peers.add("late")
    peers.network.intercept = lambda source, _, __: source in (hub, late)
    peers.connect(late, hub)
    peers.network.run(0.5)
    assert peers.endpoints[hub].room(peers.node_id(late)) >= 40_000
    peers.network.run(30)
    assert snapshot(peers, hub).sending_bytes == 0


def test_a_peer_that_falls_silent_is_sent_little_until_it_answers() -> None:
    config = replace(SIMULATION, mute_queue_bytes=256 * KIB)
    peers, alice, bob = connected_pair(3, config=config)
    endpoint, peer = peers.endpoints[alice], peers.node_id(bob)
    assert endpoint.room(peer) < 256 * KIB  # nothing was acknowledged yet
    peers.send(alice, bob, b"hello")
    peers.network.run(15)
    assert endpoint.is_proven(peer)
    assert endpoint.room(peer) > 1024 * KIB
    peers.network.partition([alice], [bob])
    peers.send(alice, bob, bytes(1000))
    peers.network.run(2)
    assert any(isinstance(event, PeerUnresponsive) for event in peers.events(alice))
    assert endpoint.room(peer) < 256 * KIB
    peers.network.heal()
    peers.network.run(2)
    assert endpoint.room(peer) > 1024 * KIB


@given(seed=st.integers(0, 2**32), ends=st.booleans())
@settings(max_examples=15, deadline=None)
def test_all_memory_comes_back(seed: int, ends: bool) -> None:
    peers, alice, bob = connected_pair(seed, Link(latency=(0.01, 0.02), rate=1e6, queue=20_000))
    rng = Random(seed)
    for _ in range(20):
        peers.send(alice, bob, rng.randbytes(rng.randrange(60_000)), Delivery(rng.randrange(2)))
        peers.send(bob, alice, rng.randbytes(rng.randrange(60_000)), Delivery(rng.randrange(2)))
        peers.network.run(0.01)
    assert snapshot(peers, alice).sending_bytes > 0
    if ends:
        peers.network.call(alice, lambda now: peers.endpoints[alice].close_all("over", now))
    peers.network.run(20)
    for who in (alice, bob):
        assert snapshot(peers, who).sending_bytes == snapshot(peers, who).receiving_bytes == 0


def test_a_hostile_filler_leaves_room_for_the_others() -> None:
    pool = Pool(1 << 21)
    fillers = [Reassembly(1 << 19, pool) for _ in range(9)]
    rng = Random(1)
    for number in range(200):
        for filler in fillers:
            with suppress(RemoteProtocolError):
                add(filler, number, 60_000, 60, 0, rng)
    honest = Reassembly(1 << 19, pool)
    for index in range(58):
        add(honest, 0, 65_536, 58, index, rng)
    assert honest._floor == 1
