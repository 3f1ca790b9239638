"""Whom a node calls: a person's word is kept to, a stranger's costs little and harms nobody."""

import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode import CORES
from p2pnode.node.config import DialerConfig
from p2pnode.node.dialer import Dialer
from p2pnode.node.reach import Reach
from p2pnode.node.sightings import INIT_BYTES, LEAST_ANNOUNCEMENT, Sighting
from p2pnode.sansio import Address, NodeId
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import SECRET, Swarm
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.identity import Identity

CONFIG = DialerConfig()
LAN = ipaddress.ip_network("10.0.0.0/8")
HERE = Reach((("10.0.0.1", 4747),), (LAN,), frozenset({"10.0.0.1"}))
US = NodeId(bytes([1]) * 32)
ANSWER = 5.0  # seconds until a dial has failed


def peer(number: int) -> NodeId:
    return Identity(number.to_bytes(32, "big")).node_id


PEERS = [peer(number) for number in range(400)]


def at(number: int, port: int = 4747) -> Address:
    return f"10.1.{number // 250}.{number % 250 + 1}", port


@dataclass
class Caller:
    """A dialer in a world where only those in ``answering`` answer."""

    dialer: Dialer = field(default_factory=lambda: Dialer(CONFIG, US))
    answering: dict[Address, NodeId] = field(default_factory=dict)
    reach: Reach = HERE
    now: float = 0.0
    made: list[tuple[float, Address, int | None]] = field(default_factory=list)
    flying: dict[Address, float] = field(default_factory=dict)
    up: dict[NodeId, Address] = field(default_factory=dict)
    most_flying: int = 0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = self.dialer.due
            moments = [*self.flying.values(), *([] if due is None else [due])]
            moment = max(self.now, min(moments, default=end))
            if moment >= end:
                break
            self.now = moment
            self.step()
        self.now = end

    def step(self) -> None:
        for address in [one for one, over in self.flying.items() if over <= self.now]:
            del self.flying[address]
            self.dialer.failed(address, None, f"no answer from {address[0]}", self.now)
        calls = self.dialer.calls(self.now, self.up.__contains__, self.up.values(), self.reach)
        for call in calls:
            self.made.append((self.now, call.address, call.tries))
            owner = self.answering.get(call.address)
            if owner is None:
                self.flying.setdefault(call.address, self.now + ANSWER)
            elif owner in self.up:
                self.dialer.failed(call.address, owner, "already connected", self.now)
            else:
                self.up[owner] = call.address
                self.dialer.reached(owner, call.address, self.now)
        self.most_flying = max(self.most_flying, len(self.flying))

    def called(self) -> list[Address]:
        return [address for _, address, _ in self.made]

    def sighted(
        self, number: int, addresses: Iterable[Address] | None = None, heard: int = 300
    ) -> None:
        sighting = Sighting(tuple(addresses or (at(number),)), f"n{number}", ours=True, heard=heard)
        self.dialer.sighted(PEERS[number], sighting, self.now)


def test_a_call_of_a_hint_sends_what_is_counted_for_it() -> None:
    config = TransportConfig.simulation()
    endpoint = Endpoint(config, Identity(bytes(32)), SECRET, Random(1), 0.0)
    endpoint.connect(("10.0.0.2", 1), 0.0, tries=1)
    sent, now = endpoint.datagrams_to_send(), 0.0
    while (due := endpoint.next_timeout()) is not None:
        now = due
        endpoint.handle_timeout(now)
        sent += endpoint.datagrams_to_send()
    assert [len(one.payload) for one in sent] == [INIT_BYTES]
    assert now == config.dial_timeout


def test_256_names_are_called_a_few_a_second_and_then_no_more() -> None:
    caller = Caller()
    for number in range(256):
        caller.sighted(number, [at(8 * number + one) for one in range(8)], heard=400)
    caller.run(600)
    assert caller.most_flying <= CONFIG.most_in_flight
    for began in range(600):
        assert len([t for t, _, _ in caller.made if began <= t < began + 1]) <= CONFIG.burst + 4
    assert len(caller.made) * INIT_BYTES <= 256 * 400
    assert {tries for _, _, tries in caller.made} == {1}
    before = len(caller.made)
    caller.run(6000)
    assert (len(caller.made) - before) * INIT_BYTES <= 256 * 400 - before * INIT_BYTES


def test_a_newcomer_does_not_queue_behind_a_flood() -> None:
    caller = Caller()
    for number in range(399):
        caller.sighted(number)
    caller.run(1)
    caller.answering[at(399)] = PEERS[399]
    caller.sighted(399)
    caller.run(6)
    assert PEERS[399] in caller.up
    assert len(caller.dialer.sightings.known) == CONFIG.most_sightings


def test_who_was_met_is_never_forgotten_for_a_stranger() -> None:
    caller = Caller()
    caller.answering[at(0)] = PEERS[0]
    caller.sighted(0)
    caller.run(1)
    for number in range(1, 400):
        caller.sighted(number)
    assert PEERS[0] in caller.dialer.sightings.known


def test_those_of_other_swarms_give_way_first_and_are_never_called() -> None:
    caller = Caller()
    for number in range(CONFIG.most_sightings):
        caller.dialer.sighted(
            PEERS[number], Sighting((at(number),), "x", ours=number % 2 == 0), 0.0
        )
    caller.sighted(300)
    ours = [one.ours for one in caller.dialer.sightings.known.values()]
    assert ours.count(True) == CONFIG.most_sightings // 2 + 1
    caller.dialer.sighted(PEERS[301], Sighting((at(301),), "x", ours=False), 0.0)
    assert len(caller.dialer.sightings.known) == CONFIG.most_sightings
    caller.run(60)
    odd = {at(number) for number in range(1, CONFIG.most_sightings, 2)}
    assert not odd & set(caller.called())


def test_an_unanswered_hint_is_called_ever_more_rarely() -> None:
    caller = Caller()
    caller.sighted(1, heard=5 * INIT_BYTES)
    caller.run(3600)
    times = [when for when, _, _ in caller.made]
    assert len(times) == 5
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert all(later >= sooner for sooner, later in itertools.pairwise(pauses))
    assert pauses[-1] >= 4 * pauses[0]


def test_saying_it_again_pays_for_another_call() -> None:
    caller = Caller()
    caller.sighted(1, heard=LEAST_ANNOUNCEMENT)
    caller.run(3600)
    assert len(caller.made) == 1
    caller.sighted(1, heard=LEAST_ANNOUNCEMENT)
    caller.run(3600)
    assert len(caller.made) == 2


def test_whoever_speaks_in_a_friend_s_name_gets_no_more_calls_than_a_stranger() -> None:
    caller = Caller(answering={at(1): PEERS[1]})
    caller.sighted(1)
    caller.run(1)
    caller.up.clear()
    caller.sighted(1, [at(66)], heard=LEAST_ANNOUNCEMENT)
    caller.run(3600)
    assert caller.called().count(at(66)) * INIT_BYTES <= LEAST_ANNOUNCEMENT


def test_announcements_of_one_address_pay_for_no_call_of_another() -> None:
    caller = Caller()
    for _ in range(2):
        caller.sighted(1, [at(1)], heard=INIT_BYTES // 2)
    caller.sighted(1, [at(2)], heard=INIT_BYTES // 2)
    caller.run(3600)
    assert not caller.made
    caller.sighted(1, [at(2)], heard=INIT_BYTES // 2)
    caller.run(3600)
    assert caller.called() == [at(2)]


def test_a_thousand_names_at_one_address_are_one_reason_to_call_it() -> None:
    caller = Caller()
    for number in range(250):
        caller.sighted(number, [at(7)])
    caller.run(60)
    assert len(caller.made) <= 6


def test_only_two_addresses_on_our_link_are_called() -> None:
    caller = Caller()
    far = [("203.0.113.9", 1), ("127.0.0.1", 9), ("10.0.0.1", 4747)]
    near = [("10.2.0.1", 1), ("10.2.0.2", 1), ("10.2.0.3", 1)]
    caller.sighted(1, [*far, *near], heard=4000)
    caller.run(3600)
    assert set(caller.called()) == set(near[:2])


def test_what_is_far_is_said_to_be_and_not_called() -> None:
    caller = Caller()
    caller.sighted(1, [("203.0.113.9", 1)])
    caller.run(60)
    assert not caller.made
    assert "no address on a network of ours" in caller.dialer.sightings.known[PEERS[1]].reason
    caller.reach = Reach(HERE.addresses, (ipaddress.ip_network("203.0.113.0/24"),))
    caller.dialer.hurry(caller.now)  # we moved there
    caller.run(60)
    assert caller.made


def test_a_new_bridge_cuts_no_pause_short_and_its_containers_are_near() -> None:
    caller = Caller()
    caller.sighted(1, [("172.30.0.2", 4747)])
    caller.sighted(2, [("10.2.0.9", 4747)], heard=4000)
    caller.run(60)
    called = len(caller.made)
    due = caller.dialer.sightings.known[PEERS[2]].due
    assert due > caller.now + 2
    assert HERE.networks is not None
    bridge = ipaddress.ip_network("172.30.0.0/16")
    caller.reach = Reach(HERE.addresses, (*HERE.networks, bridge))
    for _ in range(2):
        caller.dialer.hurry(caller.now, moved=False)
        caller.run(1)
    assert caller.called()[called:] == [("172.30.0.2", 4747)]
    assert caller.dialer.sightings.known[PEERS[2]].due == due


def test_our_own_announcement_and_an_impossible_key_are_not_called() -> None:
    caller = Caller()
    for key in (US, NodeId(bytes(32))):
        caller.dialer.sighted(key, Sighting((at(5),), "x", ours=True), 0.0)
    caller.run(60)
    assert not caller.made
    assert "no such node" in caller.dialer.sightings.known[NodeId(bytes(32))].reason


def test_a_session_ends_the_calls_and_a_lost_one_is_called_soon() -> None:
    caller = Caller()
    caller.answering[at(1)] = PEERS[1]
    caller.sighted(1)
    caller.run(100)
    assert caller.called() == [at(1)]
    caller.up.clear()
    caller.answering.clear()
    lost = caller.now
    caller.run(600)
    later = [when - lost for when, _, _ in caller.made[1:]]
    assert later[0] <= CONFIG.redial
    assert len(later) >= 8  # it was proven to live there, so this is not for strangers to pay
    assert later[-1] - later[-2] <= CONFIG.backoff_met + CONFIG.redial


def test_an_address_given_by_hand_is_called_until_somebody_answers() -> None:
    caller = Caller()
    caller.dialer.add_fixed(at(1), 0.0)
    caller.run(600)
    assert len(caller.made) == pytest.approx(600 / CONFIG.redial, rel=0.1)
    assert caller.made[0][2] is None  # with all the transport's patience
    caller.answering[at(1)] = PEERS[1]
    caller.run(10)
    before = len(caller.made)
    caller.run(600)
    assert len(caller.made) == before


def test_another_address_of_a_connected_peer_is_called_once() -> None:
    caller = Caller(answering={at(1): PEERS[1], at(2): PEERS[1]})
    caller.dialer.add_fixed(at(1), 0.0)
    caller.run(1)
    caller.dialer.add_fixed(at(2), 1.0)
    caller.run(600)
    assert caller.called().count(at(2)) == 1
    caller.up.clear()
    del caller.answering[at(1)]
    caller.run(10)
    assert caller.up == {PEERS[1]: at(2)}


def test_our_own_address_given_by_hand_is_not_called_for_ever() -> None:
    caller = Caller()
    caller.dialer.add_fixed(at(9), 0.0)
    caller.step()
    caller.dialer.failed(at(9), US, "that is this node itself", 0.0)
    caller.flying.clear()
    caller.run(600)
    assert len(caller.made) == 1


def test_addresses_given_by_hand_are_bounded() -> None:
    dialer = Dialer(CONFIG, US)
    for number in range(1000):
        dialer.add_fixed(at(number), 0.0)
    assert len(dialer.fixed) == CONFIG.most_fixed
    assert sum(dialer.counters.values()) == 1000 - CONFIG.most_fixed


def test_a_name_is_followed_where_it_leads() -> None:
    caller, name = Caller(), ("kitchen.lan", 4747)
    assert caller.dialer.unresolved(name, "unknown host")
    assert not caller.dialer.unresolved(name, "unknown host")  # no news
    caller.dialer.resolved(name, (at(1), at(2)), 0.0)
    caller.run(1)
    assert set(caller.called()) == {at(1), at(2)}
    caller.answering[at(3)] = PEERS[3]
    caller.dialer.resolved(name, (at(3),), caller.now)
    caller.run(60)
    assert set(caller.dialer.fixed) == {at(3)}
    assert caller.dialer.is_met(name, caller.up.__contains__)


def test_the_addresses_of_one_name_are_called_one_after_the_other() -> None:
    caller, name = Caller(), ("kitchen.lan", 4747)
    caller.dialer.resolved(name, (at(1), at(2), at(3)), 0.0)
    caller.dialer.add_fixed(at(9), 0.0)
    caller.run(10)
    for address in (at(1), at(2), at(3), at(9)):
        moments = [moment for moment, called, _ in caller.made if called == address]
        assert moments[1] - moments[0] == pytest.approx(CONFIG.redial)
    first = {address: moment for moment, address, _ in reversed(caller.made)}
    assert first[at(9)] == first[at(1)] == 0.0
    assert first[at(2)] == pytest.approx(CONFIG.stagger, abs=0.01)
    assert first[at(3)] == pytest.approx(2 * CONFIG.stagger, abs=0.01)


def test_an_address_given_twice_outlives_the_name() -> None:
    dialer, name = Dialer(CONFIG, US), ("kitchen.lan", 4747)
    dialer.add_fixed(at(1), 0.0)
    dialer.resolved(name, (at(1),), 0.0)
    dialer.resolved(name, (), 0.0)
    assert set(dialer.fixed) == {at(1)}


def test_remembered_peers_are_called_the_first_first_and_ever_more_rarely() -> None:
    caller = Caller()
    for number in range(100):
        caller.dialer.remember(PEERS[number], (at(number),), 0.0)
    caller.run(0.1)
    assert caller.called() == [at(number) for number in range(CONFIG.burst)]
    caller.run(3600)
    assert caller.most_flying <= CONFIG.most_in_flight
    last_hour = len(caller.made)
    assert last_hour <= 100 * (8 + 3600 / CONFIG.backoff_most)


SIGHTINGS = st.lists(
    st.tuples(
        st.integers(0, 399),
        st.lists(st.integers(0, 60).map(at), min_size=1, max_size=8),
        st.integers(0, 2000),
        st.floats(0, 3),
        st.booleans(),
    ),
    max_size=120,
)


@settings(max_examples=40, deadline=None)
@given(SIGHTINGS, st.sets(st.integers(0, 60), max_size=5))
def test_whatever_is_announced_calls_are_bounded(
    said: list[tuple[int, list[Address], int, float, bool]], answering: set[int]
) -> None:
    caller = Caller(answering={at(number): PEERS[number] for number in answering})
    paid: dict[Address, int] = {}
    for number, addresses, heard, pause, goes in said:
        caller.sighted(number, addresses, heard)
        for address in addresses:
            paid[address] = paid.get(address, 0) + heard
        caller.run(pause)
        if goes:
            caller.dialer.sighting_withdrawn(PEERS[number])
    caller.run(30)
    assert caller.most_flying <= CONFIG.most_in_flight
    assert len(caller.dialer.sightings.known) <= CONFIG.most_sightings
    for when, _, _ in caller.made:
        near = [t for t, _, _ in caller.made if when <= t < when + 1]
        assert len(near) <= CONFIG.burst + CONFIG.rate + 1
    for address in set(caller.called()) - caller.answering.keys():
        assert caller.called().count(address) * INIT_BYTES <= paid[address]


NAMES = [(f"host{number}.lan", 4747) for number in range(3)]
FAR = [("203.0.113.9", 1), ("127.0.0.1", 9), ("10.0.0.1", 4747), ("224.0.0.1", 5), ("no ip", 1)]
PLACES = st.one_of(st.integers(0, 30).map(at), st.sampled_from(FAR))
WHO = st.one_of(st.integers(0, 30), st.just(31))
SEVERAL = st.lists(PLACES, min_size=1, max_size=6).map(tuple)
INPUTS = st.one_of(
    st.tuples(st.just("sighted"), WHO, SEVERAL, st.integers(0, 2000), st.booleans()),
    st.tuples(st.just("sighted"), WHO, SEVERAL, st.integers(0, 2000), st.just(True)),
    st.tuples(st.just("withdrawn"), WHO),
    st.tuples(st.just("fixed"), PLACES),
    st.tuples(st.just("resolved"), st.sampled_from(NAMES), SEVERAL),
    st.tuples(st.just("unresolved"), st.sampled_from(NAMES)),
    st.tuples(st.just("remember"), WHO, SEVERAL),
    st.tuples(st.just("forget"), WHO),
    st.tuples(st.just("came"), WHO, PLACES),
    st.tuples(st.just("lost"), WHO),
    st.tuples(st.just("failed"), PLACES, st.one_of(st.none(), WHO)),
    st.tuples(st.just("hurry"), st.booleans()),
    st.tuples(st.just("sleep"), st.floats(0, 1000)),
    st.tuples(st.just("run"), st.floats(0, 30)),
)


def happen(caller: Caller, what: tuple[Any, ...]) -> None:
    dialer, now, everybody = caller.dialer, caller.now, [*PEERS[:31], US]
    match what:
        case "sighted", who, addresses, heard, ours:
            dialer.sighted(everybody[who], Sighting(addresses, "x", ours, heard=heard), now)
        case "withdrawn", who:
            dialer.sighting_withdrawn(everybody[who])
        case "fixed", address:
            dialer.add_fixed(address, now)
        case "resolved", name, addresses:
            dialer.resolved(name, addresses, now)
        case "unresolved", name:
            dialer.unresolved(name, "unknown host")
        case "remember", who, addresses:
            dialer.remember(everybody[who], addresses, now)
        case "forget", who:
            dialer.forget_all_but(everybody[:who])
        case "came", who, address:
            caller.up[everybody[who]] = address
            dialer.reached(everybody[who], address, now)
        case "lost", who:
            caller.up.pop(everybody[who], None)
        case "failed", address, who:  # of a dial that somebody else made
            dialer.failed(address, None if who is None else everybody[who], "no answer", now)
        case "hurry", moves:
            here = (ipaddress.ip_network("203.0.113.0/24"),) if moves else None
            caller.reach = Reach((("203.0.113.1", 4747),), here, frozenset({"203.0.113.1"}))
            dialer.hurry(now)
        case "sleep", seconds:
            caller.now += seconds
        case "run", seconds:
            caller.run(seconds)


@settings(max_examples=60, deadline=None)
@given(st.lists(INPUTS, min_size=10), st.sets(st.integers(0, 30), max_size=5))
def test_whatever_a_dialer_is_told_it_rests_and_stays_small(
    inputs: list[tuple[Any, ...]], answering: set[int]
) -> None:
    caller = Caller(answering={at(number): PEERS[number] for number in answering})
    dialer = caller.dialer
    for what in inputs:
        happen(caller, what)
        rounds = 0
        while (due := dialer.due) is not None and due <= caller.now:
            caller.step()
            rounds += 1
        assert rounds <= 4, "it never rests"
        budget = dialer._budget
        assert budget.in_flight <= CONFIG.most_in_flight
        assert len(budget._pauses) <= CONFIG.most_pauses
        assert len(dialer.sightings.known) <= CONFIG.most_sightings
        assert len(dialer.fixed) <= CONFIG.most_fixed
    assert US not in dialer.remembered
    at_once = Counter(when for when, _, tries in caller.made if tries is not None)
    assert max(at_once.values(), default=0) <= CONFIG.burst
    ours = [("10.0.0.1", 4747)] if caller.reach is HERE else []
    assert not set(ours) & set(caller.called())


def test_two_nodes_that_only_see_each_other_s_announcement_meet() -> None:
    swarm = Swarm(5, Link(latency=(0.0005, 0.0005)))
    for name in ("a", "b"):
        swarm.add(name, range(6))
    b = swarm.nodes["b"].node_id
    sighting = Sighting((swarm.address("b"),), "b", ours=True)
    swarm.call("a", lambda node, now: node.sighted(b, sighting, now))
    assert swarm.network.run_until(lambda: swarm.nodes["a"].endpoint.is_connected(b), 5)


def test_a_node_that_moves_says_so_and_keeps_its_sessions() -> None:
    swarm = Swarm(6, Link(latency=(0.0005, 0.0005)))
    for name in ("a", "b"):
        swarm.add(name, range(6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 10)
    moved = Reach((("10.0.0.99", 4747),))
    swarm.call("a", lambda node, now: node.addresses_changed(moved, now))
    a, b = swarm.nodes["a"], swarm.nodes["b"]
    assert swarm.network.run_until(lambda: b.planner.addresses_of(a.node_id) == moved.addresses, 5)
    assert b.endpoint.is_connected(a.node_id)
    assert any("10.0.0.99" in line for line in a.log)


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
def test_a_container_s_bridge_pings_no_session_and_is_told_to_the_swarm() -> None:
    swarm = Swarm(6, Link(latency=(0.0005, 0.0005)))
    for name in ("a", "b"):
        swarm.add(name, range(6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 10)
    a, b = swarm.nodes["a"], swarm.nodes["b"]
    here = (swarm.address("a"),)
    pinged: list[NodeId] = []
    a.endpoint.ping = lambda peer, now: pinged.append(peer)  # type: ignore[method-assign]

    def see(*others: Address) -> None:
        reach = Reach((*here, *others), hosts=frozenset(map(str, others)), outward=Reach(here))
        swarm.call("a", lambda node, now: node.addresses_changed(reach, now))

    for number in range(3):
        see(*[("172.18.0.1", 4747)] * number)
        assert not pinged
    assert swarm.network.run_until(lambda: len(b.planner.addresses_of(a.node_id)) > 1, 5)
    moved = Reach((("10.0.0.99", 4747),))
    swarm.call("a", lambda node, now: node.addresses_changed(moved, now))
    assert pinged == [b.node_id]
