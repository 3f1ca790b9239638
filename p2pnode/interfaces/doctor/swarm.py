"""The running node's swarm: who is seen but does no work, why, and which layers are missing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from p2pnode.interfaces.doctor.findings import Finding, mib
from p2pnode.interfaces.doctor.model import LEAST_CONTEXT
from p2pnode.interfaces.doctor.processor import LATE_MS
from p2pnode.node.holdings import AS_WAS_ASKED
from p2pnode.node.peer_snapshot import PeerView
from p2pnode.node.snapshot import NodeSnapshot, ways

STUCK = 60.0
"""Seconds of uptime after which a node that still joins or loads is worth a word: a guess."""

# As the reasons of a snapshot begin, or have in them.
_UNANSWERED = "no answer"
_OTHER_SWARM = "another swarm"
_OTHER_SPACE = "another embedding space"


def explain_swarm(picture: NodeSnapshot, kv_bytes_per_token_layer: int = 0) -> Iterator[Finding]:
    """Say what is wrong in the swarm as one node sees it.

    Args:
        picture: The node's.
        kv_bytes_per_token_layer: What a token costs in one layer; 0 where that is not known.
    """
    yield explain_node(picture)
    yield from _strangers(picture)
    for peer in picture.peers:
        if _is_stranger(peer):
            continue
        finding = explain_peer(peer, picture, kv_bytes_per_token_layer)
        if finding is not None:
            yield finding
    yield from _calls(picture)
    yield from explain_network(picture)
    yield from explain_layers(picture)
    yield from explain_numerics(picture)
    if picture.loop_late_ms[1] > LATE_MS:
        what = f"the node's event loop was {picture.loop_late_ms[1]:.0f} ms late (p99)"
        yield Finding("node", "warn", what, "other programs keep its processor busy")


def explain_node(picture: NodeSnapshot) -> Finding:
    """Say what this node itself does."""
    what = f"{picture.name} is {picture.state}" + (f": {picture.reason}" if picture.reason else "")
    if picture.state == "idle":
        if not picture.model:
            return Finding("node", "ok", what, "to answer or to hold layers: p2pnode up --model")
        if picture.reason.startswith(AS_WAS_ASKED):
            return Finding("node", "ok", f"{picture.name} holds no layers, as its owner asked")
        return Finding("node", "warn", what, "the file or the memory is not enough: see above")
    if picture.state in ("joining", "loading") and picture.uptime_s > STUCK:
        return Finding("node", "warn", what, "see its log: p2pnode top")
    return Finding("node", "ok", what)


def explain_peer(
    peer: PeerView, picture: NodeSnapshot, kv_bytes_per_token_layer: int = 0
) -> Finding | None:
    """Say why a peer does no work and what to do; None for one that works."""
    name = peer.name or peer.node_id[:8]
    if peer.state == "serving" and not _is_other_space(peer, picture):
        return _of_memory(name, peer, peer.kv_bytes_per_token_layer or kv_bytes_per_token_layer)
    explain = _EXPLANATIONS.get(peer.state)
    if _is_other_space(peer, picture):
        explain = _of_space
    if explain is None:
        return Finding("peer", "warn", f"{name} is {peer.state}: {peer.reason}", "")
    what, advice = explain(peer, picture)
    return Finding("peer", "ok" if peer.state in _HARMLESS else "warn", f"{name} {what}", advice)


def explain_network(picture: NodeSnapshot) -> Iterator[Finding]:
    """Say what of finding peers does not work, and who of those named by hand was not reached."""
    if picture.mdns_problem:
        yield Finding("mdns", "warn", picture.mdns_problem, _BY_HAND)
    for one in picture.called:
        yield Finding("calls", "warn", f"{one.address}: {one.reason}", _FIREWALL)


_BY_HAND = "peers are found all the same with: p2pnode up --peer HOST:PORT, p2pnode join CODE"


def explain_layers(picture: NodeSnapshot) -> Iterator[Finding]:
    """Say which layers nobody serves, and who could fill them."""
    if not picture.model:
        return
    if len(picture.models) < 2:
        space = picture.space_hash32
        yield from _explain_model(picture, picture.model, space, picture.missing_layers)
    else:
        for one in picture.models:
            yield from _explain_model(picture, one.name, one.space_hash32, one.missing_layers)


def _explain_model(
    picture: NodeSnapshot, name: str, space: int, missing: Sequence[tuple[int, int]]
) -> Iterator[Finding]:
    if not missing:
        yield Finding("layers", "ok", f"every layer of {name} is served")
    for first, stop in missing:
        what = f"nobody serves layers [{first}, {stop}) of {name}"
        near = _who_could_fill(picture, space, first, stop)
        run = f"--layers {first}:{stop}"
        if len(picture.models) > 1:
            run = f"--model {name.partition('@')[0]}={first}:{stop}"
        start = f"start another node: p2pnode up {run} --state DIR --port 0"
        advice = f"{'; '.join(near)}; or {start}" if near else start
        yield Finding("layers", "warn", what, advice)


def explain_numerics(picture: NodeSnapshot) -> Iterator[Finding]:
    """Say who computes how: where a swarm mixes, a failover may change an answer's bits."""
    older = [peer.name or peer.node_id[:8] for peer in picture.peers if _keeps_ads_old(peer)]
    if older:
        what = f"an older p2pnode runs on {', '.join(older)}: meanwhile nobody says how it computes"
        yield Finding("numerics", "warn", what, "run the same version on all")
    known = ways(picture)
    if len(known) == 1 and any(known):
        yield Finding("numerics", "ok", f"all compute as {next(iter(known))}")
    elif any(known):
        who = "; ".join(f"{', '.join(names)} as {said or '?'}" for said, names in known.items())
        what = f"this swarm computes in {len(known)} ways: {who}"
        advice = "two of each kind keep answers bit-reproducible when one of them is lost"
        yield Finding("numerics", "ok", what, advice)


def _keeps_ads_old(peer: PeerView) -> bool:
    return peer.is_older and not peer.is_gone


def _who_could_fill(picture: NodeSnapshot, space: int, first: int, stop: int) -> list[str]:
    """Name those that hold or claim some of a model's layers, and those with nothing to do."""
    found = []
    if picture.state in ("joining", "loading"):
        found.append("this node is about to hold layers: wait")
    elif picture.state == "idle":
        found.append(f"this node holds none: start it with --layers {first}:{stop}")
    for peer in picture.peers:
        name, ours = peer.name or peer.node_id[:8], not _is_other_space(peer, picture)
        low, high = _held(peer, space)
        overlaps = low < stop and first < high
        if overlaps and ours and peer.state == "joining":
            found.append(f"{name} is loading [{low}, {high}): wait")
        elif overlaps and ours and peer.state == "resting":
            found.append(f"{name} rests with [{low}, {high}): {peer.reason}")
        elif overlaps and ours and peer.state in ("suspect", "dead", "left"):
            found.append(f"{name} had [{low}, {high}): bring it back")
        elif peer.state == "idle":
            found.append(f"{name} holds none: start it there with --layers {first}:{stop}")
    return found


def _held(peer: PeerView, space: int) -> tuple[int, int]:
    """Return what a peer holds of a model, or held."""
    return next((one.layers for one in peer.offers if one.space_hash32 == space), peer.layers)


def _strangers(picture: NodeSnapshot) -> Iterator[Finding]:
    """Name the nodes of other swarms in one line: a neighbour's need no attention of ours."""
    names = [peer.name or peer.node_id[:8] for peer in picture.peers if _is_stranger(peer)]
    if not names:
        return
    works = any(peer.connected for peer in picture.peers) and not picture.missing_layers
    what = f"in another swarm, since their secret differs: {', '.join(names)}"
    advice = "those that should be in this one: p2pnode invite here, p2pnode join CODE there"
    yield Finding("peer", "ok" if works else "warn", what, advice)


def _is_stranger(peer: PeerView) -> bool:
    return peer.state == "seen" and _OTHER_SWARM in peer.reason


def _calls(picture: NodeSnapshot) -> Iterator[Finding]:
    """Read the counters: dials that came to nothing, and strangers who dialled."""
    counters = picture.counters
    strangers = counters.get("transport: handshake_wrong_secret", 0)
    if strangers:
        what = f"dropped handshakes with another swarm's secret, or garbage: {strangers}"
        advice = "a machine that should be in this swarm needs the code of: p2pnode invite"
        yield Finding("calls", "warn", what, advice)
    failed = counters.get("node: dial failed", 0)
    if failed and not any(peer.connected for peer in picture.peers):
        what = f"no session is up, and calls to other nodes came to nothing: {failed}"
        yield Finding("calls", "warn", what, _FIREWALL)
    if not picture.peers and not failed:
        advice = "start another, or: p2pnode invite"
        yield Finding("calls", "ok", "no other node has been seen yet", advice)


_FIREWALL = (
    "see that the other node runs, that its address and port are right, that both hold the same"
    " swarm secret (p2pnode invite, p2pnode join), and that UDP passes the firewalls"
)

_Explain = Callable[[PeerView, NodeSnapshot], tuple[str, str]]


def _is_other_space(peer: PeerView, picture: NodeSnapshot) -> bool:
    if peer.reason.startswith(_OTHER_SPACE):
        return True
    ours = {picture.space_hash32, *(one.space_hash32 for one in picture.models)} - {0}
    theirs = {peer.space_hash32, *(one.space_hash32 for one in peer.offers)} - {0}
    return bool(ours) and bool(theirs) and not ours & theirs


def _of_seen(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    where = peer.addresses[0] if peer.addresses else "its address"
    if _UNANSWERED in peer.reason:
        port = where.rpartition(":")[2]
        advice = f"let UDP port {port} through its firewall; or it was killed"
        return f"announces itself, but a call to {where} is not answered", advice
    return f"was seen, but no session is up: {peer.reason}", "wait some seconds; then " + _FIREWALL


def _of_space(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    what = f"runs {peer.model or 'a model'} from another file than our {picture.model}"
    return (
        what,
        "give both the very same file; nodes with different weights cannot share one answer",
    )


def _of_joining(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    first, stop = peer.layers
    loading = f"layers [{first}, {stop})" if stop > first else "its layers"
    return f"is still loading {loading}", "wait; it serves when it has measured itself"


def _of_draining(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    return "is leaving and takes nothing new", "nothing to do, unless its layers are missed"


def _of_resting(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    return f"rests: {peer.reason}", "nothing to do: it comes back by itself"


def _of_idle(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    if "another version" in peer.reason:
        return "runs another version of p2pnode", "run the same version on both"
    if not peer.space_hash32:
        return "has no model, so it only asks", "to let it work: p2pnode up --model there"
    return f"holds no layers: {peer.reason}", "to let it work: p2pnode up --layers auto there"


def _of_suspect(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    loss = f"; {peer.loss:.0%} of what we send is lost" if peer.loss > 0.05 else ""
    advice = "see whether that machine sleeps, is overloaded or has lost its network"
    return f"is suspected: {peer.reason}{loss}", advice


def _of_dead(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    return f"is dead: {peer.reason}", "start it again; it comes back by itself"


def _of_left(peer: PeerView, picture: NodeSnapshot) -> tuple[str, str]:
    return "has left the swarm", "nothing to do"


_EXPLANATIONS: Mapping[str, _Explain] = MappingProxyType(
    {
        "seen": _of_seen,
        "joining": _of_joining,
        "draining": _of_draining,
        "resting": _of_resting,
        "idle": _of_idle,
        "suspect": _of_suspect,
        "dead": _of_dead,
        "left": _of_left,
    }
)
_HARMLESS = frozenset({"left", "draining", "resting", "joining"})


def _of_memory(name: str, peer: PeerView, per_token_layer: int) -> Finding | None:
    """Say so where a peer that serves has no room for anybody's session."""
    layers = peer.layers[1] - peer.layers[0]
    if not peer.connected:
        what = f"{name} serves, but no session with it is up: {peer.reason or 'not yet called'}"
        return Finding("peer", "warn", what, _FIREWALL)
    if layers < 1:
        return None
    tokens = peer.kv_free_bytes // max(1, per_token_layer * layers)
    if per_token_layer == 0 or tokens >= LEAST_CONTEXT:
        return None
    what = (
        f"{name} has {mib(peer.kv_free_bytes)} left for KV caches:"
        f" {tokens} tokens in its {layers} layers"
    )
    return Finding("peer", "warn", what, "wait for its sessions to end, or --kv-memory 512 there")
