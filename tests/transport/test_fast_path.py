"""The fast path and the general one do the same: every byte, event, counter and timer."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings, strategies as st

from p2pnode.errors import QueueFullError
from p2pnode.sansio import Address
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link
from p2pnode.testing.pair import Endpoints
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.connection import Connection
from p2pnode.transport.events import Delivery, PeerConnected, TransportEvent
from p2pnode.transport.frames import (
    ACK,
    PING_FRAME,
    Ack,
    ack_of_run,
    close_frame,
    done_frame,
    shard_header,
)
from p2pnode.transport.parity import CLEAN as CLEAN_PACKETS
from p2pnode.transport.recovery import Recovery, SentPacket
from p2pnode.transport.snapshot import TransportSnapshot
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
class Move:
    """Alice goes on at another address, which the links of before lead to."""

    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Renew:
    """The session ends, and alice begins another; bob as the process of before, or anew."""

    is_new_process: bool = False
    pause: float = 0.5


@dataclass(frozen=True, slots=True)
class Forged:
    """What alice seals in one datagram, all of it counted from what would be honest next.

    Attributes:
        ack: By how much its highest number is below the next one of bob's, its length, and the
            gaps and lengths of further ranges.
        shard: Delivery, number from alice's next one on, length, count, index, bytes too many.
        between: Further frames, between the two.
    """

    ack: tuple[int, int, tuple[tuple[int, int], ...]] | None = None
    shard: tuple[int, int, int, int, int, int] | None = None
    between: bytes = b""
    pause: float = 0.0

    def frames(self, next_of_bob: int, next_message: int) -> bytes:
        parts = [b"", self.between]
        if self.ack is not None:
            below, length, further = self.ack
            largest = max(0, next_of_bob - below)
            parts[0] = struct.pack("<BQHBH", ACK, largest, 0, len(further), length)
            parts[0] += b"".join(struct.pack("<HH", *edges) for edges in further)
        if self.shard is not None:
            delivery, ahead, length, count, index, more = self.shard
            each = -(-length // max(count, 1))
            size = length - each * (count - 1) if index == count - 1 else each
            number = max(0, next_message + ahead)
            parts.append(shard_header(delivery, number, length, count, index))
            parts.append(bytes([index]) * max(0, size + more))
        return b"".join(parts)


Happening: TypeAlias = Act | Move | Renew | Forged


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that anybody can see of two endpoints: each view of them, bytes and events."""

    views: list[object]
    trace: str
    story: list[tuple[float, Address, TransportEvent]]


class Stage:
    """Two connected endpoints of these ``configs``, and what is seen of them."""

    def __init__(self, seed: int, *configs: TransportConfig) -> None:
        self.peers = Endpoints(seed, CLEAN)
        self.rng = Random(seed)
        self.configs = configs
        self.link = CLEAN
        self.views: list[object] = []
        self.alice, self.bob = (
            self.peers.add(name, config=config)
            for name, config in zip(("alice", "bob"), configs, strict=True)
        )
        self.connect()

    def connect(self) -> None:
        peers, alice, bob = self.peers, self.alice, self.bob
        peers.connect(alice, bob)
        assert peers.network.run_until(lambda: peers.are_connected(alice, bob), 10)

    def play(self, happening: Happening) -> None:
        match happening:
            case Act():
                self._act(happening)
            case Move():
                self._move()
            case Renew(is_new_process=is_new_process):
                self._renew(is_new_process=is_new_process)
            case Forged():
                self._forge(happening)
        network = self.peers.network
        if not isinstance(happening, Act):
            network.run(happening.pause)
        for one in (self.alice, self.bob):
            endpoint = self.peers.endpoints[one]
            self.views += [endpoint.next_timeout(), endpoint.snapshot(network.now)]

    def connection(self, one: Address, other: Address) -> Connection | None:
        return self.peers.endpoints[one]._by_peer.get(self.peers.node_id(other))

    def _act(self, act: Act) -> None:
        peers, ways = self.peers, ((self.alice, self.bob), (self.bob, self.alice))
        if act.weather is not None:
            self._set_links(WEATHER[act.weather])
        for _ in range(act.count):
            for source, destination in ways[: 1 + act.both]:
                payload = self.rng.randbytes(act.size)
                if self.connection(source, destination) is not None:
                    try:
                        peers.send(source, destination, payload, act.delivery)
                    except QueueFullError as error:
                        self.views.append(str(error))
            peers.network.run(act.pause)

    def _move(self) -> None:
        peers, (name, port) = self.peers, self.alice
        endpoint = peers.endpoints.pop(self.alice)
        peers.network.detach(self.alice)
        self.alice = (name, port + 1)
        peers.endpoints[self.alice] = endpoint
        self._set_links(self.link)
        peers.network.attach(self.alice, endpoint)

    def _renew(self, *, is_new_process: bool) -> None:
        peers = self.peers
        bob, endpoint = peers.node_id(self.bob), peers.endpoints[self.alice]
        self._set_links(CLEAN)
        if is_new_process:
            peers.add("bob", config=self.configs[1])
            peers.connect(self.bob, self.alice)
        else:
            peers.network.call(self.alice, lambda now: endpoint.close(bob, "enough", now))
            peers.connect(self.alice, self.bob)

    def _forge(self, forged: Forged) -> None:
        ours = self.connection(self.alice, self.bob)
        theirs = self.connection(self.bob, self.alice)
        if ours is not None and theirs is not None:
            network = self.peers.network
            frames = forged.frames(theirs.next_number, ours._outbound._next_id)
            network.send(self.alice, self.bob, ours._session.seal(frames, network.now))

    def _set_links(self, link: Link) -> None:
        self.link = link
        self.peers.network.set_links(self.alice, self.bob, link)


def tell(happenings: Iterable[Happening], seed: int, *configs: TransportConfig) -> Told:
    """Let these things happen to two endpoints of these ``configs``."""
    stage = Stage(seed, *configs)
    for happening in happenings:
        stage.play(happening)
    network = stage.peers.network
    network.run(2)
    return Told(stage.views, network.trace_hash(), list(network.story))


def assert_all_the_same(happenings: Sequence[Happening], seed: int, **settings: float) -> Told:
    """Tell the story with the fast path, without it, and with one at each end; return it."""
    fast, general = replace(FAST, **settings), replace(GENERAL, **settings)  # type: ignore[arg-type]
    told = tell(happenings, seed, general, general)
    assert tell(happenings, seed, fast, fast) == told
    assert tell(happenings, seed, fast, general) == told
    return told


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


def begin(weather: str) -> list[Happening]:
    """Return what makes the path a clean one, where that lasts."""
    return [BECOME_CLEAN if weather == "clean" else Act(300, count=20)]


def snapshots(told: Told) -> list[TransportSnapshot]:
    return [view for view in told.views if isinstance(view, TransportSnapshot)]


@given(acts=st.lists(ACTS, min_size=1, max_size=6), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_both_paths_do_the_same(acts: list[Act], seed: int) -> None:
    assert_all_the_same(acts, seed)


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
        assert_all_the_same(acts, seed)


@pytest.mark.parametrize("weather", ["clean", "narrow", "everything"])
def test_while_the_peer_moves(weather: str) -> None:
    """What was under way goes to where it was, and what follows is of another path."""
    acts: list[Happening] = [
        *begin(weather),
        Act(900, count=20, weather=weather, pause=0.0001),
        Move(),
        Act(1000, count=20, pause=0.0001),
        Act(4000, count=5, pause=0.002),
        Move(pause=0.02),
        Act(200, count=20, both=False),
        Move(),
        Act(1000, count=30, pause=0.02),
    ]
    told = assert_all_the_same(acts, 1)
    addresses = {link.address for view in snapshots(told) for link in view.connections}
    assert addresses >= {("alice", port) for port in (1, 2, 3, 4)}


@pytest.mark.parametrize("weather", ["clean", "everything"])
def test_while_keys_are_replaced(weather: str) -> None:
    acts = [
        *begin(weather),
        Act(900, count=60, weather=weather),
        Act(4000, count=10, pause=0.0),
        Act(300, count=20, delivery=Delivery.BULK, both=False),
        Act(700, count=20, pause=0.03),
    ]
    told = assert_all_the_same(acts, 1, rekey_seconds=0.05)
    assert min(snapshots(told)[-1].connections[0].epochs) > 10


@pytest.mark.parametrize("is_new_process", [False, True])
@pytest.mark.parametrize("weather", ["clean", "everything"])
def test_while_the_session_is_renewed(weather: str, is_new_process: bool) -> None:
    acts = [
        *begin(weather),
        Act(900, count=20, weather=weather, pause=0.0001),
        Renew(is_new_process=is_new_process, pause=0.0),
        Act(900, count=20, pause=0.0003),
        Act(4000, count=3, pause=0.3),
        Renew(is_new_process=not is_new_process),
        Act(900, count=20, weather=weather, pause=0.0),
        Act(900, count=20),
    ]
    told = assert_all_the_same(acts, 1)
    assert sum(isinstance(event, PeerConnected) for _, _, event in told.story) >= 6


FORGED_ACK = st.tuples(
    st.integers(-2, 40),
    st.sampled_from([0, 0, 1, 3, 20, 0xFFFF]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=3).map(tuple),
)
FORGED_SHARD = st.tuples(
    st.sampled_from([0, 0, 0, 0x80, 1, 2]),
    st.integers(-3, 3),
    st.sampled_from([0, 1, 223, 450, 900, 901, 1000, 4000, 65_537]),
    st.sampled_from([1, 1, 2, 2, 3, 4, 5, 60, 0]),
    st.integers(0, 5),
    st.sampled_from([0, 0, 0, 0, 1, -1]),
)
FORGED = st.builds(
    Forged,
    ack=st.one_of(st.none(), FORGED_ACK),
    shard=st.one_of(st.none(), FORGED_SHARD, FORGED_SHARD),
    between=st.sampled_from([b"", b"", b"", PING_FRAME, done_frame(0), b"\x08", b"\6x"]),
    pause=st.sampled_from([0.0, 0.0, 0.001, 0.03]),
)


@given(
    acts=st.lists(st.one_of(FORGED, FORGED, FORGED, FORGED, ACTS), min_size=2, max_size=16),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None)
def test_whatever_a_peer_with_the_right_keys_seals(acts: list[Happening], seed: int) -> None:
    assert_all_the_same([*acts, Act(900, count=3)], seed)


def test_a_peer_that_breaks_the_rules_on_a_clean_path() -> None:
    """Each rule, where the fast path is taken both ways and messages are in flight."""
    stale_ack = struct.pack("<BQHBH", ACK, 0, 0, 0, 0)
    forged = [
        (Forged(shard=(0, 1, 500, 1, 0, 1)),),  # of another size than it says
        (Forged(shard=(0, 1, 0, 2, 0, 0)),),  # nothing, in two
        (Forged(shard=(0, 1, 400, 2, 0, 0)),),  # smaller shards than any path asks for
        (Forged(shard=(0, 30_000, 500, 1, 0, 0)),),  # far ahead
        (Forged(shard=(0, -1, 500, 1, 0, 0)), Forged(shard=(0, -1, 900, 2, 1, 0))),  # again
        (
            Forged(shard=(0, 0, 900, 3, 0, 0)),
            Forged(shard=(0, 0, 900, 3, 0, 0)),  # twice
            Forged(shard=(0, 0, 899, 3, 1, 0)),  # of a message that changed
            Forged(shard=(1, 0, 900, 3, 1, 0)),  # as another class
            Forged(shard=(0, 0, 900, 2, 1, 0)),  # of a coarser cut
            Forged(shard=(0, 0, 900, 3, 3, 0)),  # parity
            Forged(shard=(0, 0, 900, 4, 1, 0)),  # of a finer cut, and back
            Forged(shard=(0, 0, 900, 3, 1, 0)),
            *(Forged(shard=(0x80, 0, 900, 4, index, 0)) for index in (3, 1, 0, 2, 2)),
        ),
        (Forged(ack=(0, 0, ())),),  # of what was never sent
        (Forged(ack=(-9, 40, ()), shard=(0, 2, 300, 1, 0, 0)),),
        (Forged(ack=(1, 0xFFFF, ())), Forged(ack=(1, 0, ((0xFFFF, 0),)))),  # below zero
        (Forged(ack=(30, 3, ())),),  # of what was acknowledged already
        (Forged(ack=(1, 0, ())), Forged(ack=(2, 9, ()))),  # leaving a hole, and filling it
        (Forged(ack=(1, 3, ((0, 1), (1, 1))), shard=(0, 2, 300, 1, 0, 0)),),
        (Forged(ack=(1, 0, ()), between=PING_FRAME), Forged(between=stale_ack)),
        (Forged(ack=(1, 0, ()), between=stale_ack),),  # two
        (Forged(between=b"\x09"), Forged()),  # no frame, and none at all
    ]
    burst = Act(900, count=4, pause=0.0)
    acts: list[Happening] = [BECOME_CLEAN]
    for group in forged:
        acts += [burst, *group, Act(900)]
    acts.append(Forged(between=close_frame("enough"), pause=0.01))
    told = assert_all_the_same(acts, 1)
    assert snapshots(told)[-1].counters.keys() >= {
        *("frame_malformed", "ack_of_unsent", "message_ahead"),
        *("shard_mismatch", "shard_too_small"),
    }
    assert not snapshots(told)[-1].connections


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
    assert_all_the_same(acts, 4)
    recovery = Recovery(FAST, 0.001)
    for number in range(6):
        recovery.sent(SentPacket(number, 0.0, 100, None, 0, 0, -1, False))
    recovery.receive_ack_untrusted(Ack(((5, 5),), 0.0), 6, 0.01)  # 0 to 4 are taken for lost
    recovery.receive_ack_untrusted(Ack(((0, 5),), 0.0), 6, 0.02)  # and were only late
    recovery.sent(SentPacket(6, 0.02, 100, None, 0, 0, -1, False))
    assert recovery.receive_run_untrusted(0, 6, 0.0, 0.03)
