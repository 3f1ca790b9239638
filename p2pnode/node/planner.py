"""The scheduler's view of the swarm, drawn from live membership each time it is asked."""

from collections.abc import Mapping, Set as AbstractSet
from dataclasses import dataclass

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import GenerationError, RemoteProtocolError
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.terms import rungs_of_mask
from p2pnode.membership.health import Health
from p2pnode.membership.members import Member
from p2pnode.membership.swim import Swim
from p2pnode.node.advert import DTYPES, Advert
from p2pnode.sansio import Address, NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun, plan_chain, plan_repair
from p2pnode.scheduler.directory import Offer, offer_from_ad
from p2pnode.scheduler.standing import Standing
from p2pnode.transport.endpoint import Endpoint
from p2pnode.wire.capability import CapabilityAd
from p2pnode.wire.states import Rung


class DirectoryPlanner:
    """Answers inference's question who can run what, from the ads of those alive."""

    def __init__(
        self,
        node_id: NodeId,
        advert: Advert,
        swim: Swim,
        endpoint: Endpoint,
        silent: AbstractSet[NodeId],
    ) -> None:
        self.node_id = node_id
        self._advert = advert
        self._swim = swim
        self._endpoint = endpoint
        self._silent = silent

    def offers(self) -> list[Offer]:
        """Return what every known node offers, ourselves included."""
        ours = offer_from_ad(self.node_id, self._advert.compose(), alive=True)
        return [ours, *(self._offer(member, ad) for member, ad in self.members() if ad)]

    def members(self) -> list[tuple[Member, CapabilityAd | None]]:
        """Return every other node that membership knows, with its ad where it can be read."""
        return [
            (member, _ad_untrusted(member.record.ad))
            for member in self._swim.members()
            if member.record.node_id != self.node_id
        ]

    def view(self, request: GenerationRequest, standing: Standing, now: float) -> "DirectoryView":
        """Return a picture of this moment to plan an answer from."""
        del now
        return DirectoryView(self, tuple(self.offers()), self._model(), request, standing)

    def rungs(self, peer: NodeId) -> frozenset[Rung]:
        """Return the codings of hidden states that ``peer`` has advertised; f16 always."""
        if peer == self.node_id:
            return rungs_of_mask(DTYPES)
        for member, ad in self.members():
            if member.record.node_id == peer and ad is not None:
                return rungs_of_mask(ad.dtypes)
        return rungs_of_mask(0)

    def rtt_us(self, one: NodeId, other: NodeId) -> float | None:
        """Return the round trip between two nodes: measured where we are one, else estimated."""
        if one == other:
            return 0.0
        if self.node_id in {one, other}:
            measured = self.measured_rtt(other if one == self.node_id else one)
            if measured is not None:
                return measured * 1e6
        estimate = self._swim.estimate_rtt(one, other)
        return None if estimate is None else estimate * 1e6

    def measured_rtt(self, peer: NodeId) -> float | None:
        """Return our own round trip to ``peer``, in seconds.

        Both the transport and the probes measure it, each only when it has something to send, and
        both can only err upwards: a busy machine answers late, never early.
        """
        both = (self._endpoint.rtt(peer), self._swim.measured_rtt(peer))
        return min((rtt for rtt in both if rtt is not None), default=None)

    def name_of(self, peer: NodeId) -> str:
        """Return the peer's own name for itself, or the head of its key."""
        if peer == self.node_id:
            return self._advert.name
        for member, ad in self.members():
            if member.record.node_id == peer and ad is not None and ad.name:
                return ad.name
        return peer.hex()[:8]

    def addresses_of(self, peer: NodeId) -> tuple[Address, ...]:
        for member in self._swim.members():
            if member.record.node_id == peer:
                return tuple(member.record.addresses)
        return ()

    def _offer(self, member: Member, ad: CapabilityAd) -> Offer:
        peer = member.record.node_id
        trouble = "" if member.health is Health.ALIVE else member.health.name.lower()
        if peer in self._silent:
            trouble = "silent"
        return offer_from_ad(peer, ad, alive=not trouble, trouble=trouble)

    def _model(self) -> ModelInfo:
        if self._advert.model is None:
            raise GenerationError("this node has no model")
        return self._advert.model


@dataclass(frozen=True, slots=True)
class DirectoryView:
    """The offers of one moment, and whom to plan without."""

    planner: DirectoryPlanner
    offers: tuple[Offer, ...]
    model: ModelInfo
    request: GenerationRequest
    standing: Standing

    @property
    def is_brief(self) -> bool:
        """Asked on the loop for now."""
        return True

    def chain(self) -> ChainPlan | NoCover:
        """Find the cheapest chain over all layers."""
        model, request = self.model, self.request
        return plan_chain(
            self.offers,
            requester=self.planner.node_id,
            space_hash32=model.space_hash32,
            n_layers=model.n_layers,
            d_model=model.d_model,
            rtt_us=self.planner.rtt_us,
            kv_bytes_needed=lambda layers: stage_bytes(model, layers, request.positions),
            objective=request.objective,
            prefer=request.prefer,
            avoid=request.avoid,
            exclude=self.standing.excluded,
        )

    def repair(
        self, lost: range, ends: tuple[NodeId, NodeId], excluded: Mapping[NodeId, str]
    ) -> tuple[StageRun, ...] | NoCover:
        """Find peers for exactly the ``lost`` layers, between the two ``ends``."""
        model, request = self.model, self.request
        return plan_repair(
            self.offers,
            lost=lost,
            upstream=ends[0],
            downstream=ends[1],
            space_hash32=model.space_hash32,
            n_layers=model.n_layers,
            d_model=model.d_model,
            rtt_us=self.planner.rtt_us,
            kv_bytes_needed=lambda layers: stage_bytes(model, layers, request.positions),
            prefer=request.prefer,
            avoid=request.avoid,
            exclude={**self.standing.excluded, **excluded},
        )

    def rungs(self, peer: NodeId) -> frozenset[Rung]:
        """Return the codings that ``peer`` reads."""
        return self.planner.rungs(peer)


def _ad_untrusted(data: bytes) -> CapabilityAd | None:
    """Read a member's ad; a broken one is as good as none, and no reason to fail here."""
    try:
        return CapabilityAd.decode_untrusted(data)
    except RemoteProtocolError:
        return None
