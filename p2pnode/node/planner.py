"""The scheduler's view of the swarm, drawn from the directory of members."""

from collections.abc import Iterable, Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import GenerationError, RemoteProtocolError, UserError
from p2pnode.inference.memory import stage_bytes, value_bytes
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.terms import out_dtype, rungs_of_mask
from p2pnode.membership.coordinates import Coordinate
from p2pnode.membership.directory import Directory, Line, head_of
from p2pnode.membership.health import Health
from p2pnode.membership.members import Member
from p2pnode.membership.swim import Swim
from p2pnode.node.advert import DTYPES, Advert
from p2pnode.sansio import Address, NodeId
from p2pnode.scheduler.demand import requests_of
from p2pnode.scheduler.directory import Offer, runs_of
from p2pnode.scheduler.distances import Distances
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.transport.endpoint import Endpoint
from p2pnode.wire.ad import NEWEST, Ability, AdState, CapabilityAd
from p2pnode.wire.states import Rung

_THERE = frozenset({Health.ALIVE, Health.SUSPECT})


class _Drawn(NamedTuple):
    """An offer, and all that it was drawn from."""

    line: Line[CapabilityAd]
    trouble: str
    offer: Offer


class DirectoryPlanner:
    """Answers inference's question who can run what, from the ads of those alive."""

    def __init__(
        self,
        node_id: NodeId,
        advert: Advert,
        swim: Swim,
        endpoint: Endpoint,
        silent: AbstractSet[NodeId],
        chunk: int,
    ) -> None:
        """``chunk``: tokens of a prompt that are computed as one batch."""
        self.node_id = node_id
        self._advert = advert
        self._swim = swim
        self._endpoint = endpoint
        self._silent = silent
        self._chunk = chunk
        self.directory = Directory[CapabilityAd](
            swim, _ad_untrusted, lambda ad: ad.name, lambda ad: ad.spaces
        )
        self._drawn: dict[tuple[NodeId, int], _Drawn] = {}

    def offers(self, space: int) -> list[Offer]:
        """Return what every known node offers, ourselves included.

        Of a node that offers several models, the offer of this space is taken, or its first.
        """
        self._forget_gone()
        return [
            self._ours(space),
            *(self._offer(line, line.ad, space) for line in self.directory if line.ad is not None),
        ]

    def offers_of(self, space: int) -> list[Offer]:
        """Return what every node offers of one space, ourselves included."""
        self._forget_gone()
        lines = self.directory.of_space(space)
        others = [self._offer(line, line.ad, space) for line in lines if line.ad is not None]
        ours = self._ours(space)
        return [ours, *others] if ours.space_hash32 == space else others

    def missing(self, model: ModelInfo, *, without_us: bool = False) -> tuple[range, ...]:
        """Return the runs of layers that nobody alive serves, or nobody but us."""
        held = {
            layer
            for offer in self.offers_of(model.space_hash32)
            if offer.alive and offer.state is AdState.SERVING
            if not (without_us and offer.peer == self.node_id)
            for layer in offer.layers
        }
        return tuple(runs_of(layer for layer in range(model.n_layers) if layer not in held))

    def requests(self, space: int) -> float:
        """Return how much all nodes ask of a model, by their words; see :class:`Demand`."""
        offers = self.offers_of(space)
        return requests_of(offer.ad.demand for offer in offers if offer.alive)

    def has_old_reader(self) -> bool:
        """Whether a member reads ads of version 1 alone, and is there."""
        return any(
            line.ad is not None and line.ad.reads < NEWEST and line.member.health in _THERE
            for line in self.directory
        )

    def members(self) -> list[tuple[Member, CapabilityAd | None]]:
        """Return every other node that membership knows, with its ad where it can be read."""
        return [(line.member, line.ad) for line in self.directory]

    def view(self, request: GenerationRequest, standing: Standing, now: float) -> PlanView:
        """Return a picture of ``now`` to plan an answer from; hidden states go as it says."""
        model, positions = self._model(request.space), request.positions
        sent = out_dtype(request.activations or "f32")
        offers = tuple(self.offers(model.space_hash32))
        if standing.places:
            address_of = self._endpoint.address_of
            offers = tuple(replace(offer, address=address_of(offer.peer)) for offer in offers)
        codings = {offer.peer: offer.ad.dtypes for offer in offers}
        distances = self.distances(offer.peer for offer in offers)
        return PlanView(
            wanted=Wanted(
                requester=self.node_id,
                space_hash32=model.space_hash32,
                n_layers=model.n_layers,
                d_model=model.d_model,
                kv_bytes_needed=partial(_kv_bytes, model, positions, sent),
                kv_bytes_at_cut=partial(_kv_bytes, model, positions, "f32"),
                objective=request.objective,
                prefer=request.prefer,
                avoid=request.avoid,
                notes=request.notes,
                value_bytes=value_bytes(sent),
                needs=_needs(request.sampling),
                prompt=len(request.prompt),
                held=request.held,
                chunk=self._chunk,
            ),
            offers=offers,
            rtt_us=distances.rtt_us,
            standing=standing,
            rungs=lambda peer: rungs_of_mask(codings.get(peer, 0)),
            rtts_us=distances.rtts_us,
            taken_at=now,
        )

    def distances(self, peers: Iterable[NodeId]) -> Distances:
        """Return what is known now of the round trips between ``peers`` and us."""
        measured, places = dict[NodeId, float](), dict[NodeId, Coordinate]()
        for peer in (self.node_id, *peers):
            place = self._swim.place_of(peer)
            if place is not None:
                places[peer] = place
            rtt = self.measured_rtt(peer)
            if rtt is not None:
                measured[peer] = rtt
        return Distances(self.node_id, places, measured)

    def rungs(self, peer: NodeId) -> frozenset[Rung]:
        """Return the codings of hidden states that ``peer`` has advertised; f16 always."""
        if peer == self.node_id:
            return rungs_of_mask(DTYPES)
        line = self.directory.line(peer)
        return rungs_of_mask(0 if line is None or line.ad is None else line.ad.dtypes)

    def rtt_us(self, one: NodeId, other: NodeId) -> float | None:
        """Return the round trip between two nodes: measured where we are one, else estimated."""
        return self.distances((one, other)).rtt_us(one, other)

    def measured_rtt(self, peer: NodeId) -> float | None:
        """Return our own round trip to ``peer``, in seconds.

        Both the transport and the probes measure it, each only when it has something to send, and
        both can only err upwards: a busy machine answers late, never early.
        """
        both = (self._endpoint.rtt(peer), self._swim.measured_rtt(peer))
        return min((rtt for rtt in both if rtt is not None), default=None)

    def name_of(self, peer: NodeId) -> str:
        """Return the peer's own name for itself, or the head of its key."""
        return self._advert.name if peer == self.node_id else self.directory.name_of(peer)

    def label_of(self, peer: NodeId) -> str:
        """Return the peer's name, with the head of its key where others are called so too."""
        others = self.directory.named(self._advert.name)
        if peer == self.node_id:
            return f"{self._advert.name} ({head_of(peer)})" if others else self._advert.name
        if peer in others:
            return f"{self._advert.name} ({head_of(peer)})"
        return self.directory.label_of(peer)

    def find(self, text: str) -> list[NodeId]:
        """Return whom a person means by a name, or by the head of a key; an exact name wins."""
        named = self.directory.named(text)
        if text == self._advert.name:
            return [self.node_id, *named]
        if named:
            return named
        ours = [self.node_id] * (bool(text) and self.node_id.hex().startswith(text.lower()))
        return [*ours, *self.directory.find(text)]

    def meant(self, text: str) -> NodeId | None:
        """Return the one whom a person means, or None if nobody is called so.

        Raises:
            UserError: Several are.
        """
        found = self.find(text)
        if len(found) > 1:
            labels = ", ".join(self.label_of(peer) for peer in found)
            raise UserError(
                f"more than one peer is called {text!r}: {labels}",
                hint="say the first letters of the key of the one you mean",
            )
        return found[0] if found else None

    def addresses_of(self, peer: NodeId) -> tuple[Address, ...]:
        member = self._swim.member(peer)
        return () if member is None else tuple(member.record.addresses)

    def _ours(self, space: int) -> Offer:
        told = self._advert.offer_of(space)
        trouble = "" if told is None else told.trouble
        ad = self._advert.compose(is_for_us=True).of_space(space)
        return Offer(self.node_id, ad, trouble=trouble)

    def _forget_gone(self) -> None:
        """Keep no offer of those whom the directory has no line of any more."""
        if len(self._drawn) > len(self.directory) * max(1, len(self._advert.offers)):
            line, told = self.directory.line, self._advert.offer_of
            self._drawn = {
                (peer, space): drawn
                for (peer, space), drawn in self._drawn.items()
                if line(peer) is not None and told(space) is not None
            }

    def _offer(self, line: Line[CapabilityAd], ad: CapabilityAd, space: int) -> Offer:
        """Draw the offer of a line, or take the one drawn before if nothing has changed."""
        peer, health = line.peer, line.member.health
        trouble = "" if health is Health.ALIVE else health.name.lower()
        if health is Health.SUSPECT and self._is_only_accused(line.member):
            trouble = ""
        if peer in self._silent:
            trouble = "silent"
        known = self._drawn.get((peer, space))
        if known is None or known[:2] != (line, trouble):
            ad = ad.of_space(space)
            offer = Offer(peer, ad, alive=not trouble, trouble=trouble, met=line.met)
            known = self._drawn[peer, space] = _Drawn(line, trouble, offer)
        return known.offer

    def _is_only_accused(self, member: Member) -> bool:
        """Whether nothing but the word of others is against a member whose session is up."""
        peer = member.record.node_id
        return member.claimant != self.node_id and self._endpoint.is_connected(peer)

    def _model(self, space: int) -> ModelInfo:
        """Return a model of ours; the first one where none is named."""
        offers = self._advert.offers
        told = self._advert.offer_of(space) if space else next(iter(offers), None)
        if told is None:
            raise GenerationError("this node has no such model")
        return told.model


def _needs(sampling: Sampling) -> Ability:
    """Return what whoever draws must be able to, beyond what every version is."""
    if sampling.mean:
        return Ability.MEANS
    needs = Ability(0) if replace(sampling, schema="", ends=()).is_plain else Ability.SAMPLING
    return needs | Ability.SCHEMAS if sampling.schema else needs


def _kv_bytes(model: ModelInfo, positions: int, out_dtype: str, layers: int, kv: int) -> int:
    return stage_bytes(model, layers, positions, out_dtype, kv or None)


def _ad_untrusted(data: bytes) -> CapabilityAd | None:
    """Read a member's ad; a broken one is as good as none, and no reason to fail here."""
    try:
        return CapabilityAd.decode_untrusted(data)
    except RemoteProtocolError:
        return None
