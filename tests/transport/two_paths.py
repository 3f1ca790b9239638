"""Stories of two endpoints, told with the fast path and without it."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from p2pnode.errors import QueueFullError
from p2pnode.sansio import Address
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link
from p2pnode.testing.pair import Endpoints
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.connection import Connection
from p2pnode.transport.events import Delivery, TransportEvent
from p2pnode.transport.frames import ACK, shard_header
from p2pnode.transport.snapshot import TransportSnapshot

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


def snapshots(told: Told) -> list[TransportSnapshot]:
    return [view for view in told.views if isinstance(view, TransportSnapshot)]
