"""The fast path and the general one do the same: every byte, event, counter and timer."""

from dataclasses import dataclass, replace
from itertools import product
from random import Random

import pytest
from hypothesis import example, given, settings, strategies as st

from p2pnode.errors import QueueFullError
from p2pnode.sansio import Address
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link
from p2pnode.testing.pair import Endpoints
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import Delivery, TransportEvent
from p2pnode.transport.frames import Ack, ack_of_run, shard_header
from p2pnode.transport.parity import CLEAN as CLEAN_PACKETS
from p2pnode.transport.recovery import Recovery, SentPacket
from tests.transport.read_alike import assert_read_alike

FAST = TransportConfig.simulation()
GENERAL = replace(FAST, fast_path=False)

CLEAN = Link(latency=(0.0001, 0.0002))
WEATHER = {
    "clean": CLEAN,
    "lossy": replace(CLEAN, loss=Bernoulli(0.03)),
    "bursts": replace(CLEAN, loss=GilbertElliott(0.02, 0.4)),
    "rare loss": replace(CLEAN, loss=Bernoulli(0.002)),
    "reordering": replace(CLEAN, reorder=0.1, reorder_by=0.01),
    "duplicating": replace(CLEAN, duplicate=0.2),
    "corrupting": replace(CLEAN, corrupt=0.05),
    "slow": replace(CLEAN, rate=2e6, latency=(0.01, 0.02)),
    "narrow": replace(CLEAN, mtu=1280),
    "everything": Link(
        loss=Bernoulli(0.05), reorder=0.05, duplicate=0.05, corrupt=0.02, latency=(0.001, 0.004)
    ),
    "silence": replace(CLEAN, loss=Bernoulli(1.0)),
}


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that happens: messages one way or both, then time passes, perhaps new weather."""

    size: int
    count: int = 1
    delivery: Delivery = Delivery.LATENCY
    both: bool = True
    pause: float = 0.003
    weather: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that anybody can see of two endpoints: each view of them, bytes and events."""

    views: list[object]
    trace: str
    story: list[tuple[float, Address, TransportEvent]]


def tell(acts: list[Act], seed: int, *configs: TransportConfig) -> Told:
    """Run ``acts`` between two endpoints of these ``configs``."""
    peers = Endpoints(seed, CLEAN)
    alice, bob = (
        peers.add(name, config=config)
        for name, config in zip(("alice", "bob"), configs, strict=True)
    )
    peers.connect(alice, bob)
    assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 10)
    views: list[object] = []
    rng = Random(seed)
    for act in acts:
        if act.weather is not None:
            peers.network.set_links(alice, bob, WEATHER[act.weather])
        for _ in range(act.count):
            for source, destination in ((alice, bob), (bob, alice))[: 1 + act.both]:
                payload = rng.randbytes(act.size)
                if peers.endpoints[source].is_connected(peers.node_id(destination)):
                    try:
                        peers.send(source, destination, payload, act.delivery)
                    except QueueFullError as error:
                        views.append(str(error))
            peers.network.run(act.pause)
        for one in (alice, bob):
            endpoint = peers.endpoints[one]
            views += [endpoint.next_timeout(), endpoint.snapshot(peers.network.now)]
    peers.network.run(2)
    return Told(views, peers.network.trace_hash(), list(peers.network.story))


ACTS = st.builds(
    Act,
    size=st.one_of(st.integers(0, 1300), st.sampled_from([1390, 1400, 1401, 1402, 3000, 20_000])),
    count=st.sampled_from([1, 2, 3, 10, 40]),
    delivery=st.sampled_from([Delivery.LATENCY, Delivery.LATENCY, Delivery.BULK]),
    both=st.booleans(),
    pause=st.sampled_from([0.0, 0.0002, 0.003, 0.03, 0.3]),
    weather=st.one_of(st.none(), st.sampled_from(sorted(WEATHER))),
)
BECOME_CLEAN = Act(300, count=CLEAN_PACKETS + 10)


@given(acts=st.lists(ACTS, min_size=1, max_size=6), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_both_paths_do_the_same(acts: list[Act], seed: int) -> None:
    general = tell(acts, seed, GENERAL, GENERAL)
    assert tell(acts, seed, FAST, FAST) == general
    assert tell(acts, seed, FAST, GENERAL) == general


@pytest.mark.parametrize("weather", sorted(WEATHER))
def test_on_a_path_that_was_clean_for_long(weather: str) -> None:
    """Where acknowledgements may wait, and then the weather turns, and turns back."""
    acts = [
        BECOME_CLEAN,
        Act(1000, count=60, weather=weather),
        Act(200, count=30, pause=0.0),
        Act(700, count=30, both=False, pause=0.0005),
        Act(1000, count=60, weather="clean"),
        Act(9000, count=3),
        Act(600, count=20),
    ]
    for seed in range(2):
        general = tell(acts, seed, GENERAL, GENERAL)
        assert tell(acts, seed, FAST, FAST) == general
        assert tell(acts, seed, FAST, GENERAL) == general


def test_the_fast_path_is_taken() -> None:
    """Else the comparison above would compare the general path with itself."""
    peers = Endpoints(1, CLEAN)
    alice, bob = peers.add("alice", config=FAST), peers.add("bob", config=FAST)
    peers.connect(alice, bob)
    peers.network.run(1)
    sender = peers.endpoints[alice]._by_peer[peers.node_id(bob)]._sender
    assert sender.send_few(b"x" * 1000, peers.network.now) == 0
    assert sender.send_few(b"x" * 4000, peers.network.now) == 1
    assert sender.send_few(b"x" * 20_000, peers.network.now) is None


RUN = st.tuples(st.integers(0, 2**40), st.integers(0, 2**16 - 1), st.floats(0, 1))
SHARD = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.integers(0, 6),
    st.integers(0, 6),
    st.binary(max_size=60),
    st.sampled_from([0, 1, 2, 0x80]),
)


@given(run=st.one_of(st.none(), RUN), shard=st.one_of(st.none(), SHARD), is_fit=st.booleans())
def test_plain_frames_are_read_as_all_frames_are(
    run: tuple[int, int, float] | None,
    shard: tuple[int, int, int, int, bytes, int] | None,
    is_fit: bool,
) -> None:
    frames = b""
    if run is not None:
        low, length, delay = run
        frames = ack_of_run(low, low + length, delay)
        assert frames == Ack(((low, low + length),), delay).encode(1000)
    if shard is not None:
        number, length, count, index, data, delivery = shard
        if is_fit and count:  # of the bytes that such a shard has
            size = -(-length // count)
            data = bytes(size if index != count - 1 else max(0, length - size * index))
        frames += shard_header(delivery, number, length, count, index) + data
    assert_read_alike(frames)


@given(frames=st.binary(max_size=60))
@example(frames=bytes([1]) + bytes(13))
@example(frames=bytes([7]) + bytes(11))
def test_what_is_no_plain_frame_is_left_alone(frames: bytes) -> None:
    assert_read_alike(frames)
    assert_read_alike(b"\x01" + frames)
    assert_read_alike(b"\x07" + frames)


def test_every_small_shard_is_read_as_all_frames_are() -> None:
    """Also those whose last one would be empty, which the general path refuses."""
    for delivery, length, count, index in product((0, 0x80, 1, 2), range(13), range(6), range(6)):
        for size in range(14):
            assert_read_alike(shard_header(delivery, 7, length, count, index) + bytes(size))


def test_a_packet_that_was_only_overtaken_leaves_the_fast_path_open() -> None:
    acts = [
        BECOME_CLEAN,
        Act(800, count=100, weather="reordering", pause=0.0005),
        Act(800, count=20, weather="clean", pause=0.3),
    ]
    general = tell(acts, 4, GENERAL, GENERAL)
    assert tell(acts, 4, FAST, FAST) == general
    recovery = Recovery(FAST, 0.001)
    for number in range(6):
        recovery.sent(SentPacket(number, 0.0, 100, None, 0, 0, -1, False))
    recovery.receive_ack_untrusted(Ack(((5, 5),), 0.0), 6, 0.01)  # 0 to 4 are taken for lost
    recovery.receive_ack_untrusted(Ack(((0, 5),), 0.0), 6, 0.02)  # and were only late
    recovery.sent(SentPacket(6, 0.02, 100, None, 0, 0, -1, False))
    assert recovery.receive_run_untrusted(0, 6, 0.0, 0.03)
