from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode import CORES
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import Address, NodeId
from p2pnode.testing.links import Bernoulli, Link
from p2pnode.testing.pair import SECRET, Endpoints, connected_pair, identity_of
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import (
    Delivery,
    DialFailed,
    PeerConnected,
    PeerDisconnected,
    TransportEvent,
)
from p2pnode.transport.noise import IK_PSK2, XX_PSK3
from p2pnode.transport.packets import Kind, response_size

NOWHERE = ("nowhere", 1)


def failures(peers: Endpoints, address: Address) -> list[DialFailed]:
    return [event for event in peers.events(address) if isinstance(event, DialFailed)]


def counters(peers: Endpoints, address: Address) -> Counter[str]:
    return Counter(peers.endpoints[address].snapshot(peers.network.now).counters)


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
def test_two_strangers_connect_and_say_so_once(knows_peer: bool) -> None:
    peers = Endpoints(seed=1)
    alice, bob = peers.add("alice"), peers.add("bob")
    peer = peers.node_id(bob) if knows_peer else None
    peers.connect(alice, bob, peer=peer)
    peers.connect(alice, bob, peer=peer)  # idempotent
    peers.network.run(1)
    peers.connect(alice, bob, peer=peer)
    peers.network.run(1)
    assert peers.events(alice) == [PeerConnected(peers.node_id(bob), bob)]
    assert peers.events(bob) == [PeerConnected(peers.node_id(alice), alice)]
    assert peers.endpoints[alice].peers() == [peers.node_id(bob)]
    assert peers.endpoints[alice].address_of(peers.node_id(bob)) == bob
    assert peers.endpoints[alice].rtt(peers.node_id(bob)) == pytest.approx(0.002, abs=0.002)


@given(seed=st.integers(0, 2**32), knows_peer=st.booleans(), both=st.booleans())
@settings(max_examples=40)
def test_a_handshake_survives_a_bad_link(seed: int, knows_peer: bool, both: bool) -> None:
    link = Link(loss=Bernoulli(0.3), duplicate=0.1, reorder=0.1, corrupt=0.05)
    peers = Endpoints(seed, link)
    config = replace(TransportConfig.simulation(), dial_timeout=9.0)
    alice, bob = peers.add("alice", config=config), peers.add("bob", config=config)
    peers.connect(alice, bob, peer=peers.node_id(bob) if knows_peer else None)
    if both:
        peers.connect(bob, alice)
    assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 30)
    peers.network.set_links(alice, bob, Link())
    peers.network.run(1)
    peers.send(alice, bob, b"ping")
    peers.send(bob, alice, b"pong")
    peers.network.run(1)
    assert peers.received(bob) == [b"ping"]
    assert peers.received(alice) == [b"pong"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("knowing", [(False, False), (True, True), (True, False)])
def test_of_two_dials_at_once_one_goes_on(seed: int, knowing: tuple[bool, bool]) -> None:
    peers = Endpoints(seed)
    alice, bob = peers.add("alice"), peers.add("bob")
    peers.connect(alice, bob, peer=peers.node_id(bob) if knowing[0] else None)
    peers.connect(bob, alice, peer=peers.node_id(alice) if knowing[1] else None)
    peers.network.run(8)
    assert [len(peers.events(who)) for who in (alice, bob)] == [1, 1]
    assert peers.are_connected(alice, bob)


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
def test_another_swarm_hears_nothing(knows_peer: bool) -> None:
    peers = Endpoints(seed=2)
    alice, bob = peers.add("alice"), peers.add("bob", secret=bytes(32))
    peers.connect(alice, bob, peer=peers.node_id(bob) if knows_peer else None)
    peers.network.run(10)
    assert peers.network.statistics().bytes_sent.get(bob, 0) == 0
    assert counters(peers, bob)["handshake_wrong_secret"] >= 4
    (failure,) = failures(peers, alice)
    assert "swarm secret" in failure.reason
    assert peers.events(bob) == []


def test_another_node_at_the_address_hears_and_says_nothing() -> None:
    peers = Endpoints(seed=3)
    alice, bob = peers.add("alice"), peers.add("bob")
    peers.connect(alice, bob, peer=identity_of("carol").node_id)
    peers.network.run(10)
    assert peers.network.statistics().bytes_sent.get(bob, 0) == 0
    assert counters(peers, bob)["handshake_not_for_us"] >= 4
    (failure,) = failures(peers, alice)
    assert "another node lives there" in failure.reason


def test_nobody_there_is_said_after_the_timeout_and_retries_slow_down() -> None:
    peers = Endpoints(seed=4)
    alice = peers.add("alice")
    peers.connect(alice, NOWHERE)
    peers.network.run(20)
    (failure,) = failures(peers, alice)
    assert failure.reason.startswith("no answer from nowhere:1 within 5 s")
    assert peers.network.statistics().sent == 5
    assert peers.endpoints[alice].next_timeout() is None


def test_a_node_does_not_connect_to_itself() -> None:
    peers = Endpoints(seed=5)
    alice = peers.add("alice")
    peers.connect(alice, alice)
    peers.connect(alice, NOWHERE, peer=peers.node_id(alice))
    peers.network.run(1)
    assert [failure.reason for failure in failures(peers, alice)] == [
        "that is this node itself"
    ] * 2


def test_an_impossible_node_is_a_failed_dial() -> None:
    peers = Endpoints(seed=5)
    alice, bob = peers.add("alice"), peers.add("bob")
    peers.connect(alice, bob, peer=NodeId(bytes(32)))
    [event] = [event for _, _, event in peers.network.story if isinstance(event, DialFailed)]
    assert event.peer == NodeId(bytes(32))


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
def test_a_node_started_anew_replaces_its_old_self(knows_peer: bool) -> None:
    peers, alice, bob = connected_pair(6)
    peers.add("bob")
    peers.connect(bob, alice, peer=peers.node_id(alice) if knows_peer else None)
    peers.network.run(1)
    kinds = [type(event) for event in peers.events(alice)]
    assert kinds == [PeerConnected, PeerDisconnected, PeerConnected]
    peers.send(alice, bob, b"welcome back")
    peers.network.run(0.1)
    assert peers.received(bob) == [b"welcome back"]


def test_a_recorded_handshake_makes_and_replaces_no_connection() -> None:
    peers = Endpoints(seed=7)
    alice, bob = peers.add("alice"), peers.add("bob")
    recorded: list[bytes] = []

    def record(source: Address, _: Address, payload: bytes) -> bool:
        if source == alice:
            recorded.append(payload)
        return True

    peers.network.intercept = record
    peers.connect(alice, bob, peer=peers.node_id(bob))
    peers.network.run(1)
    before = peers.events(bob)
    peers.network.run(3)
    peers.network.intercept = None
    for _ in range(3):
        for payload in recorded:
            peers.network.send(alice, bob, payload)
            peers.network.send(NOWHERE, bob, payload)
        peers.network.run(1)
    assert peers.events(bob) == before
    assert peers.endpoints[bob].address_of(peers.node_id(alice)) == alice


def test_a_flood_of_handshakes_gets_cookies_and_friends_still_get_in() -> None:
    # The flooders know the secret: a member gone mad, dialling from many addresses.
    peers = Endpoints(seed=8)
    bob = peers.add("bob", config=replace(TransportConfig.simulation(), handshake_rate=10))
    dialler = peers.add("mad")
    inits: list[bytes] = []

    def steal(source: Address, _: Address, payload: bytes) -> bool:
        if source == dialler:
            inits.append(payload)
        return source != dialler

    peers.network.intercept = steal
    for port in range(300):
        peers.connect(dialler, ("nobody", port))
    peers.network.run(0.01)
    for number, init in enumerate(inits[:300]):
        peers.network.send(("spoofed", number), bob, init)
    peers.network.run(0.01)
    assert counters(peers, bob)["cookies_sent"] == 290
    assert peers.endpoints[bob].snapshot(0).half_open == 10

    alice = peers.add("alice")
    peers.connect(alice, bob)
    assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 1)
    assert counters(peers, bob)["cookies_sent"] == 291


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("rate", [1, 50])
def test_no_more_bytes_go_to_an_address_than_came_until_it_has_proved_itself(
    knows_peer: bool, padded: bool, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not padded:  # as nodes of before dialled
        monkeypatch.setattr("p2pnode.transport.handshake.INIT_PADDING", 0)
    peers = Endpoints(seed=12)
    bob = peers.add("bob", config=replace(TransportConfig.simulation(), handshake_rate=rate))
    inits: list[bytes] = []

    def steal(source: Address, destination: Address, payload: bytes) -> bool:
        if destination == bob and source != NOWHERE:
            inits.append(payload)
        return source == NOWHERE

    peers.network.intercept = steal
    for number in range(4):
        mad = peers.add(f"mad {number}")
        peers.connect(mad, bob, peer=peers.node_id(bob) if knows_peer else None)
        peers.network.run(0.01)
    before = peers.network.statistics()
    for init in inits * 2:
        peers.network.send(NOWHERE, bob, init)
        peers.network.run(0.01)
    came = sum(map(len, inits)) * 2
    went = peers.network.statistics().bytes_sent[bob] - before.bytes_sent.get(bob, 0)
    assert 0 < went <= came


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a constant that compiled code holds")
@pytest.mark.parametrize("rate", [1, 50])
def test_a_node_of_before_that_dials_in_fewer_bytes_still_gets_in(
    rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.transport.handshake.INIT_PADDING", 0)
    peers = Endpoints(seed=13)
    alice, bob = peers.add("alice"), peers.add("bob")
    peers.connect(alice, bob)
    assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 1)
    assert counters(peers, bob)["cookies_sent"] == 1


def test_a_response_is_as_long_as_it_is_said_to_be() -> None:
    for pattern, knows_peer in ((XX_PSK3, False), (IK_PSK2, True)):
        peers = Endpoints(seed=14)
        alice, bob = peers.add("alice"), peers.add("bob")
        sizes: dict[int, int] = {}

        def measure(_: Address, __: Address, payload: bytes) -> bool:
            sizes[payload[0]] = len(payload)  # noqa: B023
            return True

        peers.network.intercept = measure
        peers.connect(alice, bob, peer=peers.node_id(bob) if knows_peer else None)
        peers.network.run(1)
        assert sizes[Kind.RESPONSE] == response_size(pattern) <= sizes[Kind.INIT]


def test_every_dial_ends_in_an_event_for_each_peer_hoped_for() -> None:
    peers = Endpoints(seed=15)
    alice, bob = peers.add("alice"), peers.add("bob")
    ghosts = [identity_of(f"ghost {number}").node_id for number in range(12)]
    for ghost in ghosts[:10]:  # all said to live where bob does; one dial goes out
        peers.connect(alice, bob, peer=ghost)
    peers.connect(alice, bob)
    peers.network.run(6)
    assert {failure.peer for failure in failures(peers, alice)} == set(ghosts[:10])
    peers.connect(alice, bob)
    peers.network.run(1)
    assert peers.are_connected(alice, bob)
    peers.connect(alice, bob, peer=ghosts[10])
    assert failures(peers, alice)[-1] == DialFailed(
        bob, ghosts[10], "another node is connected at this address"
    )
    peers.connect(alice, NOWHERE, peer=ghosts[11])
    assert peers.endpoints[alice].is_dialling(ghosts[11])
    peers.network.run(6)
    assert not peers.endpoints[alice].is_dialling(ghosts[11])
    assert failures(peers, alice)[-1].peer == ghosts[11]


def test_a_dial_that_another_connection_makes_needless_ends_for_whom_it_was_meant() -> None:
    peers = Endpoints(seed=16)
    alice, bob = peers.add("alice"), peers.add("bob")
    ghost = identity_of("ghost").node_id
    peers.connect(alice, bob, peer=ghost)
    peers.network.run(0.5)
    peers.connect(bob, alice)
    peers.network.run(6)
    assert peers.are_connected(alice, bob)
    assert [failure.peer for failure in failures(peers, alice)] == [ghost]


def test_a_dial_from_a_full_endpoint_ends_too() -> None:
    peers = Endpoints(seed=17)
    alice = peers.add("alice", config=replace(TransportConfig.simulation(), max_peers=1))
    bob, carol = peers.add("bob"), peers.add("carol")
    peers.connect(alice, bob)
    peers.network.run(1)
    peers.connect(alice, carol)
    peers.network.run(8)
    (failure,) = failures(peers, alice)
    assert "no more peers" in failure.reason


def test_half_open_handshakes_are_bounded_and_forgotten() -> None:
    peers = Endpoints(seed=9)
    bob = peers.add("bob", config=replace(TransportConfig.simulation(), max_half_open=3))
    dialler = peers.add("mad")
    peers.network.intercept = lambda source, _, __: source != bob
    for number in range(6):
        peers.add(f"mad {number}")
        peers.connect((f"mad {number}", 1), bob)
    peers.network.run(1)
    assert peers.endpoints[bob].snapshot(0).half_open == 3
    assert counters(peers, bob)["handshake_too_many"] > 0
    peers.network.run(11)
    assert peers.endpoints[bob].snapshot(0).half_open == 0
    assert peers.endpoints[bob].next_timeout() is None
    del dialler


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.sampled_from(Kind), st.binary(max_size=300)).map(
            lambda pair: bytes([pair[0]]) + pair[1]
        ),
    )
)
def test_any_bytes_are_refused_in_silence(data: bytes) -> None:
    peers = Endpoints(seed=10)
    endpoint = peers.endpoints[peers.add("alice")]
    with pytest.raises(RemoteProtocolError):
        endpoint.receive_datagram(data, NOWHERE, 0.0)
    assert endpoint.datagrams_to_send() == []
    assert endpoint.take_events() == []
    assert sum(endpoint.snapshot(0.0).counters.values()) == 1


@given(
    seed=st.integers(0, 3),
    which=st.integers(0, 10),
    at=st.integers(0, 2000),
    bit=st.integers(0, 7),
    cut=st.integers(0, 40),
)
def test_a_mutated_datagram_of_a_real_exchange_changes_nothing(
    seed: int, which: int, at: int, bit: int, cut: int
) -> None:
    peers = Endpoints(seed)
    alice, bob = peers.add("alice"), peers.add("bob")
    sent: list[tuple[Address, Address, bytes]] = []

    def mutate(source: Address, destination: Address, payload: bytes) -> bool:
        sent.append((source, destination, payload))
        if len(sent) == which + 1:
            damaged = bytearray(payload)
            damaged[at % len(damaged)] ^= 1 << bit
            victim = peers.endpoints[destination]
            for forged in (bytes(damaged), payload[: len(payload) - 1 - cut]):
                with suppress(RemoteProtocolError):
                    victim.receive_datagram(forged, source, peers.network.now)
        return True

    peers.network.intercept = mutate
    peers.connect(alice, bob)
    assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 2)
    peers.send(alice, bob, bytes(3000))
    peers.send(bob, alice, b"back", Delivery.DATAGRAM)
    peers.network.run(2)
    for source, destination, payload in sent:  # and everything once more
        with suppress(RemoteProtocolError):
            peers.endpoints[destination].receive_datagram(payload, source, peers.network.now)
        peers.network.run(0.01)
    assert peers.received(bob) == [bytes(3000)]
    assert peers.received(alice) == [b"back"]
    connected: list[TransportEvent] = [
        event for event in peers.events(bob) if isinstance(event, PeerConnected)
    ]
    assert len(connected) == 1


def test_the_secret_and_the_config_are_checked_at_the_door() -> None:
    peers = Endpoints(seed=11)
    with pytest.raises(LocalProtocolError):
        peers.add("alice", secret=SECRET[:-1])
