from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import ConfigError, LocalProtocolError, QueueFullError
from p2pnode.sansio import Address
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link
from p2pnode.testing.pair import Endpoints, connected_pair
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import (
    Delivery,
    PeerConnected,
    PeerDisconnected,
    PeerResponsive,
    PeerUnresponsive,
)
from p2pnode.transport.parity import CLEAN
from p2pnode.transport.snapshot import ConnectionView

ROUGH = Link(latency=(0.001, 0.003), reorder=0.05, reorder_by=0.01, duplicate=0.02)
SIMULATION = TransportConfig.simulation()


def view(peers: Endpoints, address: Address) -> ConnectionView:
    (connection,) = peers.endpoints[address].snapshot(peers.network.now).connections
    return connection


def messages(seed: int, sizes: list[int]) -> Iterator[bytes]:
    rng = Random(seed)
    return (rng.randbytes(size) for size in sizes)


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("delivery", [Delivery.LATENCY, Delivery.BULK])
@pytest.mark.parametrize(("size", "count"), [(1200, 100), (65536, 8)])
def test_messages_arrive_whole_and_once(
    loss: float, delivery: Delivery, size: int, count: int
) -> None:
    peers, alice, bob = connected_pair(1, replace(ROUGH, loss=Bernoulli(loss)))
    sent = list(messages(2, [size] * count))
    for payload in sent:
        peers.send(alice, bob, payload, delivery)
        peers.network.run(0.002)
    assert peers.network.run_until(lambda: len(peers.received(bob)) >= count, 20)
    peers.network.run(3)
    assert sorted(peers.received(bob)) == sorted(sent)
    settled = view(peers, alice)
    assert settled.queued == settled.in_flight == 0


@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.3),
    burst=st.floats(1, 5),
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=8),
    fec=st.booleans(),
)
@settings(max_examples=30)
def test_any_messages_both_ways_over_any_link(
    seed: int, loss: float, burst: float, sizes: list[int], fec: bool
) -> None:
    chain = GilbertElliott(loss / burst / (1 - loss), 1 / burst)
    link = replace(ROUGH, loss=chain, corrupt=0.02)
    peers, alice, bob = connected_pair(seed, link, config=replace(SIMULATION, fec=fec))
    sent = list(messages(seed, sizes))
    for number, payload in enumerate(sent):
        delivery = Delivery(number % 2)
        peers.send(alice, bob, payload, delivery)
        peers.send(bob, alice, payload, delivery)
    for who in (alice, bob):
        assert peers.network.run_until(lambda: len(peers.received(who)) >= len(sent), 30)  # noqa: B023
        assert sorted(peers.received(who)) == sorted(sent)


def test_the_same_seed_tells_the_same_story() -> None:
    def trace(seed: int) -> str:
        peers, alice, bob = connected_pair(seed, replace(ROUGH, loss=Bernoulli(0.1)))
        for payload in messages(seed, [30_000] * 5):
            peers.send(alice, bob, payload)
        peers.network.run(5)
        return peers.network.trace_hash()

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


def grow_patient(peers: Endpoints, alice: Address, bob: Address) -> None:
    """Let both find that nothing is lost between them."""
    for _ in range(CLEAN + 1):
        peers.send(alice, bob, b"?")
        peers.network.run(0.003)
        peers.send(bob, alice, b"!")
        peers.network.run(0.003)
    peers.network.run(1)


def test_until_a_path_is_known_to_be_clean_acknowledgements_are_asked_for_at_once() -> None:
    peers, alice, bob = connected_pair(3, Link(latency=(0.0001, 0.0001)))
    before = peers.network.statistics().bytes_sent[bob]
    peers.send(alice, bob, bytes(1000))
    peers.network.run(0.0003)
    assert peers.network.statistics().bytes_sent[bob] > before


def test_a_request_and_its_answer_cost_a_datagram_each_for_acks_ride_along() -> None:
    peers, alice, bob = connected_pair(3)
    grow_patient(peers, alice, bob)
    for _ in range(20):
        before = peers.network.statistics().sent
        peers.send(alice, bob, bytes(1200))
        peers.network.run(0.003)
        peers.send(bob, alice, bytes(1200))
        peers.network.run(0.003)
        assert peers.network.statistics().sent - before == 2


@pytest.mark.parametrize(
    ("delivery", "patience"),
    [(Delivery.LATENCY, 0.8 * SIMULATION.ack_patience), (Delivery.BULK, SIMULATION.max_ack_delay)],
)
def test_what_is_not_answered_is_acknowledged_in_time(delivery: Delivery, patience: float) -> None:
    peers, alice, bob = connected_pair(3)
    grow_patient(peers, alice, bob)
    before = peers.network.statistics().sent
    peers.send(alice, bob, bytes(1000), delivery)
    peers.network.run(patience - 0.001)
    assert peers.network.statistics().sent - before == 1
    peers.network.run(0.003)
    assert peers.network.statistics().sent - before == 2  # and nothing was sent in vain
    peers.network.run(0.1)
    assert peers.network.statistics().sent - before == 2


def test_on_a_lossy_path_a_message_asks_for_its_acknowledgement_at_once() -> None:
    peers, alice, bob = connected_pair(3, Link(loss=Bernoulli(0.2), latency=(0.0001, 0.0001)))
    for _ in range(100):
        peers.send(alice, bob, bytes(1200))
        peers.network.run(0.1)
    peers.network.set_links(alice, bob, Link(latency=(0.0001, 0.0001)))
    before = peers.network.statistics().bytes_sent[bob]
    peers.send(alice, bob, bytes(1200))
    peers.network.run(0.0003)  # there and back, and no time to hesitate
    assert peers.network.statistics().bytes_sent[bob] > before


def test_an_idle_pair_is_nearly_silent() -> None:
    peers, alice, bob = connected_pair(4)
    peers.network.run(5)
    before = peers.network.statistics()
    peers.network.run(60)
    after = peers.network.statistics()
    assert after.sent - before.sent <= 2 * 60 / SIMULATION.keepalive  # a ping and its answer
    assert after.bytes_sent[alice] - before.bytes_sent[alice] < 60 * 10
    assert peers.are_connected(alice, bob)


def test_a_datagram_is_sent_once_and_must_fit() -> None:
    peers, alice, bob = connected_pair(5)
    peers.send(alice, bob, b"gossip", Delivery.DATAGRAM)
    peers.network.run(0.1)
    assert peers.received(bob) == [b"gossip"]
    with pytest.raises(LocalProtocolError):
        peers.send(alice, bob, bytes(1500), Delivery.DATAGRAM)


def test_parity_is_sent_only_where_packets_are_lost() -> None:
    def parity(loss: float, *, fec: bool = True) -> int:
        link = replace(ROUGH, loss=Bernoulli(loss), reorder=0.0)
        peers, alice, bob = connected_pair(6, link, config=replace(SIMULATION, fec=fec))
        for payload in messages(6, [8192] * 40):
            peers.send(alice, bob, payload)
            peers.network.run(0.02)
        assert len(peers.received(bob)) == 40
        return view(peers, alice).parity_sent

    assert parity(0.0) == 0
    assert parity(0.1, fec=False) == 0
    assert 40 < parity(0.05) < 40 * 6


def test_fec_makes_the_slowest_messages_faster() -> None:
    def slowest(*, fec: bool) -> float:
        link = Link(loss=Bernoulli(0.05), latency=(0.005, 0.005))
        peers, alice, bob = connected_pair(7, link, config=replace(SIMULATION, fec=fec))
        waits = []
        for count, payload in enumerate(messages(7, [8192] * 300), 1):
            start = peers.network.now
            peers.send(alice, bob, payload)
            assert peers.network.run_until(lambda: len(peers.received(bob)) >= count, 5)  # noqa: B023
            waits.append(peers.network.now - start)
            peers.network.run(0.02)
        return sorted(waits[50:])[-8]  # the 97th percentile

    assert slowest(fec=True) < 0.006 < slowest(fec=False)


def test_latency_messages_overtake_bulk() -> None:
    peers, alice, bob = connected_pair(8, Link(latency=(0.01, 0.01), rate=5e6, queue=1 << 17))
    for payload in messages(8, [65536] * 20):
        peers.send(alice, bob, payload, Delivery.BULK)
    peers.network.run(0.05)
    peers.send(alice, bob, b"urgent")
    start = peers.network.now
    assert peers.network.run_until(lambda: b"urgent" in peers.received(bob), 1)
    assert peers.network.now - start < 0.05
    assert len(peers.received(bob)) < 10


def test_silence_is_noticed_and_its_end_too() -> None:
    peers, alice, bob = connected_pair(9)
    peers.network.run(1)
    peers.network.partition([alice], [bob])
    peers.send(alice, bob, b"anyone?")
    start = peers.network.now
    peers.network.run(3)
    peers.network.heal()
    peers.network.run(1)
    (unresponsive,) = [
        (at, e) for at, _, e in peers.network.story if isinstance(e, PeerUnresponsive)
    ]
    (responsive,) = [at for at, _, e in peers.network.story if isinstance(e, PeerResponsive)]
    assert unresponsive[0] - start == pytest.approx(1.0, abs=0.01)
    assert unresponsive[1].silent_for == pytest.approx(1.0, abs=0.01)
    assert 3.0 < responsive - start < 3.0 + SIMULATION.pto_max + 0.05
    assert peers.received(bob) == [b"anyone?"]


def test_a_one_way_partition_is_noticed_by_who_is_not_heard() -> None:
    peers, alice, bob = connected_pair(10)
    peers.network.partition([alice], [bob], one_way=True)
    peers.send(alice, bob, b"lost")
    peers.network.run(2)
    assert any(isinstance(event, PeerUnresponsive) for event in peers.events(alice))


@pytest.mark.parametrize("is_sending", [True, False])
def test_a_crashed_peer_is_given_up_after_the_idle_timeout(is_sending: bool) -> None:
    peers, alice, bob = connected_pair(11)
    peers.network.run(1)
    start = peers.network.now
    peers.network.detach(bob)
    if is_sending:
        peers.send(alice, bob, b"lost")
    peers.network.run(30)
    at, _, event = peers.network.story[-1]
    assert isinstance(event, PeerDisconnected)
    assert 9 <= at - start <= 15
    assert peers.endpoints[alice].next_timeout() is None
    with pytest.raises(LocalProtocolError):
        peers.send(alice, bob, b"lost")


def test_close_tells_the_other_side_why() -> None:
    peers, alice, bob = connected_pair(12)
    peers.network.call(alice, lambda now: peers.endpoints[alice].close_all("going home", now))
    peers.network.run(0.1)
    assert isinstance(peers.events(alice)[-1], PeerDisconnected)
    assert peers.events(bob)[-1] == PeerDisconnected(
        peers.node_id(alice), "closed by the peer: going home"
    )
    assert not peers.are_connected(alice, bob)


@pytest.mark.parametrize("latency", [0.0005, 0.2])
def test_what_was_handed_over_arrives_before_the_connection_closes(latency: float) -> None:
    peers = Endpoints(12, Link(latency=(latency, latency), rate=1e6))
    alice, bob, carol = (peers.add(name) for name in ("alice", "bob", "carol"))
    for other in (bob, carol):
        peers.connect(alice, other)
        peers.connect(other, alice)
    peers.network.run(3)
    endpoint = peers.endpoints[alice]
    for other in (bob, carol):
        peers.send(alice, other, bytes(60_000), Delivery.BULK)
        peers.send(alice, other, b"farewell", Delivery.DATAGRAM)
    start = peers.network.now
    assert not endpoint.is_flushed
    peers.network.call(alice, lambda now: endpoint.close_when_flushed("home", now + 3, now))
    assert peers.network.run_until(lambda: endpoint.is_closed, 5)
    assert 2 * latency < peers.network.now - start < 2.5
    peers.network.run(1)
    for other in (bob, carol):
        assert sorted(peers.received(other)) == sorted([bytes(60_000), b"farewell"])
        assert peers.events(other)[-1] == PeerDisconnected(
            peers.node_id(alice), "closed by the peer: home"
        )
    peers.connect(bob, alice)
    peers.network.run(6)
    assert not peers.are_connected(alice, bob)
    assert endpoint.next_timeout() is None


def test_a_mute_peer_keeps_nobody_from_leaving() -> None:
    peers, alice, bob = connected_pair(12)
    peers.network.run(1)
    peers.network.partition([alice], [bob])
    endpoint = peers.endpoints[alice]
    peers.send(alice, bob, b"unheard")
    start = peers.network.now
    peers.network.call(alice, lambda now: endpoint.close_when_flushed("home", now + 2, now))
    assert peers.network.run_until(lambda: endpoint.is_closed, 5)
    assert peers.network.now - start == pytest.approx(2)


def test_a_peer_that_moves_is_followed() -> None:
    peers, alice, bob = connected_pair(13)
    peers.network.run(1)
    moved = ("alice elsewhere", 7)
    endpoint = peers.endpoints[alice]
    peers.network.detach(alice)
    peers.network.attach(moved, endpoint)

    def speak(now: float) -> None:
        endpoint.send(peers.node_id(bob), b"moved", Delivery.LATENCY, now)

    peers.network.call(moved, speak)
    peers.network.run(0.1)
    assert peers.endpoints[bob].address_of(peers.node_id(alice)) == moved
    peers.send(bob, alice, b"followed")
    peers.network.run(0.1)
    assert peers.received(moved) == [b"followed"]


def test_the_path_is_searched_upward_and_falls_back_when_it_shrinks() -> None:
    config = replace(SIMULATION, max_datagram=65507)
    peers = Endpoints(14, Link(mtu=9000))
    alice, bob = peers.add("alice", config=config), peers.add("bob", config=config)
    peers.connect(alice, bob)
    peers.network.run(5)
    assert view(peers, alice).datagram == 8972
    assert view(peers, alice).lost == 0
    assert view(peers, alice).window == config.initial_window
    peers.network.set_links(alice, bob, Link(mtu=1400))
    peers.send(alice, bob, bytes(60_000))
    assert peers.network.run_until(lambda: peers.received(bob) == [bytes(60_000)], 3)
    assert view(peers, alice).datagram == 1200


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_keys_are_replaced_without_a_pause(loss: float) -> None:
    config = replace(SIMULATION, rekey_packets=1024, rekey_seconds=1.0)
    peers, alice, bob = connected_pair(15, replace(ROUGH, loss=Bernoulli(loss)), config=config)
    for count, payload in enumerate(messages(15, [2000] * 60), 1):
        peers.send(alice, bob, payload)
        peers.network.run(0.1)
        assert len(peers.received(bob)) >= count - 1
    peers.network.run(2)
    assert len(peers.received(bob)) == 60
    assert view(peers, alice).epochs[0] >= 5
    assert view(peers, bob).epochs[1] >= 5


def test_the_send_queue_is_bounded() -> None:
    config = replace(SIMULATION, send_queue_bytes=210_000)
    peers, alice, bob = connected_pair(16, config=config)
    for payload in messages(16, [65536] * 3):
        peers.send(alice, bob, payload, Delivery.BULK)
    assert peers.endpoints[alice].queued_bytes(peers.node_id(bob)) == 3 * 65536
    room = peers.endpoints[alice].room(peers.node_id(bob))
    assert room < 210_000 - 3 * 65536  # what is around the messages counts
    with pytest.raises(QueueFullError):
        peers.send(alice, bob, bytes(room + 100), Delivery.BULK)
    peers.send(alice, bob, bytes(room), Delivery.BULK)
    peers.network.run(1)
    assert peers.endpoints[alice].queued_bytes(peers.node_id(bob)) == 0
    with pytest.raises(LocalProtocolError):
        peers.send(alice, bob, bytes(65537))


def test_a_full_endpoint_takes_no_more_peers() -> None:
    peers = Endpoints(17)
    bob = peers.add("bob", config=replace(SIMULATION, max_peers=1))
    for name in ("alice", "carol"):
        peers.connect(peers.add(name), bob)
        peers.network.run(7)
    connected = [event for event in peers.events(bob) if isinstance(event, PeerConnected)]
    assert len(connected) == 1
    assert peers.endpoints[bob].snapshot(0).counters["peers_too_many"] > 0


def test_a_slow_link_is_filled_but_not_flooded() -> None:
    link = Link(latency=(0.01, 0.01), rate=1.25e6, queue=64 * 1024)  # 10 Mb/s
    peers, alice, bob = connected_pair(18, link)
    for payload in messages(18, [65536] * 40):
        peers.send(alice, bob, payload, Delivery.BULK)
    start = peers.network.now
    assert peers.network.run_until(lambda: len(peers.received(bob)) == 40, 10)
    assert 40 * 65536 / (peers.network.now - start) > 0.6 * 1.25e6
    assert view(peers, alice).lost < 0.15 * view(peers, alice).datagrams_out


@pytest.mark.parametrize("preset", [TransportConfig.lan, TransportConfig.wan])
def test_presets_hold_their_own_rules(preset: object) -> None:
    assert callable(preset)
    assert preset()


def test_a_contradiction_in_the_settings_is_named() -> None:
    with pytest.raises(ConfigError, match="pto_max"):
        TransportConfig(pto_max=2.0)
