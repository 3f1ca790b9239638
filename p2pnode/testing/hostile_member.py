"""A hostile machine in a simulated swarm: whole production nodes, and somebody who bends them.

It holds the swarm's secret, so it breaks no seal and forges no other's signature. It lies about its
speed, its engine does what its *conduct* says, and it speaks beside what its node would say. When
it is found out it comes back at the same address under a fresh key.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Literal, TypeAlias

from p2pnode.engine.base import StageCost
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.messages import Control
from p2pnode.inference.work import Forward, WorkResult
from p2pnode.membership.coordinates import Coordinate
from p2pnode.membership.messages import Message, Packet, encode_packet
from p2pnode.membership.records import News, Record, SignedRecord, sign_record
from p2pnode.node.core import NodeCore
from p2pnode.sansio import Address, NodeId
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.events import Delivery
from p2pnode.transport.identity import Identity
from p2pnode.wire.ad import AdState, CapabilityAd
from p2pnode.wire.vframe import Frame

FASTEST = StageCost(1, 1, 1, 1)
"""What every hostile machine says its layers cost."""

Rekeying: TypeAlias = Literal["answer", "named", "never"]
"""When it takes a fresh key: after each answer, when a requester named it, or never."""
REKEYINGS: tuple[Rekeying, ...] = ("answer", "named", "never")

HOSTILE = "hostile"
"""What the names of hostile machines begin with."""

_NOTICES = 0.5  # seconds from being named to coming back: a round trip and a start


class Conduct:
    """How a hostile machine behaves in one of its lives; this one is honest.

    Attributes:
        interval: Seconds between two calls of :meth:`speak`; None for never.
    """

    interval: float | None = None

    def __init__(self, member: "HostileMember") -> None:
        self.member = member

    def layers(self, n_layers: int) -> range | None:
        """Return what it offers to run, all of it or a third; None for nothing."""
        third = n_layers // 3
        runs = [range(n_layers), range(third), range(third, 2 * third), range(2 * third, n_layers)]
        return self.member.rng.choice([runs[0], self.member.rng.choice(runs[1:])])

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        """Do, or do not do, the work of a stage."""
        self.member.compute(request)

    def speak(self, now: float) -> None:
        """Say something unasked."""


class HostileMember:
    """One hostile machine, in one life after another.

    Attributes:
        swarm: Where it is.
        name: Its place on the network.
        honest: Names of those it calls.
        rng: What its choices are drawn from.
        identities: Every key it has had or invented, with a word for people.
        jobs: How much work it was given, in all its lives.
    """

    def __init__(
        self,
        swarm: Swarm,
        name: str,
        honest: Sequence[str],
        conduct: Callable[["HostileMember"], Conduct],
        rekeying: Rekeying,
        rng: Random,
    ) -> None:
        self.swarm = swarm
        self.name = name
        self.honest = tuple(honest)
        self.rng = rng
        self.identities: dict[NodeId, str] = {}
        self.jobs = 0
        self._conduct_of = conduct
        self._rekeying = rekeying
        self._lives = 0
        self._present: set[NodeId] = set()  # the keys of this life

    # Its lives

    def appear(self) -> None:
        """Start at its address under a fresh key, the fastest of all by its own word."""
        self._lives += 1
        self._present.clear()
        conduct = self._conduct_of(self)
        layers = conduct.layers(self.swarm.n_layers)
        key = f"{self.name} life {self._lives}"
        node = self.swarm.add(
            self.name,
            layers,
            key=key,
            holds=layers is not None,
            cost=FASTEST,
            computer=lambda request: self._work(conduct, request),
            inference=InferenceConfig(batching=False),  # conduct is towards one session at a time
        )
        self._claim(node.node_id, key)
        for address in map(self.swarm.address, self.honest):
            self.swarm.call(self.name, partial(_connect, address))
        if conduct.interval is not None:
            self._speak_later(conduct, conduct.interval, self._lives)

    def answer_over(self) -> None:
        """An answer has ended: the moment to be somebody else."""
        if self._rekeying == "answer":
            self.appear()

    def named(self, peers: Sequence[NodeId]) -> None:
        """A requester has given up ``peers``."""
        if self._rekeying == "named" and not self._present.isdisjoint(peers):
            life = self._lives
            self.swarm.network.after(
                _NOTICES, lambda now: self.appear() if life == self._lives else None
            )

    @property
    def node(self) -> NodeCore:
        """What it is in this life."""
        return self.swarm.nodes[self.name]

    def invent(self, word: str) -> Identity:
        """Return a key of nobody, counted as ours."""
        made = Identity(f"{self.name} {word}".encode().ljust(32, b".")[:32])
        self._claim(made.node_id, f"{self.name} {word}")
        return made

    # Its work

    def compute(self, request: ComputeRequested, *, delay: float = 0.0) -> None:
        """Do the work as it should be done, ``delay`` seconds late."""
        self.swarm.compute(self.name, request, delay=delay)

    def finish(self, request: ComputeRequested, result: WorkResult) -> None:
        """Say at once that this came of the work."""
        self.swarm.finish(self.name, request, result)

    # Its words

    def honest_peers(self) -> list[NodeId]:
        """Return the honest nodes that a session is up with, in the order of their names."""
        ids = [self.swarm.nodes[name].node_id for name in self.honest]
        return [peer for peer in ids if self.node.endpoint.is_connected(peer)]

    def say(self, peer: NodeId, message: Control, now: float) -> None:
        self.send(peer, control_frame(message, self.space), now)

    def send(self, peer: NodeId, frame: Frame, now: float) -> None:
        self.node.outbox.send_frame(peer, frame, now)

    def gossip(self, peer: NodeId, news: Sequence[News], message: Message, now: float) -> None:
        """Send news that our own node would not."""
        packet = Packet(self.node.swim.record.version, Coordinate(), message, tuple(news))
        data = encode_packet(packet)
        if self.node.endpoint.is_connected(peer):
            self.node.endpoint.send(peer, data, Delivery.BULK, now)

    def record(self, identity: Identity, incarnation: int, layers: range) -> SignedRecord:
        """Return a record of somebody who does not exist, or is us."""
        model = self.node.model
        if model is None:
            raise AssertionError("every node of a simulation has a model")
        ad = CapabilityAd(
            name=self.identities[identity.node_id],
            model=model.name,
            space_hash32=model.space_hash32,
            n_layers=model.n_layers,
            d_model=model.d_model,
            first_layer=layers.start,
            layer_count=len(layers),
            state=AdState.SERVING if layers else AdState.JOINING,
            decode_fixed_us=FASTEST.decode_fixed_us,
            decode_layer_us=FASTEST.decode_layer_us,
            head_us=FASTEST.head_us,
            prefill_layer_ns=FASTEST.prefill_layer_ns,
            numerics=self.node.advert.compose().numerics,  # whatever the honest ones say
            kv_free_bytes=1 << 40,
            kv_total_bytes=1 << 40,
            device="cpu",
            dtypes=0,
        )
        address = self.swarm.address(self.name)
        record = Record(identity.node_id, incarnation, 1, (address,), ad.encode())
        return sign_record(record, identity, self.node.origin.swarm_tag)

    @property
    def space(self) -> int:
        return 0 if self.node.model is None else self.node.model.space_hash32

    # Helpers

    def _claim(self, key: NodeId, word: str) -> None:
        self.identities[key] = word
        self._present.add(key)

    def _work(self, conduct: Conduct, request: ComputeRequested) -> None:
        if not isinstance(request.work, Forward):
            self.compute(request)
            return
        self.jobs += 1
        conduct.work(request, request.work)

    def _speak_later(self, conduct: Conduct, interval: float, life: int) -> None:
        def speak(now: float) -> None:
            if life != self._lives:
                return  # it is somebody else by now
            self.swarm.call(self.name, lambda core, moment: conduct.speak(moment))
            self._speak_later(conduct, interval, life)

        self.swarm.network.after(interval, speak)


def _connect(address: Address, core: NodeCore, now: float) -> None:
    core.connect(address, now)


def deal(ways: Sequence[str], members: int, seed: int) -> tuple[str, ...]:
    """Draw ``members`` different ways by seed, so that neighbouring seeds soon show all of them.

    The ways are shuffled as a pack of cards and dealt to one seed after the other.
    """
    hands = len(ways) // members
    pack, hand = divmod(seed - 1, hands)
    cards = list(ways)
    Random(f"pack {pack}").shuffle(cards)
    return tuple(cards[hand * members : (hand + 1) * members])


def who_is(members: Sequence[HostileMember]) -> dict[NodeId, str]:
    """Return every hostile key so far, with a word for people."""
    return {peer: word for member in members for peer, word in member.identities.items()}
