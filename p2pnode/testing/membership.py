"""A vocabulary for tests and simulations of membership: whole swarms on the virtual network."""

import hashlib
from collections import defaultdict
from random import Random
from typing import TypeVar

from p2pnode.membership import Health, MembershipConfig, MembershipEvent, Swim, simulation
from p2pnode.membership.claimants import IsHeard
from p2pnode.membership.messages import Gossip, Packet, encode_packet
from p2pnode.sansio import NodeId
from p2pnode.testing.links import Link
from p2pnode.testing.network import VirtualNetwork

TAG = b"swarm--1"
LAN = Link(latency=(0.001, 0.010), mtu=65_000)
"""A home network under a transport: what is sent as bulk arrives whole."""


KindT = TypeVar("KindT")


class ToySigner:
    """Signs by a keyed hash: quick, and as good as ed25519 against everyone in this file."""

    def __init__(self, name: str) -> None:
        self.node_id = NodeId(hashlib.blake2b(name.encode(), digest_size=32).digest())

    def sign(self, message: bytes, /) -> bytes:
        return hashlib.blake2b(message, key=self.node_id).digest()


def toy_verify(node_id: NodeId, message: bytes, signature: bytes) -> bool:
    return hashlib.blake2b(message, key=node_id).digest() == signature


class Swarm:
    """Nodes named by short words, on one network."""

    def __init__(
        self,
        seed: int = 1,
        link: Link = LAN,
        config: MembershipConfig | None = None,
        is_heard: IsHeard = lambda peer, now: False,
    ) -> None:
        self.network = VirtualNetwork[NodeId, MembershipEvent](seed, link)
        self.config = config or simulation()
        self.is_heard = is_heard
        self.cores: dict[str, Swim] = {}
        self.seed = seed
        self._boots: defaultdict[str, int] = defaultdict(int)

    def start(self, name: str, *, tag: bytes = TAG, boot_epoch: int | None = None) -> Swim:
        """Start a node, or start it anew."""
        self._boots[name] += 1
        core = Swim(
            self.config,
            ToySigner(name),
            toy_verify,
            tag,
            self._boots[name] if boot_epoch is None else boot_epoch,
            (("192.0.2.1", 4000 + len(self.cores)),),
            f"ad of {name}".encode().ljust(200, b"."),
            Random(f"{self.seed} {name} {self._boots[name]}"),
            self.network.now,
            is_heard=self.is_heard,
        )
        self.cores[name] = core
        self.network.attach(core.node_id, core)
        return core

    def join(self, name: str, peer: str) -> None:
        core, other = self.cores[name], self.cores[peer].node_id
        self.network.call(core.node_id, lambda now: core.join(other, now))

    def grow(self, *names: str, settle: float = 5.0) -> None:
        """Start nodes; each joins the first."""
        for name in names:
            self.start(name)
            if name != names[0]:
                self.join(name, names[0])
        self.run(settle)

    def kill(self, name: str) -> None:
        self.network.detach(self.cores.pop(name).node_id)

    def leave(self, name: str) -> None:
        core = self.cores[name]
        self.network.call(core.node_id, core.leave)

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def partition(self, one: list[str], other: list[str]) -> None:
        self.network.partition(self.ids(one), self.ids(other))

    def ids(self, names: list[str]) -> list[NodeId]:
        return [ToySigner(name).node_id for name in names]

    def replay_head(self, name: str) -> bytes:
        """Return an empty gossip of ``name``, to which old news can be appended."""
        return encode_packet(Packet(self.cores[name].record.version, None, Gossip()))

    def health(self, viewer: str, subject: str) -> Health | None:
        """Return what ``viewer`` believes of ``subject``; None if it knows nothing."""
        wanted = ToySigner(subject).node_id
        for member in self.cores[viewer].members():
            if member.record.node_id == wanted:
                return member.health
        return None

    def agrees(self) -> bool:
        """Return whether every running node believes every other alive, and nobody else."""
        running = {core.node_id for core in self.cores.values()}
        return all(
            {m.record.node_id for m in core.members() if m.health is Health.ALIVE}
            == running - {core.node_id}
            for core in self.cores.values()
        )

    def events(self, name: str, kind: type[KindT]) -> list[tuple[float, KindT]]:
        """Return what happened of one kind at one node, and when."""
        wanted = ToySigner(name).node_id
        return [
            (at, event)
            for at, node, event in self.network.story
            if node == wanted and isinstance(event, kind)
        ]

    def story_of(self, name: str, since: float) -> list[type[MembershipEvent]]:
        """Return the kinds of what happened at one node after a moment, in order."""
        wanted = ToySigner(name).node_id
        return [
            type(event) for at, node, event in self.network.story if node == wanted and at > since
        ]

    def count(self, *kinds: type[MembershipEvent]) -> int:
        return sum(isinstance(event, kinds) for _, _, event in self.network.story)
