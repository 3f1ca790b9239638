"""How large datagrams become, on paths that carry much, less than usual, or nearly nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.sansio import Address, Transmit
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link
from p2pnode.testing.pair import Endpoints, connected_pair
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery, PathTooSmall, PeerDisconnected, PeerUnresponsive
from p2pnode.transport.path import FLOOR, LADDER, Path
from p2pnode.transport.snapshot import ConnectionView

HEADERS = 28
SIMULATION = TransportConfig.simulation()


def view(peers: Endpoints, address: Address) -> ConnectionView:
    (connection,) = peers.endpoints[address].snapshot(peers.network.now).connections
    return connection


def pair_on(
    seed: int, link: Link, config: TransportConfig = SIMULATION
) -> tuple[Endpoints, Address, Address]:
    """Return two endpoints that connected over ``link``; larger datagrams never arrived."""
    peers = Endpoints(seed, link)
    alice, bob = peers.add("alice", config=config), peers.add("bob", config=config)
    peers.connect(alice, bob)
    assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 20)
    return peers, alice, bob


@pytest.mark.parametrize(
    ("mtu", "datagram"),
    [(1500, 1472), (1300, 1200), (1228, 1200), (1200, 1152), (1100, 1020), (576, 548)],
)
def test_a_path_of_any_size_is_found_and_used(mtu: int, datagram: int) -> None:
    peers, alice, bob = pair_on(1, Link(mtu=mtu))
    peers.network.run(12)
    for who in (alice, bob):
        assert view(peers, who).datagram == datagram
    before = peers.network.statistics().dropped.get("mtu", 0)
    peers.send(alice, bob, bytes(60_000))
    peers.network.run(1)
    assert peers.received(bob) == [bytes(60_000)]
    assert peers.network.statistics().dropped.get("mtu", 0) == before


@pytest.mark.parametrize("mtu", [1200, 1100, 576])
@pytest.mark.parametrize("latency", [0.001, 0.05])
def test_a_message_sent_at_once_arrives_on_a_small_path(mtu: int, latency: float) -> None:
    peers, alice, bob = pair_on(2, Link(mtu=mtu, latency=(latency, latency)))
    peers.send(alice, bob, bytes(60_000))
    peers.send(bob, alice, bytes(3_000))
    assert peers.network.run_until(lambda: bool(peers.received(bob)), 5)
    assert peers.network.run_until(lambda: bool(peers.received(alice)), 5)
    assert not [e for e in peers.events(alice) if isinstance(e, PathTooSmall)]


@pytest.mark.parametrize("mtu", [1200, 1100, 576])
def test_a_path_that_shrinks_without_a_word_is_followed(mtu: int) -> None:
    peers, alice, bob = connected_pair(3)
    peers.network.run(5)
    assert view(peers, alice).datagram == 1472
    peers.network.set_links(alice, bob, Link(mtu=mtu))
    peers.send(alice, bob, bytes(60_000))
    assert peers.network.run_until(lambda: peers.received(bob) == [bytes(60_000)], 8)
    assert view(peers, alice).datagram <= mtu - HEADERS


def test_a_path_that_grows_again_is_climbed_again() -> None:
    config = replace(SIMULATION, path_raise=20.0)
    peers, alice, bob = pair_on(4, Link(mtu=1100), config)
    peers.network.run(12)
    assert view(peers, alice).datagram == 1020
    peers.network.set_links(alice, bob, Link())
    peers.network.run(30)
    assert view(peers, alice).datagram == 1472


def test_a_path_that_carries_next_to_nothing_is_given_up_by_name() -> None:
    peers, alice, bob = pair_on(5, Link(mtu=400))
    peers.send(alice, bob, bytes(60_000))
    peers.network.run(20)
    named = [event for event in peers.events(alice) if isinstance(event, PathTooSmall)]
    assert named == [PathTooSmall(peers.node_id(bob), bob, FLOOR)]
    assert peers.received(bob) == []
    ends = [e.reason for e in peers.events(bob) if isinstance(e, PeerDisconnected)]
    assert len(ends) == 1
    assert "548 bytes" in ends[0]


def test_what_fits_an_ordinary_datagram_is_cut_where_it_does_not_fit() -> None:
    peers, alice, bob = pair_on(6, Link(mtu=576))
    peers.network.run(12)
    peers.send(alice, bob, bytes(1100), Delivery.DATAGRAM)
    peers.network.run(1)
    assert peers.received(bob) == [bytes(1100)]


def test_an_outage_says_nothing_of_the_size() -> None:
    peers, alice, bob = pair_on(7, Link(mtu=1300))
    peers.send(alice, bob, bytes(60_000))
    peers.network.run(5)
    for seconds in (0.5, 3, 7):
        peers.network.partition([alice], [bob])
        peers.send(alice, bob, bytes(60_000))
        peers.network.run(seconds)
        peers.network.heal()
        peers.network.run(3)
        assert view(peers, alice).datagram == 1200
    assert any(isinstance(event, PeerUnresponsive) for event in peers.events(alice))
    assert len(peers.received(bob)) == 4


def test_a_peer_that_is_busy_at_first_gets_large_datagrams_all_the_same() -> None:
    peers = Endpoints(8)
    alice, bob = peers.add("alice"), peers.add("bob")
    peers.connect(alice, bob)
    peers.network.run(0.0045)  # the handshake, and a probe on its way
    peers.network.stall(bob, 0.9)
    peers.network.run(4)
    assert view(peers, alice).datagram == view(peers, bob).datagram == 1472


def test_a_path_between_two_sizes_is_not_probed_for_ever() -> None:
    peers, _, _ = pair_on(9, Link(mtu=1492))
    peers.network.run(5)
    before = peers.network.statistics()
    peers.network.run(60)
    after = peers.network.statistics()
    assert after.dropped["mtu"] == before.dropped["mtu"]
    assert after.sent - before.sent <= 2 * 60 / SIMULATION.keepalive


@pytest.mark.parametrize("mtu", [1300, 1228, 1100])
def test_what_is_under_way_to_a_peer_that_moves_is_cut_for_its_new_path(mtu: int) -> None:
    peers, alice, bob = connected_pair(10)
    peers.network.run(5)
    assert view(peers, bob).datagram == 1472
    moved, endpoint = ("alice elsewhere", 7), peers.endpoints[alice]
    peers.network.detach(alice)
    peers.network.attach(moved, endpoint)
    peers.network.set_links(moved, bob, Link(mtu=mtu))
    peers.send(bob, alice, bytes(60_000), Delivery.BULK)
    peers.network.call(moved, lambda now: endpoint.ping(peers.node_id(bob), now))
    assert peers.network.run_until(lambda: peers.received(moved) == [bytes(60_000)], 8)
    before = peers.network.statistics().dropped["mtu"]
    for _ in range(20):
        peers.network.call(moved, lambda now: endpoint.ping(peers.node_id(bob), now))
        peers.network.run(0.1)
    assert peers.network.statistics().dropped["mtu"] - before <= 3


def test_only_path_probes_are_larger_than_what_the_path_has_shown_to_carry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Transmit[Address]] = []
    hand_over = Endpoint.datagrams_to_send

    def noted(endpoint: Endpoint) -> list[Transmit[Address]]:
        taken = hand_over(endpoint)
        sent.extend(taken)
        return taken

    monkeypatch.setattr(Endpoint, "datagrams_to_send", noted)
    peers, alice, bob = pair_on(11, Link(mtu=1500), replace(SIMULATION, max_datagram=16384))
    for _ in range(5):
        peers.send(alice, bob, bytes(60_000))
        peers.network.run(2)
    large = [transmit.is_probe for transmit in sent if len(transmit.payload) > 1472]
    assert large
    assert all(large)


def test_a_peer_that_moves_back_and_forth_is_not_probed_at_each_move() -> None:
    path = Path(SIMULATION, 16384, 0.0, lambda now: None)
    path.move(10.0)
    assert path.probing_from == 10.0
    for step in range(50):
        path.move(10.1 + step / 10)
        assert path.probing_from is not None
        assert path.probing_from > 10.1 + step / 10
    path.move(30.0)
    assert path.probing_from == 30.0


@given(
    seed=st.integers(0, 2**32),
    mtu=st.integers(576, 1600),
    loss=st.sampled_from([Bernoulli(0.0), Bernoulli(0.2), GilbertElliott(0.02777, 0.25)]),
    later=st.integers(576, 1600),
)
@settings(max_examples=25, deadline=None)
def test_messages_arrive_whatever_the_size_of_the_path(
    seed: int, mtu: int, loss: Bernoulli | GilbertElliott, later: int
) -> None:
    peers, alice, bob = pair_on(seed, Link(mtu=mtu, loss=loss))
    for count in range(1, 4):
        peers.send(alice, bob, bytes(10_000))
        peers.send(bob, alice, bytes(20_000), Delivery.BULK)
        assert peers.network.run_until(
            lambda: min(len(peers.received(who)) for who in (alice, bob)) >= count,  # noqa: B023
            20,
        )
        peers.network.set_links(alice, bob, Link(mtu=later, loss=loss))
    for who in (alice, bob):
        assert view(peers, who).datagram in LADDER
