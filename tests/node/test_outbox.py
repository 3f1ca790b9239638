"""What cannot be sent is bounded, counted and told."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode import CORES
from p2pnode.inference.events import SendFrame
from p2pnode.node.config import OutboxConfig
from p2pnode.node.links import LinkMeter
from p2pnode.node.outbox import Outbox, SendRefused
from p2pnode.node.traffic import Traffic
from p2pnode.node.traffic_class import TrafficClass
from p2pnode.sansio import Address, NodeId
from p2pnode.scheduler.offences import Offence
from p2pnode.testing.pair import Endpoints, identity_of
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import DialFailed, PeerConnected, PeerDisconnected
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame, MessageType, Slice, encode_frame

PROMPT = TrafficClass.PROMPT
GHOST = identity_of("ghost").node_id
INIT_BYTES = 177  # of a first message to a node whose key is known
SIMULATION = TransportConfig.simulation()
SMALL = OutboxConfig(waiting_bytes=200_000, waiting_total_bytes=300_000, most_waiting=8)


def frame(size: int) -> Frame:
    return Frame(
        MessageType.THINK, 1, 1, 7, slices=(Slice(DType.I8, (size,), bytes(size)),) if size else ()
    )


class Sending:
    """An outbox on an endpoint of a virtual network.

    Attributes:
        told: What was refused, as it was told.
    """

    def __init__(self, addresses: Callable[[NodeId], tuple[Address, ...]]) -> None:
        self.peers = Endpoints(1)
        self.alice = self.peers.add("alice")
        self.bob = self.peers.add("bob")
        endpoint = self.peers.endpoints[self.alice]
        meter = LinkMeter(endpoint, endpoint.rtt, 0.005)
        self.outbox = Outbox(
            self.peers.node_id(self.alice), endpoint, Traffic(), addresses, SMALL, meter
        )
        self.told: list[SendRefused] = []

    def send(self, peer: NodeId, size: int) -> None:
        def command(now: float) -> None:
            self.outbox.send_frame(peer, frame(size), now)

        self.peers.network.call(self.alice, command)

    def look(self) -> None:
        now = self.peers.network.now
        self.outbox.handle_timeout(now)
        self.told += self.outbox.take_refused(now)


def test_frames_that_wait_are_bounded_for_a_peer_and_in_all() -> None:
    nowhere: dict[NodeId, Address] = {
        identity_of(f"ghost {number}").node_id: (f"nowhere {number}", 1) for number in range(5)
    }
    sending = Sending(lambda peer: (nowhere[peer],))
    for ghost in nowhere:
        for _ in range(4):
            sending.send(ghost, 50_000)
    assert sending.outbox.waiting_bytes <= SMALL.waiting_total_bytes
    sending.look()
    assert {refused.peer for refused in sending.told} == set(nowhere)
    assert all("too much waits" in refused.reason for refused in sending.told)
    assert sending.outbox.counters["frame dropped: too much waits for its session"] == 15
    for _ in range(20):
        sending.send(next(iter(nowhere)), 1)
    assert sending.outbox.counters["frame dropped: too much waits for its session"] == 15 + 15


def test_frames_do_not_wait_where_nobody_can_be_called() -> None:
    sending = Sending(lambda peer: (sending.bob,))
    sending.peers.connect(sending.alice, sending.bob)
    sending.peers.network.run(1)
    sending.send(GHOST, 100)  # it is said to live where bob does
    sending.look()
    assert [refused.peer for refused in sending.told] == [GHOST]
    assert sending.outbox.waiting_bytes == 0


def test_frames_do_not_wait_for_ever() -> None:
    sending = Sending(lambda peer: (("nowhere", 1),))
    sending.send(GHOST, 100)
    assert sending.outbox.next_timeout() == pytest.approx(SMALL.waiting_seconds)
    sending.peers.network.run(SMALL.waiting_seconds + 0.1)
    sending.look()
    assert sending.told == [SendRefused(GHOST, "no session came up")]
    assert sending.outbox.next_timeout() is None


def test_what_waited_is_sent_when_the_session_is_up() -> None:
    sending = Sending(lambda peer: (sending.bob,))
    bob = sending.peers.node_id(sending.bob)
    assert sending.outbox.room(bob, PROMPT) == SMALL.waiting_bytes
    sending.send(bob, 1000)
    sending.send(bob, 2000)
    assert sending.outbox.room(bob, PROMPT) < SMALL.waiting_bytes - 3000
    sending.peers.network.run(1)
    sending.peers.network.call(sending.alice, lambda now: sending.outbox.connected(bob, now))
    sending.peers.network.run(1)
    assert sending.peers.received(sending.bob) == [
        encode_frame(frame(1000)),
        encode_frame(frame(2000)),
    ]
    assert sending.outbox.waiting_bytes == 0


def test_a_dial_that_fails_drops_nothing_while_another_may_succeed() -> None:
    sending = Sending(lambda peer: (("nowhere", 1), sending.bob))
    bob = sending.peers.node_id(sending.bob)
    sending.peers.network.partition([sending.alice], [sending.bob])
    sending.send(bob, 1000)
    sending.outbox.unreachable(bob)
    assert sending.outbox.waiting_bytes > 0
    sending.peers.network.run(6)
    sending.outbox.unreachable(bob)
    sending.look()
    assert sending.told == [SendRefused(bob, "no session came up")]


def test_a_full_send_queue_is_told_and_room_says_so_before() -> None:
    sending = Sending(lambda peer: (sending.bob,))
    sending.peers.connect(sending.alice, sending.bob)
    sending.peers.network.run(1)
    bob = sending.peers.node_id(sending.bob)
    sending.peers.network.partition([sending.alice], [sending.bob])
    sent = 0
    while sending.outbox.room(bob, PROMPT) > 60_100:
        sending.send(bob, 60_000)
        sent += 1
    sending.look()
    assert sending.told == []
    assert sent > 30
    for _ in range(3):
        sending.send(bob, 60_000)
    sending.look()
    sending.look()
    assert sending.told == [SendRefused(bob, "send queue of the peer is full")]
    assert sending.outbox.counters["frame dropped: send queue of the peer is full"] >= 2
    sending.send(bob, 60_000)
    sending.look()
    assert len(sending.told) == 1  # not again at once
    again = sending.outbox.next_timeout()
    assert again is not None
    sending.peers.network.run(again - sending.peers.network.now)
    sending.look()
    assert len(sending.told) == 2


def gossip(sending: Sending, peer: NodeId) -> None:
    sending.peers.network.call(
        sending.alice, lambda now: sending.outbox.send_gossip(peer, b"gossip", False, now)
    )


INVENTED = [identity_of(f"invented {number}").node_id for number in range(300)]
VICTIMS = {
    peer: tuple(("victim", 8 * number + port) for port in range(8))
    for number, peer in enumerate(INVENTED)
}


def test_invented_records_make_no_flood_at_a_third_party() -> None:
    sending = Sending(lambda peer: VICTIMS[peer])
    network = sending.peers.network
    for tenth in range(600):
        for turn in range(3):  # gossip goes to three members in each tenth of a second
            gossip(sending, INVENTED[(3 * tenth + turn) % len(INVENTED)])
        network.run(0.1)
        if tenth == 9:
            first = network.statistics().bytes_sent[sending.alice]
    records = SMALL.records
    assert first <= records.most_in_flight * records.tries * INIT_BYTES
    assert network.statistics().bytes_sent[sending.alice] <= 60 * 1200
    assert sending.outbox.counters["address of a record not called: too many are"] > 1000
    many = "gossip dropped: too many members that were never met are called already"
    assert sending.outbox.counters[many] > 1000


def test_an_address_that_answers_to_no_name_is_called_ever_more_rarely() -> None:
    sending = Sending(lambda peer: (("victim", 1),))
    network = sending.peers.network
    for second in range(600):
        gossip(sending, INVENTED[second % len(INVENTED)])
        network.run(1)
    calls = 5 + 600 / SMALL.records.backoff_most
    sent = network.statistics().bytes_sent[sending.alice]
    assert 0 < sent <= calls * SMALL.records.tries * INIT_BYTES
    assert sending.outbox.counters[
        "gossip dropped: the peer's addresses were called in vain just now"
    ]


@pytest.mark.parametrize("was_met", [True, False])
@pytest.mark.parametrize("says", [gossip, lambda sending, peer: sending.send(peer, 100)])
def test_a_flood_of_records_delays_nobody_who_was_met_and_no_frame(
    was_met: bool, says: Callable[[Sending, NodeId], None]
) -> None:
    sending = Sending(lambda peer: VICTIMS.get(peer) or (sending.bob,))
    network, bob = sending.peers.network, sending.peers.node_id(sending.bob)
    endpoint = sending.peers.endpoints[sending.alice]
    if was_met:
        sending.peers.connect(sending.alice, sending.bob)
        network.run(1)
        network.call(sending.alice, lambda now: sending.outbox.connected(bob, now))
        network.call(sending.alice, lambda now: endpoint.close(bob, "for now", now))
        network.run(1)
    for peer in INVENTED:
        gossip(sending, peer)
    says(sending, bob)
    network.run(0.1)
    is_gossip_to_a_stranger = says is gossip and not was_met
    assert endpoint.is_connected(bob) is not is_gossip_to_a_stranger
    for _ in range(100):  # who was never met is called in its turn
        network.run(0.1)
        says(sending, bob)
    assert endpoint.is_connected(bob)


def test_a_member_never_met_is_called_at_two_addresses_and_then_at_the_next() -> None:
    here = tuple((f"bridge {number}", 1) for number in range(4))
    sending = Sending(lambda peer: (*here, sending.bob))
    network, bob = sending.peers.network, sending.peers.node_id(sending.bob)
    endpoint = sending.peers.endpoints[sending.alice]
    for _ in range(200):
        gossip(sending, bob)
        network.run(0.1)
        if endpoint.is_connected(bob):
            break
    assert endpoint.is_connected(bob)
    assert network.now == pytest.approx(2 * SIMULATION.dial_timeout, abs=0.3)


@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(
        st.tuples(st.sampled_from(["send", "wait", "lose"]), st.integers(0, 3)), max_size=60
    ),
)
@settings(max_examples=40, deadline=None)
def test_every_frame_is_sent_or_told_of(seed: int, steps: list[tuple[str, int]]) -> None:
    sending = Sending(lambda peer: (("nowhere", 1), sending.bob))
    peers = [identity_of(name).node_id for name in ("bob", "ghost", "spook", "alice 2")]
    rng = Random(seed)
    sent = 0
    for step, which in steps:
        if step == "send":
            sending.send(peers[which], rng.randrange(1, 60_000))
            sent += 1
        elif step == "wait":
            sending.peers.network.run(which)
        else:
            sending.outbox.unreachable(peers[which])
        assert 0 <= sending.outbox.waiting_bytes <= SMALL.waiting_total_bytes
        if sending.peers.endpoints[sending.alice].is_connected(peers[0]):
            sending.outbox.connected(peers[0], sending.peers.network.now)
    sending.peers.network.run(30)
    sending.look()
    assert sending.outbox.waiting_bytes == 0
    dropped = sum(sending.outbox.counters.values())
    arrived = len(sending.peers.received(sending.bob))
    assert arrived + dropped == sent


class Pumped(Sending):
    """An outbox that hears what its endpoint says, as a node's does."""

    def __init__(self) -> None:
        super().__init__(lambda peer: self.known.get(peer, ()))
        names = ("bob", "ghost", "spook", "alice")
        self.peers_known = [identity_of(name).node_id for name in (*names, "nobody")]
        bob, ghost, spook, alice, _ = self.peers_known
        self.known: dict[NodeId, tuple[Address, ...]] = {
            bob: (("nowhere", 1), self.bob),
            ghost: (self.bob,),
            spook: (("nowhere", 2),),
            alice: (self.alice,),
        }
        self.heard = 0
        self.lost = False

    def gossip(self, peer: NodeId, size: int, *, bulk: bool) -> None:
        payload = bytes(size if bulk else min(size, 1100))
        self.peers.network.call(
            self.alice, lambda now: self.outbox.send_gossip(peer, payload, bulk, now)
        )

    def close(self, peer: NodeId) -> None:
        endpoint = self.peers.endpoints[self.alice]
        self.peers.network.call(self.alice, lambda now: endpoint.close(peer, "over", now))

    def run(self, seconds: float) -> None:
        end = self.peers.network.now + seconds
        while (left := end - self.peers.network.now) > 0:
            due = self.outbox.next_timeout()
            until = left if due is None else min(left, max(0.0, due - self.peers.network.now))
            self.peers.network.run(min(until, 0.2))
            self.look()

    def look(self) -> None:
        said = self.peers.events(self.alice)
        now, endpoint = self.peers.network.now, self.peers.endpoints[self.alice]
        for event in said[self.heard :]:
            match event:
                case PeerConnected(peer, _):
                    self.outbox.connected(peer, now)
                case PeerDisconnected(peer, _):
                    self.outbox._meter.forget(peer)
                    self.lost = True
                case DialFailed(_, peer, _) if peer is not None and not endpoint.is_connected(peer):
                    self.outbox.unreachable(peer)
        self.heard = len(said)
        super().look()
        due = self.outbox.next_timeout()
        assert due is None or due > now, "it asks for a moment that is past"

    def check(self) -> None:
        outbox, waiting = self.outbox, self.outbox._waiting
        assert outbox.waiting_bytes == sum(one.size for one in waiting.values())
        assert 0 <= outbox.waiting_bytes <= SMALL.waiting_total_bytes
        for peer, one in waiting.items():
            assert (
                one.size
                == sum(len(message.data) for _, message in one.frames)
                <= SMALL.waiting_bytes
            )
            assert 0 < len(one) <= SMALL.most_waiting
            assert outbox.under_way(peer) > SMALL.waiting_total_bytes
        assert {*outbox.refused, *outbox._told} <= {*self.peers_known}
        for peer in self.peers_known:
            assert outbox.room(peer, PROMPT) >= 0
        if self.heard == len(self.peers.events(self.alice)):
            connected = {*self.peers.endpoints[self.alice].peers()}
            assert {*outbox._meter._ways} <= connected, "kept of a peer that is gone"


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "gossip", "bulk", "wait", "cut", "mend", "close"]),
            st.integers(0, 4),
            st.sampled_from([0, 100, 40_000, 65_000]),
        ),
        min_size=8,
    ),
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_sent_and_heard_a_post_stays_small_and_tells_what_it_drops(
    steps: list[tuple[str, int, int]],
) -> None:
    sending = Pumped()
    outbox, network, sent = sending.outbox, sending.peers.network, 0
    for what, which, size in steps:
        peer = sending.peers_known[which]
        match what:
            case "send":
                sending.send(peer, size)
                sent += peer != sending.peers_known[3]
            case "gossip" | "bulk":
                sending.gossip(peer, size // 10, bulk=what == "bulk")
            case "wait":
                sending.run(which * which / 2)
            case "cut":
                network.partition([sending.alice], [sending.bob])
            case "mend":
                network.heal()
            case "close":
                sending.close(peer)
        sending.look()
        sending.check()
    network.heal()
    sending.run(30)
    assert outbox.waiting_bytes == 0
    assert outbox.next_timeout() is None
    frames = [what for what in outbox.counters if what.startswith("frame")]
    dropped = sum(outbox.counters[what] for what in frames)
    first = encode_frame(frame(0))[:1]  # gossip here is zeros
    arrived = [data for data in sending.peers.received(sending.bob) if data[:1] == first]
    assert sending.lost or len(arrived) + dropped == sent


def test_a_dial_that_failed_makes_room_for_the_next() -> None:
    swarm = Swarm(1)
    node = swarm.add("a", holds=False)
    node.outbox._addresses_of = lambda peer: VICTIMS[peer]

    def spread(_: object, now: float) -> None:
        for peer in INVENTED[:8]:
            node.outbox.send_gossip(peer, b"", False, now)

    swarm.call("a", spread)
    budget = node.outbox._record_dials._budget
    assert budget.in_flight == SMALL.records.most_in_flight
    swarm.network.run(SIMULATION.dial_timeout + 0.1)
    assert budget.in_flight == 0


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
def test_a_stage_that_cannot_be_sent_to_is_lost_to_the_answer() -> None:
    swarm = Swarm(1, transport=TransportConfig.simulation())
    swarm.add("a", range(3))
    swarm.add("b", range(3, 6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 60)
    node, other = swarm.nodes["a"], swarm.nodes["b"]
    lost: list[tuple[NodeId, str]] = []
    keep = node.inference.peer_lost

    def note(peer: NodeId, reason: str, now: float, offence: Offence | None = Offence.LOST) -> None:
        lost.append((peer, reason))
        keep(peer, reason, now, offence)

    node.inference.peer_lost = note  # type: ignore[method-assign]
    swarm.network.partition([swarm.address("a")], [swarm.address("b")])

    def flood(node: object, now: float) -> None:
        for _ in range(100):
            swarm.nodes["a"]._wiring._on_inference(SendFrame(other.node_id, frame(60_000)), now)

    swarm.call("a", flood)
    swarm.network.run(0.3)
    assert (other.node_id, "cannot be sent to: send queue of the peer is full") in lost
    assert any("cannot be sent to" in line for line in node.log)
