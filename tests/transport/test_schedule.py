from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode import CORES
from p2pnode.sansio import Address
from p2pnode.testing.pair import Endpoints
from p2pnode.transport.events import Delivery
from p2pnode.transport.schedule import Schedule
from p2pnode.transport.timers import Timer, Timers


@dataclass
class Timed:
    number: int
    timers: Timers = field(default_factory=Timers)
    wake: float = inf
    ended: str | None = None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arm", "end", "fire"]),
            st.integers(0, 4),
            st.sampled_from(Timer),
            st.one_of(st.none(), st.integers(0, 30)),
        ),
        max_size=80,
    )
)
def test_the_earliest_timer_is_the_one_a_look_at_all_of_them_finds(
    steps: list[tuple[str, int, Timer, int | None]],
) -> None:
    everyone = [Timed(number) for number in range(5)]
    schedule = Schedule[Timed]()
    for what, which, timer, moment in steps:
        chosen = everyone[which]
        if what == "fire":
            now = float(moment or 0)
            due = {one.number for one in everyone if not one.ended and one.timers.earliest <= now}
            taken = schedule.take_due(now)
            assert sorted(one.number for one in taken) == sorted(due)
            assert [one.timers.earliest for one in taken] == sorted(
                one.timers.earliest for one in taken
            )
            for one in taken:
                schedule.take(one)
                while one.timers.pop_due(now) is not None:
                    pass
        elif chosen.ended is None:
            schedule.take(chosen)
            if what == "arm":
                chosen.timers.arm(timer, None if moment is None else float(moment))
            else:
                chosen.ended = "over"
                schedule.drop(chosen)
        alive = [one.timers.earliest for one in everyone if one.ended is None]
        assert schedule.next_timeout() == min(alive, default=inf)


def looks_for_a_message(monkeypatch: pytest.MonkeyPatch, sessions: int) -> int:
    """Return how often timers are looked at while one message of 20,000 bytes is carried."""
    peers = Endpoints(1)
    hub = peers.add("hub")
    spokes: list[Address] = []
    for number in range(sessions):
        spokes.append(peers.add(f"spoke {number}"))
        peers.connect(spokes[-1], hub)
        peers.network.run(0.11)
    peers.network.run(1)
    looks = 0

    def count(timers: Timers) -> float:
        nonlocal looks
        looks += 1
        return min(timers._moments)

    with monkeypatch.context() as patched:
        patched.setattr(Timers, "earliest", property(count))
        peers.send(spokes[0], hub, bytes(20_000))
        peers.send(hub, spokes[0], bytes(20_000))
        peers.network.run(0.05)
    assert peers.received(spokes[0]) == [bytes(20_000)]
    return looks


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a property that compiled code reads")
def test_the_work_for_a_message_does_not_grow_with_the_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = (looks_for_a_message(monkeypatch, sessions) for sessions in (2, 60))
    assert many < 1.5 * few


def hub_of(sessions: int) -> tuple[Endpoints, Address, list[Address]]:
    peers = Endpoints(1)
    hub = peers.add("hub")
    spokes = [peers.add(f"spoke {number}") for number in range(sessions)]
    for spoke in spokes:
        peers.connect(spoke, hub)
    peers.network.run(1)
    return peers, hub, spokes


def ping(peers: Endpoints, hub: Address, spoke: Address) -> None:
    endpoint, peer = peers.endpoints[hub], peers.node_id(spoke)
    peers.network.call(hub, lambda now: endpoint.ping(peer, now))


def close(peers: Endpoints, hub: Address, spoke: Address) -> None:
    endpoint, peer = peers.endpoints[hub], peers.node_id(spoke)
    peers.network.call(hub, lambda now: endpoint.close(peer, "over", now))


def wakes_in_time(peers: Endpoints, hub: Address) -> bool:
    endpoint = peers.endpoints[hub]
    due = endpoint.next_timeout()
    earliest = min((one.timers.earliest for one in endpoint._by_peer.values()), default=inf)
    return (inf if due is None else due) <= earliest


def test_an_endpoint_wakes_for_a_ping_though_others_are_in_hand() -> None:
    peers, hub, spokes = hub_of(5)
    for spoke in spokes:
        ping(peers, hub, spoke)
        assert wakes_in_time(peers, hub)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "datagram", "ping", "answer", "close", "dial", "cut", "mend"]),
            st.integers(0, 4),
            st.sampled_from([0.0, 0.01, 0.3, 6.0]),
        ),
        max_size=40,
    )
)
def test_an_endpoint_wakes_for_the_earliest_timer_whatever_is_done(
    steps: list[tuple[str, int, float]],
) -> None:
    peers, hub, spokes = hub_of(5)
    for what, which, pause in steps:
        spoke, endpoint = spokes[which], peers.endpoints[hub]
        peer, network = peers.node_id(spoke), peers.network
        match what:
            case "send" | "datagram" if endpoint.is_connected(peer):
                delivery = Delivery.LATENCY if what == "send" else Delivery.DATAGRAM
                peers.send(hub, spoke, bytes(900), delivery)
            case "ping":
                ping(peers, hub, spoke)
            case "answer" if peers.are_connected(spoke, hub):
                peers.send(spoke, hub, bytes(3000))
            case "close":
                close(peers, hub, spoke)
            case "dial":
                peers.connect(hub, spoke, peer=peer)
            case "cut":
                network.partition([hub], [spoke])
            case "mend":
                network.heal()
        assert wakes_in_time(peers, hub)
        network.run(pause)
        assert wakes_in_time(peers, hub)
        due = endpoint.next_timeout()
        assert due is None or due > network.now
