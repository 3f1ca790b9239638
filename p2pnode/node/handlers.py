"""What a running node answers on its control socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from p2pnode.engine.sampling.schema import check_schema
from p2pnode.errors import UserError
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationEvent,
    GenerationPlanned,
    LayersAwaited,
    TokenProduced,
)
from p2pnode.inference.terms import ACTIVATIONS, names_of_mask
from p2pnode.net.addresses import format_address, parse_address, resolve
from p2pnode.net.control import Emit, Handler
from p2pnode.net.control_lines import Rendered, render
from p2pnode.node.answers import Answer, Question
from p2pnode.node.invite import encode_invite
from p2pnode.node.logprobs import logprobs_body
from p2pnode.node.sampling_params import sampling_of
from p2pnode.node.snapshot import NodeSnapshot, to_json
from p2pnode.quantiles import quantile
from p2pnode.scheduler.chain import ChainPlan, StageRun

if TYPE_CHECKING:
    from p2pnode.node.node import Node

Params = dict[str, Any]

_MAX_TOKENS = 256

_LONGEST_WAIT = 3600.0
"""Seconds that an answer may wait for peers; ``--wait`` takes as many."""

_FEW_PEERS = 25
"""Peers whose picture is rendered on the loop: 150 us each (measured), and 5 ms are too long."""


def handlers(node: Node) -> Mapping[str, Handler]:
    """Return the methods of ``node``'s control socket."""

    async def picture(params: Params, emit: Emit) -> object:
        taken = node.snapshot()
        if len(taken.peers) <= _FEW_PEERS:
            return to_json(taken)
        return await trio.to_thread.run_sync(_rendered, taken, abandon_on_cancel=True)

    async def invite(params: Params, emit: Emit) -> object:
        way_in = node.invite()
        return {
            "code": encode_invite(way_in),
            "addresses": [list(address) for address in way_in.addresses],
            "swarm_tag": node.swarm_tag.hex(),
        }

    async def stop(params: Params, emit: Emit) -> object:
        node.stop(at_once=bool(params.get("at_once")))
        return {"stopping": True}

    async def connect(params: Params, emit: Emit) -> object:
        found = await resolve(parse_address(str(params.get("address", ""))))
        for address in found:
            node.connect(address)
        return {"calling": [format_address(address) for address in found]}

    async def generate(params: Params, emit: Emit) -> object:
        return await answer(node, params, emit)

    return {
        "snapshot": picture,
        "invite": invite,
        "connect": connect,
        "stop": stop,
        "generate": generate,
    }


async def answer(node: Node, params: Params, emit: Emit) -> dict[str, object]:
    """Answer a prompt, emitting each event as it comes; return the facts.

    ``params``: ``prompt`` (text) or ``messages`` (a chat) or ``prompt_ids``; ``raw`` for a prompt
    to be continued rather than answered; ``tools`` and ``documents`` for the chat template;
    ``max_tokens``, ``prefer``, ``avoid``, ``objective``, ``wait``, ``lost_wait``,
    ``ignore_eos``, ``activations``, ``details``; and what :mod:`p2pnode.node.sampling_params`
    reads.

    The result names among others ``prompt_ids``, ``stop_ids`` (tokens that end the answer),
    ``token_ids``, and ``left_out``: how many of the oldest messages left so that the rest fits;
    and ``logprobs`` of each token, where they were asked for.

    Raises:
        UserError: A parameter is impossible, or the answer failed.
    """
    question, left_out = await _question(node, params)
    detokenizer = await node.texts.detokenizer()
    stream = node.ask(question)
    decoder = detokenizer.decoder(after=next(reversed(question.prompt_ids), None))
    text: list[str] = []
    told: list[object] = []

    async def show(event: GenerationEvent) -> None:
        body = _event_body(event)
        if isinstance(event, GenerationPlanned):
            body["prompt_tokens"] = len(question.prompt_ids)
        if isinstance(event, TokenProduced):
            # The token that ends an answer is none of its words, even where it has a spelling.
            words = "" if event.token in question.stop else decoder.push(event.token)
            body["text"] = words
            text.append(words)
            if event.logprobs is not None:
                body["logprobs"] = logprobs_body(event.token, event.logprobs, detokenizer)
                told.append(body["logprobs"])
        if body:
            await emit(body)

    for line in stream.notes:
        await emit({"event": "note", "text": line})
    if left_out:
        await emit({"event": "history", "left_out": left_out})
    done = await stream.follow(show)
    result = _result(done, question, "".join(text)) | {"left_out": left_out}
    if question.sampling.logprobs is not None:
        result["logprobs"] = told
    return result | _details(done) if params.get("details") else result


def _rendered(taken: NodeSnapshot) -> Rendered:
    return render(to_json(taken))


def plan_body(plan: ChainPlan) -> dict[str, object]:
    """Return a plan as JSON has it."""
    return {
        "objective": plan.objective,
        "stages": [_stage_body(stage) for stage in plan.stages],
        "hop_ms": [round(hop / 1e3, 3) for hop in plan.hop_us],
        "expected_ms_per_token": round(plan.expected_us_per_token / 1e3, 3),
        "reasons": list(plan.reasons),
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


def _event_body(event: GenerationEvent) -> dict[str, object]:
    match event:
        case GenerationPlanned(plan=plan):
            return {"event": "plan", "plan": plan_body(plan)}
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


def _runs(runs: Sequence[range]) -> list[list[int]]:
    return [[run.start, run.stop] for run in runs]


def _result(done: Answer, question: Question, text: str) -> dict[str, object]:
    return {
        "prompt_ids": list(question.prompt_ids),
        "stop_ids": [] if question.ignore_eos else sorted(question.stop),
        "token_ids": done.token_ids,
        "text": text,
        "finish": done.finish,
        "bit_reproducible": not done.changed,
        "bit_reproducible_why": done.changed,
        "plan": None if done.plan is None else plan_body(done.plan),
        "tokens_per_s": round(done.tokens_per_s, 3),
        "first_token_ms": round(done.first_token_ms, 3),
        "hop_ms": {"p50": _hop(done, 0.5), "p99": _hop(done, 0.99)},
        "broken": [_event_body(event) for event in done.broken],
        "repaired": [_event_body(event) for event in done.repaired],
        "activations": _activations(done),
    }


def _hop(done: Answer, share: float) -> float | None:
    return round(quantile(done.hops_ms, share), 4) if done.hops_ms else None


def _activations(done: Answer) -> dict[str, object]:
    """What was sent between stages, and the nats a token that this cost by estimate."""
    mean = sum(done.kl) / len(done.kl) if done.kl else 0.0
    return {
        "codings": list(names_of_mask(done.codings)) or [done.uncoded],
        "kl_per_token": round(mean, 6),
    }


def _details(done: Answer) -> dict[str, object]:
    """Every step and hop, for measurements."""
    return {
        "steps_ms": [round(1e3 * step, 4) for step in done.steps],
        "hops_ms": [round(hop, 4) for hop in done.hops_ms],
        "kl": [round(kl, 6) for kl in done.kl],
    }


async def _question(node: Node, params: Params) -> tuple[Question, int]:
    """Return what is asked, and how many messages left the conversation so that it fits."""
    question, asked = _without_prompt(params), _asked(params)
    if question.sampling.schema:
        await trio.to_thread.run_sync(check_schema, question.sampling.schema)
    if isinstance(asked, dict):
        prompt = await node.texts.prompt(asked)
        return replace(question, prompt_ids=prompt.ids, stop=prompt.stop_ids), prompt.left_out
    if question.ignore_eos:
        return replace(question, prompt_ids=asked), 0
    return replace(question, prompt_ids=asked, stop=await node.texts.stop_ids()), 0


def _asked(params: Params) -> tuple[int, ...] | dict[str, object]:
    """Return the tokens given, or what is to become tokens."""
    if (given := params.get("prompt_ids")) is not None:
        if not isinstance(given, list) or not all(type(token) is int for token in given):
            raise UserError("prompt_ids must be a list of token ids")
        return tuple(given)
    messages, prompt = params.get("messages"), params.get("prompt")
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError("the prompt is empty", hint="say what the model should answer")
        if params.get("raw"):
            return {"text": prompt}
        messages = [{"role": "user", "content": prompt}]
    if not isinstance(messages, list) or not messages:
        raise UserError("give a prompt, or messages, or prompt_ids")
    more = {key: _list_or_none(params, key) for key in ("tools", "documents")}
    return {"messages": messages, "max_tokens": _max_tokens(params), **more}


def _list_or_none(params: Params, key: str) -> list[object] | None:
    value = params.get(key)
    if value is not None and not isinstance(value, list):
        raise UserError(f"{key} must be a list")
    return value


def _max_tokens(params: Params) -> int:
    asked = params.get("max_tokens", _MAX_TOKENS)
    if type(asked) is not int or asked < 1:
        raise UserError(f"impossible parameter: max_tokens is {asked!r}")
    return asked


def _without_prompt(params: Params) -> Question:
    try:
        return Question(
            prompt_ids=(),
            max_tokens=_max_tokens(params),
            sampling=sampling_of(params),
            wait=_seconds(params.get("wait", 10.0)),
            lost_wait=None if (lost := params.get("lost_wait")) is None else _seconds(lost),
            prefer=_names(params, "prefer"),
            avoid=_names(params, "avoid"),
            objective="throughput" if params.get("objective") == "throughput" else "latency",
            ignore_eos=bool(params.get("ignore_eos", False)),
            activations=_activations_asked(params),
        )
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"impossible parameter: {error}") from error


def _seconds(asked: str | float) -> float:
    seconds = float(asked)
    if not 0 <= seconds <= _LONGEST_WAIT:
        raise ValueError(f"a wait of {seconds:g} s is none: 0 to {_LONGEST_WAIT:.0f}")
    return seconds


def _activations_asked(params: Params) -> str | None:
    asked = params.get("activations")
    if asked is not None and asked not in ACTIVATIONS:
        raise UserError(
            f"hidden states cannot be sent as {asked!r}", hint=f"one of {', '.join(ACTIVATIONS)}"
        )
    return asked


def _names(params: Params, key: str) -> tuple[str, ...]:
    value = params.get(key, ())
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{key} must be a list of peer names")
    return tuple(value)
