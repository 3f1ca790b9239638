"""Keys that did nothing yet share a small budget and never push out one that proved itself."""

from dataclasses import replace
from functools import partial

from hypothesis import given, strategies as st

from p2pnode.sansio import Address
from p2pnode.testing.pair import Endpoints, identity_of
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import Delivery, DialFailed, PeerDisconnected
from p2pnode.transport.newcomers import Bucket, site_of
from p2pnode.transport.snapshot import TransportSnapshot

SMALL = replace(
    TransportConfig.simulation(),
    max_peers=6,
    max_unproven=4,
    max_unproven_per_address=2,
    newcomers_per_second=1.0,
    newcomers_per_second_per_address=0.25,
)


def snapshot(peers: Endpoints, address: Address) -> TransportSnapshot:
    return peers.endpoints[address].snapshot(peers.network.now)


def arrive(peers: Endpoints, hub: Address, *names: str, host: str | None = None) -> list[Address]:
    """Let new nodes call ``hub`` one after another, all from ``host`` if given."""
    came: list[Address] = []
    for port, name in enumerate(names, int(peers.network.now * 10) + 1000):
        address = peers.add(name)
        endpoint = peers.endpoints.pop(address)
        peers.network.detach(address)
        address = (host or name, port)
        peers.endpoints[address] = endpoint
        peers.network.attach(address, endpoint)
        peers.connect(address, hub)
        peers.network.run(0.1)
        came.append(address)
    return came


def are_in(peers: Endpoints, hub: Address, *names: str) -> list[bool]:
    return [peers.endpoints[hub].is_connected(identity_of(name).node_id) for name in names]


def prove(peers: Endpoints, hub: Address, *names: str) -> None:
    """Let the hub say something to each, and time pass."""

    def say(name: str, now: float) -> None:
        peers.endpoints[hub].send(identity_of(name).node_id, b"hello", Delivery.BULK, now)

    for name in names:
        peers.network.call(hub, partial(say, name))
    peers.network.run(16)


def test_a_key_proves_itself_by_living_and_acknowledging() -> None:
    peers = Endpoints(1)
    hub = peers.add("hub", config=SMALL)
    arrive(peers, hub, "ann", "bob")
    assert snapshot(peers, hub).unproven == 2
    prove(peers, hub, "ann")
    assert snapshot(peers, hub).unproven == 1
    assert peers.endpoints[hub].is_proven(identity_of("ann").node_id)
    assert not peers.endpoints[hub].is_proven(identity_of("bob").node_id)
    peers.endpoints[hub].vouch(identity_of("bob").node_id)
    assert snapshot(peers, hub).unproven == 0


def test_fresh_keys_of_one_address_are_few() -> None:
    peers = Endpoints(2)
    hub = peers.add("hub", config=SMALL)
    names = [f"key {number}" for number in range(5)]
    arrive(peers, hub, *names, host="one")
    assert are_in(peers, hub, *names) == [True, True, False, False, False]
    counters = snapshot(peers, hub).counters
    assert counters["peers_unproven_too_many_from_one_address"] > 0
    arrive(peers, hub, "ann", host="elsewhere")
    assert are_in(peers, hub, "ann") == [True]


def test_fresh_keys_come_at_a_bounded_pace() -> None:
    config = replace(SMALL, max_peers=100, newcomers_per_second_per_address=1.0)
    peers = Endpoints(3)
    hub = peers.add("hub", config=config)
    names = [f"key {number}" for number in range(60)]
    met = 0
    for name in names:
        (address,) = arrive(peers, hub, name, host="one")
        met += peers.endpoints[hub].is_connected(identity_of(name).node_id)
        peers.network.call(address, lambda now: peers.endpoints[address].close_all("bye", now))  # noqa: B023
        peers.network.run(0.1)
    assert met <= 2 + 60 * 0.2 + 1
    assert snapshot(peers, hub).counters["newcomers_too_fast_from_one_address"] > 0


def test_a_known_key_takes_the_place_of_the_idlest_that_proved_nothing() -> None:
    peers = Endpoints(4)
    hub = peers.add("hub", config=SMALL)
    arrive(peers, hub, "ann", "bob")
    prove(peers, hub, "ann", "bob")
    arrive(peers, hub, "c1", "c2", "c3", "c4")
    assert are_in(peers, hub, "c1", "c2", "c3", "c4") == [True] * 4
    peers.endpoints[hub].vouch(identity_of("old friend").node_id)
    arrive(peers, hub, "old friend")
    assert are_in(peers, hub, "old friend", "ann", "bob") == [True] * 3
    assert sum(are_in(peers, hub, "c1", "c2", "c3", "c4")) == 3
    assert snapshot(peers, hub).counters["unproven_peer_made_room"] == 1


def test_a_fresh_key_never_takes_the_place_of_a_proven_one() -> None:
    peers = Endpoints(5)
    hub = peers.add("hub", config=replace(SMALL, max_peers=2))
    arrive(peers, hub, "ann", "bob")
    prove(peers, hub, "ann", "bob")
    before = len(peers.events(hub))
    (fresh,) = arrive(peers, hub, "fresh")
    peers.endpoints[hub].vouch(identity_of("old friend").node_id)
    arrive(peers, hub, "old friend")
    peers.network.run(8)
    assert are_in(peers, hub, "ann", "bob", "fresh", "old friend") == [True, True, False, False]
    assert len(peers.events(hub)) == before
    assert snapshot(peers, hub).counters["peers_too_many"] >= 2
    assert any(isinstance(event, DialFailed) for event in peers.events(fresh))


def test_when_fresh_keys_are_too_many_the_most_crowded_address_gives_way() -> None:
    peers = Endpoints(6)
    hub = peers.add("hub", config=replace(SMALL, max_unproven=3, newcomers_per_second=100.0))
    arrive(peers, hub, "e1", "e2", host="evil")
    arrive(peers, hub, "ann")
    arrive(peers, hub, "bob")
    assert are_in(peers, hub, "ann", "bob") == [True, True]
    assert sum(are_in(peers, hub, "e1", "e2")) == 1
    arrive(peers, hub, "cleo")
    assert are_in(peers, hub, "ann", "bob", "cleo") == [True, True, False]


def test_a_peer_once_proven_comes_back_at_once() -> None:
    peers = Endpoints(7)
    hub = peers.add("hub", config=replace(SMALL, newcomers_per_second=0.001))
    (ann,) = arrive(peers, hub, "ann")
    prove(peers, hub, "ann")
    arrive(peers, hub, "b1", "b2", "b3", "b4")
    peers.network.call(ann, lambda now: peers.endpoints[ann].close_all("bye", now))
    peers.network.run(0.1)
    assert are_in(peers, hub, "ann") == [False]
    peers.connect(ann, hub)
    peers.network.run(0.1)
    assert are_in(peers, hub, "ann") == [True]
    assert peers.endpoints[hub].is_proven(identity_of("ann").node_id)


def test_no_proven_peer_is_ever_lost_to_a_flood_of_keys() -> None:
    peers = Endpoints(8)
    hub = peers.add("hub", config=SMALL)
    arrive(peers, hub, "ann", "bob")
    prove(peers, hub, "ann", "bob")
    for number in range(100):
        arrive(peers, hub, f"sybil {number}", host=f"host {number % 7}")
    assert are_in(peers, hub, "ann", "bob") == [True, True]
    ends = [event.peer for event in peers.events(hub) if isinstance(event, PeerDisconnected)]
    assert identity_of("ann").node_id not in ends
    assert snapshot(peers, hub).unproven <= 4


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 3), max_size=200),
)
def test_a_bucket_gives_its_burst_and_then_its_rate(
    rate: float, burst: int, pauses: list[float]
) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        if bucket.fill(now):
            bucket.take()
            taken += 1
    assert taken <= burst + now * rate + 1e-6


def test_addresses_are_of_one_site_where_their_owner_has_them_all() -> None:
    assert site_of(("2001:db8:1:2::1", 7)) == site_of(("2001:db8:1:2:ffff::9", 8))
    assert site_of(("2001:db8:1:2::1", 7)) != site_of(("2001:db8:1:3::1", 7))
    assert site_of(("192.168.1.1", 7)) == site_of(("::ffff:192.168.1.1", 7))
    assert site_of(("192.168.1.1", 7)) != site_of(("192.168.1.2", 7))
    assert site_of(("fe80::1%eth0", 7)) == site_of(("fe80::2%eth0", 7))
    assert site_of(("not:an:address", 7)) == "not:an:address"
