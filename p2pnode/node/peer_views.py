"""Draws the other nodes of a node's snapshot."""

from typing import TypedDict

from p2pnode.membership.directory import Line, head_of
from p2pnode.membership.health import Health
from p2pnode.membership.members import Member
from p2pnode.node.ad_facts import facts_of
from p2pnode.node.core import NodeCore
from p2pnode.node.peer_snapshot import EdgeView, PeerView
from p2pnode.node.sightings import Sighting
from p2pnode.sansio import NodeId, format_address
from p2pnode.transport.snapshot import ConnectionView, TransportSnapshot
from p2pnode.wire.ad import AdState, CapabilityAd
from p2pnode.wire.rest import rest_words

_AD_STATES = {
    AdState.JOINING: "joining",
    AdState.SERVING: "serving",
    AdState.DRAINING: "draining",
}
_HEALTH_STATES = {Health.SUSPECT: "suspect", Health.DEAD: "dead", Health.LEFT: "left"}
_GONE = (Health.DEAD, Health.LEFT)

GONE_SHOWN = 600.0
"""Seconds for which a peer that died or left is shown; membership remembers it longer, so that old
gossip cannot raise it. A guess: a coffee break."""


def peer_views(core: NodeCore, transport: TransportSnapshot, now: float) -> tuple[PeerView, ...]:
    """Return every node that ``core`` knows: members, and whoever announced himself besides."""
    links = {link.peer: link for link in transport.connections}
    edges = _edges(core)
    avoided = core.ledger.standing(now).excluded
    views = {
        line.peer: _member(
            core,
            line,
            links.get(line.peer),
            edges.get(line.peer, ()),
            avoided.get(line.peer, ""),
            now,
        )
        for line in core.planner.directory
        if not _has_faded(line.member, now)
    }
    for peer, sighting in core.dialer.sightings.known.items():
        if peer not in views:
            views[peer] = _sighted(core, peer, sighting, links.get(peer))
    return tuple(views.values())


def _has_faded(member: Member, now: float) -> bool:
    return member.health in _GONE and now - member.since > GONE_SHOWN


def _member(
    core: NodeCore,
    line: Line[CapabilityAd],
    link: ConnectionView | None,
    edges: tuple[EdgeView, ...],
    avoided: str,
    now: float,
) -> PeerView:
    record, ad = line.member.record, line.ad
    if ad is not None and core.model is not None:
        ad = ad.of_space(core.model.space_hash32)
    state, reason = _member_state(core, line.member, ad, now)
    if avoided and not reason:
        reason = f"avoided: {avoided}"
    return PeerView(
        node_id=record.node_id.hex(),
        name=line.name or head_of(line.peer),
        state=state,
        reason=reason,
        addresses=tuple(format_address(address) for address in record.addresses),
        connected=link is not None,
        **facts_of(ad),
        **_link(core, link),
        goodput=core.links.goodput(record.node_id),
        edges=edges,
        queued={of.label: held for of, held in core.outbox.queued(record.node_id).items()},
        gone_s=now - line.member.since if line.member.health in _GONE else None,
    )


def _edges(core: NodeCore) -> dict[NodeId, tuple[EdgeView, ...]]:
    """Return how hidden states leave, by the peer that they leave for."""
    views: dict[NodeId, tuple[EdgeView, ...]] = {}
    for key, state in sorted(core.inference.edges().items()):
        view = EdgeView(
            layer=key.layer,
            kind="prompt" if key.block else "token",
            coding=str(state.used),
            reason=state.why if state.used is state.rung else "an answer asked for it",
            kl=state.kl,
            bytes_saved=state.saved,
            steps_down=dict(state.down),
            steps_up=dict(state.up),
        )
        views[key.peer] = (*views.get(key.peer, ()), view)
    return views


def _member_state(
    core: NodeCore, member: Member, ad: CapabilityAd | None, now: float
) -> tuple[str, str]:
    if member.health in _HEALTH_STATES:
        return _HEALTH_STATES[member.health], member.reason or "it left"
    if member.record.node_id in core.silent:
        return "suspect", "does not acknowledge what we send"
    if shared := core.shared_keys.seen(member.record.node_id, now):
        return _AD_STATES[ad.state] if ad else "idle", shared
    if ad is None:
        return "idle", "its ad cannot be read: it runs another version"
    if not ad.space_hash32:
        return "idle", "it has no model"
    if core.model is not None and core.model_of(ad.space_hash32) is None:
        other = f"its {ad.model} is another file, or its p2pnode another version"
        return _AD_STATES[ad.state], f"another embedding space: {other}"
    if ad.resting:
        return "resting", rest_words(ad.resting)
    if ad.state is AdState.JOINING:
        return "joining", "it has not loaded its layers yet"
    return _AD_STATES[ad.state], ""


def _sighted(
    core: NodeCore, peer: NodeId, sighting: Sighting, link: ConnectionView | None
) -> PeerView:
    reason = sighting.reason if sighting.ours else "it belongs to another swarm (secrets differ)"
    return PeerView(
        node_id=peer.hex(),
        name=sighting.name or peer.hex()[:8],
        state="seen",
        reason=reason,
        addresses=tuple(format_address(address) for address in sighting.addresses),
        connected=link is not None,
        **facts_of(None),
        **_link(core, link),
    )


class _LinkFacts(TypedDict):
    rtt_ms: float | None
    loss: float
    bytes_in: int
    bytes_out: int
    last_heard_s: float | None


def _link(core: NodeCore, link: ConnectionView | None) -> _LinkFacts:
    if link is None:
        return _LinkFacts(rtt_ms=None, loss=0.0, bytes_in=0, bytes_out=0, last_heard_s=None)
    rtt = core.planner.measured_rtt(link.peer)
    return _LinkFacts(
        rtt_ms=None if rtt is None else 1e3 * rtt,
        loss=link.loss,
        bytes_in=link.bytes_in,
        bytes_out=link.bytes_out,
        last_heard_s=link.last_heard,
    )
