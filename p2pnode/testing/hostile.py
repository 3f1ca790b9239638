"""The ways in which a member of a simulated swarm may be hostile.

Each is a :class:`~p2pnode.testing.hostile_member.Conduct` of a whole production node. Those that
only talk hold no layers, so no plan has a reason to name them; whom they invent is another matter.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from p2pnode.inference.activations import Batch, to_frames, token_batch
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.messages import Edge, Open, Refused
from p2pnode.inference.work import Computed, Forward, WorkFailed
from p2pnode.membership.health import Health
from p2pnode.membership.members import prefix_of
from p2pnode.membership.messages import Digest, DigestEntry, Gossip
from p2pnode.membership.records import Accusation, Claim, Version, sign_claim
from p2pnode.sansio import NodeId
from p2pnode.testing.hostile_member import Conduct, HostileMember
from p2pnode.wire.ad import CapabilityAd
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

_SLOW = 2.8  # seconds a token: just below the patience of a requester that waits 3
_SYBILS = 3  # who accuse beside it
_GHOSTS = 24
_SESSIONS = 64  # as many as a stage serves at once
_MORE_SESSIONS = 8
_MOST_WORKED = 10


class Silent(Conduct):
    """Admits every session and never computes."""

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        pass


class Closes(Conduct):
    """Closes the requester's session at every third job."""

    def __init__(self, member: HostileMember) -> None:
        super().__init__(member)
        self._jobs = 0

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        self._jobs += 1
        if self._jobs % 3:
            self.member.compute(request)
            return
        node = self.member.node
        node.endpoint.close(_requester(forward), "bye", self.member.swarm.network.now)


class Refuses(Conduct):
    """Refuses what it has admitted, as soon as there is work."""

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        now = self.member.swarm.network.now
        for stage in self.member.node.inference.stages():
            if stage.session_key == forward.session:
                order = stage.order
                refusal = Refused(order.session, order.epoch, order.leg, "memory", "none left")
                self.member.say(_requester(forward), refusal, now)


class Fails(Conduct):
    """Says of every job that it failed, in words meant for a terminal."""

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        self.member.finish(request, WorkFailed("\x1b[2J\x1b]0;owned\x07 no"))


class NotFinite(Conduct):
    """Passes on hidden states that are no numbers."""

    def layers(self, n_layers: int) -> range | None:
        third = n_layers // 3  # not the last: that one passes on tokens
        return self.member.rng.choice([range(2 * third), range(third), range(third, 2 * third)])

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        value = self.member.rng.choice([np.nan, np.inf, -np.inf])
        dtype, kind = (
            (DType.F16, np.float16) if forward.out_dtype == "f16" else (DType.F32, np.float32)
        )
        width = 0 if self.member.node.model is None else self.member.node.model.d_model
        batches = []
        for batch in forward.batches:
            shape = (batch.rows, width)
            rows = Slice(dtype, shape, np.full(shape, value, kind).tobytes())
            batches.append(Batch(batch.start, batch.rows, ((rows,),)))
        self.member.finish(request, Computed(tuple(batches), 1))


class ImpossibleTokens(Conduct):
    """Answers with tokens that no vocabulary has."""

    def layers(self, n_layers: int) -> range | None:
        third = n_layers // 3  # with the last: nobody else passes on tokens
        starts = [0, third, 2 * third]
        return range(self.member.rng.choice(starts), n_layers)

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        if forward.sampling is None:  # others hold the end of this chain
            self.member.compute(request)
            return
        wanted = [batch for batch in forward.batches if batch.end >= forward.sample_from]
        tokens = tuple(token_batch((4_000_000_000,), batch.end) for batch in wanted)
        self.member.finish(request, Computed(tokens, 1))


class Slow(Conduct):
    """Promises a microsecond and takes 2.8 seconds a token; the tokens are right."""

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        self.member.compute(request, delay=_SLOW)


class Fades(Conduct):
    """Works well for some tokens, and then no more."""

    def __init__(self, member: HostileMember) -> None:
        super().__init__(member)
        self._left = member.rng.randint(1, _MOST_WORKED)

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        if self._left > 0:
            self._left -= 1
            self.member.compute(request)


class Accuses(Conduct):
    """Calls one honest member after the other suspect or dead, by claims and by digests."""

    interval = 0.5

    def __init__(self, member: HostileMember) -> None:
        super().__init__(member)
        self._told: set[NodeId] = set()
        self._sybils = [member.invent(f"sybil {number}") for number in range(_SYBILS)]

    def layers(self, n_layers: int) -> range | None:
        return None

    def speak(self, now: float) -> None:
        member = self.member
        peers = member.honest_peers()
        for peer in [peer for peer in peers if peer not in self._told]:
            self._told.add(peer)
            introduced = [member.record(sybil, 0, range(0)) for sybil in self._sybils]
            member.gossip(peer, introduced, Gossip(), now)
        versions = _versions(member)
        accused = [peer for peer in peers if peer in versions]
        if not accused:
            return
        victim = member.rng.choice(accused)
        version = versions[victim]
        word = member.rng.choice([Accusation.SUSPECT, Accusation.DEAD])
        tag = member.node.origin.swarm_tag
        claims = [
            sign_claim(Claim(word, claimant.node_id, victim, version), claimant, tag)
            for claimant in (member.node.origin.identity, *self._sybils)
        ]
        prefix = prefix_of(victim)
        entry = DigestEntry(prefix, version, Health.DEAD)
        for peer in peers:
            member.gossip(peer, claims if peer != victim else [], Gossip(), now)
            member.gossip(peer, [], Digest(False, prefix, prefix, (entry,)), now)


class Invents(Conduct):
    """Signs records of members that do not exist, offer all layers and never age."""

    interval = 1.5

    def __init__(self, member: HostileMember) -> None:
        super().__init__(member)
        born = len(member.identities)
        self._ghosts = [member.invent(f"ghost {born + number}") for number in range(_GHOSTS)]
        self._incarnation = 0

    def layers(self, n_layers: int) -> range | None:
        return None

    def speak(self, now: float) -> None:
        everything = range(self.member.swarm.n_layers)
        records = [self.member.record(one, self._incarnation, everything) for one in self._ghosts]
        self._incarnation += 1
        for peer in self.member.honest_peers():
            self.member.gossip(peer, records, Gossip(), now)


class Hoards(Conduct):
    """Holds every session and all KV memory that the stages of others will give."""

    interval = 1.0

    def __init__(self, member: HostileMember) -> None:
        super().__init__(member)
        self._asked: set[NodeId] = set()

    def layers(self, n_layers: int) -> range | None:
        return None

    def speak(self, now: float) -> None:
        served = _served(self.member)
        for peer in self.member.honest_peers():
            layers = served.get(peer)
            if layers is None:
                continue
            for _ in range(_MORE_SESSIONS if peer in self._asked else _SESSIONS):
                self._open(peer, layers, now)
            self._asked.add(peer)

    def _open(self, peer: NodeId, layers: range, now: float) -> None:
        """Open a session; one in two is small, and begun, so that it looks alive."""
        member = self.member
        session, stream = (member.rng.getrandbits(bits) for bits in (64, 32))
        begins = layers.start == 0 and member.rng.random() < 0.5
        positions = 2 if begins else 0 if member.node.model is None else _context(member)
        edge = Edge(member.node.node_id, stream)
        order = Open(session, 0, 0, layers, positions, edge, edge, "f16", None, 0)
        member.say(peer, order, now)
        if begins:
            for frame in to_frames(token_batch((7,), 0), stream, member.space):
                member.send(peer, frame, now)


class Floods(Conduct):
    """Is somebody new every second, offers all layers, and computes nothing."""

    interval = 1.0

    def layers(self, n_layers: int) -> range | None:
        return range(n_layers)

    def work(self, request: ComputeRequested, forward: Forward) -> None:
        pass

    def speak(self, now: float) -> None:
        self.member.swarm.network.after(0.0, lambda moment: self.member.appear())


WAYS: Mapping[str, type[Conduct]] = MappingProxyType(
    {
        "silent": Silent,
        "closes": Closes,
        "refuses": Refuses,
        "fails": Fails,
        "not-finite": NotFinite,
        "impossible-tokens": ImpossibleTokens,
        "slow": Slow,
        "fades": Fades,
        "accuses": Accuses,
        "invents": Invents,
        "hoards": Hoards,
        "floods": Floods,
    }
)
"""By the words that a scenario has for them."""


def _requester(forward: Forward) -> NodeId:
    """Return who asked for the session: its key begins with that."""
    return NodeId(forward.session[:32])


def _context(member: HostileMember) -> int:
    return 0 if member.node.model is None else member.node.model.context_length


def _versions(member: HostileMember) -> dict[NodeId, Version]:
    return {one.record.node_id: one.record.version for one in member.node.swim.members()}


def _served(member: HostileMember) -> dict[NodeId, range]:
    """Return the layers of everybody who serves some."""
    ads = {
        one.record.node_id: CapabilityAd.decode_untrusted(one.record.ad)
        for one in member.node.swim.members()
    }
    return {peer: ad.layers for peer, ad in ads.items() if ad.layers}
