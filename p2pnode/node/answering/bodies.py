"""Answers as faces have them, in JSON: each event as it comes, and the facts at the end."""

from collections.abc import Sequence

from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationEvent,
    GenerationPlanned,
    LayersAwaited,
    TokenProduced,
)
from p2pnode.inference.terms import names_of_mask
from p2pnode.node.answering.stream import Answer
from p2pnode.quantiles import quantile
from p2pnode.scheduler.chain import ChainPlan, StageRun
from p2pnode.scheduler.estimate import Estimate


def event_body(event: GenerationEvent) -> dict[str, object]:
    """Return an event as JSON has it; empty for one that faces are not told."""
    match event:
        case GenerationPlanned(plan=plan, reused=reused):
            return {"event": "plan", "plan": plan_body(plan), "reused": reused}
        case TokenProduced(token=token, position=position):
            return {"event": "token", "token": token, "position": position}
        case ChainBroken(epoch=epoch, peers=peers, reason=reason):
            lost = [peer.hex() for peer in peers]
            facts = {"names": list(event.names), "layers": _runs(event.layers)}
            body = {"event": "broken", "epoch": epoch, "peers": lost, "reason": reason}
            return {**body, **facts, "wait": round(event.seconds, 3)}
        case ChainRepaired(epoch=epoch, stages=stages, seconds=seconds):
            repaired = {"event": "repaired", "epoch": epoch, "seconds": seconds}
            new = [_stage_body(stage) for stage in event.instead]
            stages_now = [_stage_body(stage) for stage in stages]
            same = {"bit_reproducible": not event.changed, "bit_reproducible_why": event.changed}
            return {**repaired, "stages": stages_now, "instead": new, **same}
        case LayersAwaited(layers=layers, seconds=seconds):
            why = list(event.reasons)
            return {"event": "waiting", "layers": _runs(layers), "wait": seconds, "reasons": why}
        case _:
            return {}


def plan_body(plan: ChainPlan) -> dict[str, object]:
    """Return a plan as JSON has it."""
    return {
        "objective": plan.objective,
        "stages": [_stage_body(stage) for stage in plan.stages],
        "hop_ms": [round(hop / 1e3, 3) for hop in plan.hop_us],
        "expected_ms_per_token": round(plan.expected_us_per_token / 1e3, 3),
        "expected": expected_body(plan.estimate),
        "reasons": list(plan.reasons),
    }


def expected_body(expected: Estimate | None) -> dict[str, object] | None:
    """Return what an answer should take under today's load."""
    if expected is None:
        return None
    return {
        "first_token_ms": round(expected.first_token_ms, 3),
        "tokens_per_s": round(expected.tokens_per_s, 3),
        "others": expected.others,
    }


def facts_body(done: Answer) -> dict[str, object]:
    """Return what came of an answer, but for its words."""
    return {
        "token_ids": done.token_ids,
        "finish": done.finish,
        "bit_reproducible": not done.changed,
        "bit_reproducible_why": done.changed,
        "plan": None if done.plan is None else plan_body(done.plan),
        "tokens_per_s": round(done.tokens_per_s, 3),
        "reused": done.reused,
        "first_token_ms": round(done.first_token_ms, 3),
        "off": _off(done),
        "hop_ms": {"p50": _hop(done, 0.5), "p99": _hop(done, 0.99)},
        "broken": [event_body(event) for event in done.broken],
        "repaired": [event_body(event) for event in done.repaired],
        "activations": _activations(done),
    }


def details_body(done: Answer) -> dict[str, object]:
    """Return every step and hop, for measurements."""
    return {
        "steps_ms": [round(1e3 * step, 4) for step in done.steps],
        "hops_ms": [round(hop, 4) for hop in done.hops_ms],
        "kl": [round(kl, 6) for kl in done.kl],
    }


def _stage_body(run: StageRun) -> dict[str, object]:
    return {
        "peer": run.peer.hex(),
        "name": run.name,
        "layers": [run.layers.start, run.layers.stop],
        "cost_ms": round(run.cost_us / 1e3, 3),
        "numerics": run.numerics_name,
        "reason": run.reason,
    }


def _runs(runs: Sequence[range]) -> list[list[int]]:
    return [[run.start, run.stop] for run in runs]


def _hop(done: Answer, share: float) -> float | None:
    return round(quantile(done.hops_ms, share), 4) if done.hops_ms else None


def _off(done: Answer) -> dict[str, object] | None:
    """Return what it took over what was expected of it: 1 where that was right."""
    expected = None if done.plan is None else done.plan.estimate
    if expected is None or not done.token_ids:
        return None
    speed = done.tokens_per_s
    return {
        "first_token": round(done.first_token_ms / max(expected.first_token_ms, 1e-3), 3),
        "tokens_per_s": round(speed / expected.tokens_per_s, 3) if speed else None,
    }


def _activations(done: Answer) -> dict[str, object]:
    """What was sent between stages, and the nats a token that this cost by estimate."""
    mean = sum(done.kl) / len(done.kl) if done.kl else 0.0
    return {
        "codings": list(names_of_mask(done.codings)) or [done.uncoded],
        "kl_per_token": round(mean, 6),
    }
