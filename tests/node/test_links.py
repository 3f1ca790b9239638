"""What large messages tell of a link: measured late, believed at its best."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.tensor_policy import Link as Known
from p2pnode.node.links import LARGE, LinkMeter
from p2pnode.node.peer_snapshot import EdgeView
from p2pnode.node.picture import World, snapshot
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import fields_of, from_json
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame, MessageType, Slice

PEER = node_id("far")
ACK_DELAY = 0.005
RTT = 0.020


@dataclass
class Wire:
    """A transport over a link of ``rate`` bytes a second, in order and without loss."""

    rate: float
    meter: LinkMeter = field(init=False)
    now: float = 0.0
    ends: list[tuple[float, int]] = field(default_factory=list)
    free_at: float = 0.0

    def __post_init__(self) -> None:
        self.meter = LinkMeter(self, lambda peer: RTT, ACK_DELAY)

    def queued_bytes(self, peer: NodeId) -> int:
        return sum(size for acked_at, size in self.ends if acked_at > self.now)

    def send(self, *sizes: int, every: float = 0.0) -> None:
        """Send messages, and let each be acknowledged."""
        for size in sizes:
            self.free_at = max(self.free_at, self.now) + size / self.rate
            self.ends.append((self.free_at + RTT + ACK_DELAY, size))
            self.meter.sent(PEER, size, self.now)
            self.now += every
        for acked_at, _ in self.ends[-len(sizes) :]:
            self.now = max(self.now, acked_at)
            self.meter.look(self.now)


@given(st.floats(1e4, 1e7), st.integers(LARGE, 65536), st.integers(3, 20))
def test_the_rate_of_large_messages_is_found(rate: float, size: int, count: int) -> None:
    wire = Wire(rate)
    wire.send(*[size] * count)
    found = wire.meter.link(PEER)
    assert found.goodput is not None
    assert found.goodput > 0.99 * size * count / wire.now  # what anybody could see from outside
    assert found.delay == pytest.approx(RTT / 2)
    if size * count / rate > 4 * RTT:  # long enough for the way back to be little of it
        assert found.goodput == pytest.approx(rate, rel=0.35)


def test_small_messages_say_nothing_of_the_rate() -> None:
    wire = Wire(1e5)
    wire.send(*[LARGE - 1] * 50)
    assert not wire.meter.pending
    assert wire.meter.link(PEER) == Known(None, RTT / 2)


def test_a_few_measurements_are_not_enough() -> None:
    wire = Wire(1e5)
    wire.send(30_000, 30_000)
    assert wire.meter.goodput(PEER) is None
    wire.send(30_000)
    assert wire.meter.goodput(PEER) == pytest.approx(1e5, rel=0.1)


def test_a_trickle_between_does_not_make_the_link_look_slow() -> None:
    wire = Wire(1e5)
    for _ in range(4):
        wire.send(40_000, *[500] * 20, every=0.02)
    assert wire.meter.goodput(PEER) == pytest.approx(1e5, rel=0.2)


def test_it_is_faster_at_once_and_slower_after_several_messages() -> None:
    wire = Wire(1e5)
    wire.send(*[50_000] * 8)
    wire.rate = 1e6
    wire.send(50_000)
    assert wire.meter.goodput(PEER) == pytest.approx(1e6, rel=0.1)
    wire.rate = 1e5
    for _ in range(7):
        wire.send(50_000)
        assert wire.meter.goodput(PEER) == pytest.approx(1e6, rel=0.1)
    wire.send(50_000)
    assert wire.meter.goodput(PEER) == pytest.approx(1e5, rel=0.1)


def test_a_new_session_begins_without_a_past() -> None:
    wire = Wire(1e5)
    wire.send(*[50_000] * 4)
    wire.meter.sent(PEER, 50_000, wire.now)
    wire.meter.forget(PEER)
    assert not wire.meter.pending
    assert wire.meter.link(PEER) == Known()
    assert wire.meter.goodput(node_id("nobody")) is None


# Whole nodes on a link that becomes slow, and fast again

LAN = Link(latency=(0.0002, 0.0008))
SLOW = Link(latency=(0.004, 0.006), rate=30e3)
SLOW_FOR_F32 = Link(latency=(0.004, 0.006), rate=60e3)


def three() -> Swarm:
    swarm = Swarm(1, LAN, d_model=256, n_heads=8, n_kv_heads=4)
    for name, layers in {"a": range(2), "b": range(2, 4), "c": range(4, 6)}.items():
        swarm.add(name, layers)
    swarm.introduce("a", "b", "c")
    assert swarm.network.run_until(swarm.is_ready, 20)
    return swarm


def ask(swarm: Swarm, activations: str | None = "auto") -> float:
    """Let ``a`` ask with a prompt of 200 tokens; return the virtual seconds it took."""
    began = swarm.network.now
    prompt = tuple(3 + index % 200 for index in range(200))
    request = GenerationRequest(
        prompt, 12, Sampling(), frozenset(), wait=20.0, activations=activations
    )
    number = swarm.generate("a", request)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 100)
    assert len(swarm.tokens("a", number)) == 12
    return swarm.network.now - began


def as_faces_get_it(swarm: Swarm, name: str) -> NodeSnapshot:
    taken = snapshot(swarm.nodes[name], World(), swarm.network.now)
    return from_json(json.loads(json.dumps(taken, default=fields_of)))


def edges(swarm: Swarm, name: str) -> dict[str, EdgeView]:
    """Return the edges in the snapshot of ``name``, as faces get it, by kind."""
    picture = as_faces_get_it(swarm, name)
    return {edge.kind: edge for peer in picture.peers for edge in peer.edges}


def test_a_slow_link_makes_its_sender_step_down_and_a_fast_one_up_again() -> None:
    swarm = three()
    ask(swarm)
    assert {edge.coding for edge in edges(swarm, "b").values()} == {"f16"}
    swarm.network.set_links(swarm.address("b"), swarm.address("c"), SLOW)
    before = ask(swarm)
    for _ in range(3):
        after = ask(swarm)
    slow = edges(swarm, "b")
    assert slow["prompt"].coding == slow["token"].coding == "i8"  # q4 is beyond the budget here
    assert slow["prompt"].bytes_saved > 20_000
    assert set(slow["prompt"].steps_down) == {"the payload is the larger part of the step"}
    assert 0 < slow["prompt"].kl < 0.02
    assert after < 0.6 * before
    assert {edge.coding for edge in edges(swarm, "a").values()} == {"f16"}  # its link is fast
    swarm.network.set_links(swarm.address("b"), swarm.address("c"), LAN)
    for _ in range(4):
        ask(swarm)
    fast = edges(swarm, "b")
    assert {edge.coding for edge in fast.values()} == {"f16"}
    assert "the next finer coding would not be" in fast["prompt"].steps_up


def test_unasked_a_slow_link_stays_at_f32() -> None:
    swarm = three()
    swarm.network.set_links(swarm.address("b"), swarm.address("c"), SLOW_FOR_F32)
    expected = swarm.nodes["a"].config.inference.activations
    assert expected == "f32"
    for _ in range(3):
        ask(swarm, activations=None)
    assert edges(swarm, "b") == {}
    goodput = swarm.nodes["b"].links.goodput(swarm.nodes["c"].node_id)
    assert goodput == pytest.approx(SLOW_FOR_F32.rate, rel=0.4)  # it is measured all the same


def test_faces_show_how_an_answer_travelled() -> None:
    swarm = three()
    ask(swarm, "i8")
    ask(swarm, "f16")
    ask(swarm, None)
    picture = as_faces_get_it(swarm, "a")
    coded, rounded, plain = picture.generations
    assert (coded.activations, coded.codings) == ("i8", ("i8",))
    assert (rounded.activations, rounded.codings) == ("f16", ())
    assert (plain.activations, plain.codings) == ("f32", ())
    (peer,) = [peer for peer in picture.peers if peer.edges]
    assert (peer.name, peer.sends) == ("b", "i8")
    assert {edge.reason for edge in peer.edges} == {"an answer asked for it"}


def test_what_one_answer_asked_for_is_nothing_to_the_next() -> None:
    swarm = three()
    ask(swarm, "q4")
    ask(swarm, "auto")
    picture = as_faces_get_it(swarm, "a")
    assert picture.generations[-1].codings == ("f16",)


def test_what_is_known_of_a_way_ends_with_its_session() -> None:
    """Keys are free: ten new ones a second would leave 20 KB each second, for good."""
    swarm = three()
    a = swarm.nodes["a"]
    assert len(a.links._ways) == 2
    swarm.kill("b")
    swarm.call("c", lambda node, now: node.leave(now, drain=0.0))
    swarm.network.run(30)
    assert not a.endpoint.peers()
    assert not a.links._ways


def test_a_node_answers_a_frame_of_another_space_with_both_spaces() -> None:
    """Over the transport: the sender reads the refusal, and nothing was computed."""
    swarm = three()
    a, b = swarm.nodes["a"], swarm.nodes["b"]
    row = Slice(DType.F16, (1, 256), bytes(512))
    meta = Slice(DType.I8, (8,), (1).to_bytes(4, "little") + bytes(4))
    foreign = Frame(MessageType.THINK, 1, 1, 0xBADF00D, slices=(row, meta))
    swarm.call("a", lambda node, now: node.outbox.send_frame(b.node_id, foreign, now))
    swarm.network.run(1)
    assert b.inference.all_counters()["frame of another space"] == 1
    assert a.counters["error from a peer: SPACE_MISMATCH"] == 1
    assert a.model is not None
    expected = f"computes in space 0x{a.model.space_hash32:08x}, the frame is of 0x0badf00d"
    assert any(expected in line for line in a.log)
    assert not b.inference.stages()
