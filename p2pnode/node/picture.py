"""Draws a node's snapshot from its cores; the only place that knows both."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pnode.inference.generation import Generation
from p2pnode.inference.phase import Phase as GenerationPhase
from p2pnode.inference.stage import Stage
from p2pnode.inference.terms import names_of_mask
from p2pnode.node.core import NodeCore
from p2pnode.node.holding_life import HoldingPhase
from p2pnode.node.model_views import model_views
from p2pnode.node.narration import LEAVING
from p2pnode.node.peer_snapshot import CalledView, TrustView
from p2pnode.node.peer_views import peer_views
from p2pnode.node.snapshot import EngineView, GenerationView, NodeSnapshot, StageView
from p2pnode.phrases import holding
from p2pnode.sansio import format_address
from p2pnode.scheduler.trust import Entry
from p2pnode.transport.snapshot import TransportSnapshot

_DAY = 86400
_GENERATION_STATES = {
    GenerationPhase.PLANNING: "opening",
    GenerationPhase.OPENING: "opening",
    GenerationPhase.RUNNING: "running",
    GenerationPhase.ENDED: "finished",
}


@dataclass(frozen=True, slots=True)
class World:
    """What a core cannot know of the process it runs in.

    Attributes:
        listening: Where its socket is bound.
        loop_late_ms: Lateness of the loop's timer: p50, p99.
        receive_buffer_bytes: What the socket was granted.
        counters: Drops that the driver counted.
        mdns_problem: What does not work of finding peers on the local network.
        pid: The process it runs in; 0 in a simulation.
        cores: How its cores run: compiled or pure.
        resting: Why it rests, by what is seen now; empty where nobody looks.
        owners_cpu: Share of the CPU that others than this node use; None where nobody looks.
        limits: What its owner said that it may take.
        called: What each model is called, by its space.
        wall_s: Local time of day in seconds, as a clock on the wall; None in a simulation.
    """

    listening: tuple[str, ...] = ()
    loop_late_ms: tuple[float, float] = (0.0, 0.0)
    receive_buffer_bytes: int = 0
    counters: tuple[tuple[str, int], ...] = ()
    mdns_problem: str = ""
    pid: int = 0
    cores: str = ""
    resting: str = ""
    owners_cpu: float | None = None
    limits: tuple[str, ...] = ()
    called: Mapping[int, str] = field(default_factory=dict)
    wall_s: float | None = None


def snapshot(core: NodeCore, world: World, now: float) -> NodeSnapshot:
    """Return the whole picture of ``core`` at ``now``."""
    transport = core.endpoint.snapshot(now)
    first, model, served = core.first, core.model, core.served
    engine = None if first is None else first.offer.engine
    state, reason = _own_state(core, world, now)
    return NodeSnapshot(
        node_id=core.node_id.hex(),
        name=core.config.name,
        state=state,
        reason=reason,
        uptime_s=now - core.started_at,
        listening=world.listening,
        swarm_tag=core.origin.swarm_tag.hex(),
        model="" if model is None else model.name,
        space_hash32=0 if model is None else model.space_hash32,
        n_layers=0 if model is None else model.n_layers,
        layers=(served.start, served.stop),
        device=core.advert.shown_device,
        numerics="" if engine is None else engine.numerics,
        decode_us=0 if first is None else first.offer.decode_us,
        kv_used_bytes=core.inference.kv_used,
        kv_total_bytes=core.advert.kv_total,
        kept_bytes=core.inference.kept.used,
        kept_caches=len(core.inference.kept),
        missing_layers=missing_layers(core),
        peers=peer_views(core, transport, now),
        traffic=core.traffic.views(),
        generations=tuple(_generation(one, now) for one in core.inference.generations()),
        stages=tuple(_stage(core, one) for one in core.inference.stages()),
        counters=_counters(core, transport, world),
        loop_late_ms=world.loop_late_ms,
        receive_buffer_bytes=world.receive_buffer_bytes,
        log=tuple(core.log),
        log_times=_log_times(core, world, now),
        called=_called(core),
        reachable=tuple(format_address(address) for address in core.reach.addresses),
        mdns_problem=world.mdns_problem,
        trust=tuple(_trust(core, entry) for entry in core.ledger.entries(now)),
        strangers_believed_in_s=max(0.0, core.ledger.pause_until - now),
        strangers_believed_in_tokens=core.ledger.pause_tokens,
        pid=world.pid,
        cores=world.cores,
        owners_cpu=world.owners_cpu,
        limits=world.limits,
        software=core.advert.software,
        engine=_engine(core),
        models=model_views(core, world.called),
    )


def _engine(core: NodeCore) -> EngineView:
    queue = core.inference.engine_queue
    return EngineView(
        waiting=queue.waiting,
        steps=queue.steps,
        mean_sessions=round(queue.sessions, 2),
        mean_rows=round(queue.rows, 2),
        queued_ms=round(queue.queued * 1e3, 3),
        longest_queued_ms=round(queue.longest * 1e3, 3),
    )


def _log_times(core: NodeCore, world: World, now: float) -> tuple[str, ...]:
    """Return when each line of the log was noted, as a clock on the wall showed it."""
    if world.wall_s is None:
        return ()
    began = world.wall_s - now
    return tuple(_clock(began + moment) for moment in core.noted_at)


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds % _DAY), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"


def _called(core: NodeCore) -> tuple[CalledView, ...]:
    """Return those given by hand at which nobody is reached."""
    dialer, connected = core.dialer, core.endpoint.is_connected
    names = [
        CalledView(format_address(name), known.reason)
        for name, known in dialer.names.items()
        if known.reason and not dialer.is_met(name, connected)
    ]
    addresses = [
        CalledView(format_address(address), contact.reason or "the session with it has ended")
        for address, contact in dialer.fixed.items()
        if contact.owner is None or not (contact.owner == core.node_id or connected(contact.owner))
    ]
    return (*names, *addresses)


def _own_state(core: NodeCore, world: World, now: float) -> tuple[str, str]:
    if core.leaving:
        return "draining", LEAVING
    if (rest := core.serving.resting) is not None:
        return "resting", world.resting or rest.words
    bundles = core.serving.bundles.values()
    why = next((one.holdings.reason for one in bundles), "no model")
    known = core.shared_keys.seen(core.node_id, now) or why
    reason = "; ".join(filter(None, (known, _told_of_our_key(core, now))))
    if any(one.layers for one in bundles):
        return "serving", reason
    phases = {one.life.phase for one in bundles}
    if phases <= {HoldingPhase.IDLE}:
        return "idle", reason
    return ("loading" if HoldingPhase.LOADING in phases else "joining"), reason


def _told_of_our_key(core: NodeCore, now: float) -> str:
    """Return what members say, as their word: it may be true, and any of them may say it."""
    told = core.shared_keys.told(now)
    if told is None:
        return ""
    name = core.planner.name_of(told.teller)
    tellers = f"{name} and {told.others} more say" if told.others else f"{name} says"
    return f"{tellers}: {told.words}"


def missing_layers(core: NodeCore) -> tuple[tuple[int, int], ...]:
    """Runs of layers that nobody alive serves."""
    model = core.model
    if model is None:
        return ()
    return tuple((run.start, run.stop) for run in core.planner.missing(model))


def _generation(one: Generation, now: float) -> GenerationView:
    state = _GENERATION_STATES[one.phase]
    if one.phase is GenerationPhase.ENDED:
        state = {
            "eos": "finished",
            "stop": "finished",
            "length": "finished",
            "cancelled": "cancelled",
        }.get(one.reason, "failed")
    elif one.epoch and one.phase is not GenerationPhase.RUNNING:
        state = "repairing"
    spent = (one.last_token_at or 0.0) - (one.first_token_at or 0.0)
    return GenerationView(
        generation=one.number,
        state=state,
        prompt_tokens=len(one.request.prompt),
        tokens=len(one.tokens),
        epoch=one.epoch,
        chain=tuple(holding(leg.run.name, leg.run.layers) for leg in one.legs),
        tokens_per_s=(len(one.tokens) - 1) / spent if spent > 0 else 0.0,
        reason=one.reason,
        activations=one.activations,
        codings=names_of_mask(one.codings),
        lost=tuple(holding(run.name, run.layers) for run in one.lost),
        awaits=tuple((run.start, run.stop) for run in one.awaited),
        awaits_s=max(0.0, one.cover_by - now) if one.awaited else 0.0,
        numerics_changed=one.numerics_changed,
        reused=one.reused,
    )


def _trust(core: NodeCore, entry: Entry) -> TrustView:
    return TrustView(
        peer=entry.peer.hex(),
        name=core.planner.name_of(entry.peer),
        kind="" if entry.kind is None else entry.kind.name.lower(),
        offences=entry.offences,
        evidence=entry.evidence,
        avoided_s=entry.avoided_for,
        reason=entry.reason,
        factor=entry.factor,
        proven=entry.proven,
        layer_us=entry.layer_us,
    )


def _stage(core: NodeCore, stage: Stage) -> StageView:
    return StageView(
        requester=core.planner.name_of(stage.key[0]),
        layers=(stage.order.layers.start, stage.order.layers.stop),
        positions=stage.computed,
        epoch=stage.order.epoch,
        kv_bytes=stage.kv_bytes,
        tokens_per_s=stage.computed / busy if (busy := stage.used_at - stage.began) > 0 else 0.0,
    )


def _node_counters(core: NodeCore) -> Counter[str]:
    said = core.inquiries.counters + core.programs.counters
    return core.counters + core.outbox.counters + said


def _counters(core: NodeCore, transport: TransportSnapshot, world: World) -> dict[str, int]:
    parts = (
        ("node", _node_counters(core)),
        ("inference", core.inference.all_counters()),
        ("membership", core.swim.counters),
        ("trust", core.ledger.counters),
        ("transport", transport.counters),
        ("socket", dict(world.counters)),
    )
    return {
        f"{room}: {reason}": count
        for room, counters in parts
        for reason, count in sorted(counters.items())
        if count
    }
