"""What a running node answers on its control socket."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import trio

from p2pnode.net.addresses import format_address, parse_address, resolve
from p2pnode.net.control import Emit, Handler
from p2pnode.net.control_lines import Rendered, render
from p2pnode.node.answering.question import Question, model_of, seconds_of
from p2pnode.node.embedding import embedder_called, no_embedder, result_of, texts_of
from p2pnode.node.invite import encode_invite
from p2pnode.node.model_orders import choice_of
from p2pnode.node.pooling import pooled, served_as
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import fields_of

if TYPE_CHECKING:
    from p2pnode.node.node import Node

Params = dict[str, Any]

_FEW_PEERS = 100
"""Peers whose picture is rendered on the loop: 20 us each (measured), and 5 ms are too long."""


def handlers(node: Node) -> Mapping[str, Handler]:
    """Return the methods of ``node``'s control socket."""

    async def picture(params: Params, emit: Emit) -> object:
        taken = node.snapshot()
        if len(taken.peers) <= _FEW_PEERS:
            return _rendered(taken)
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

    return {
        "snapshot": picture,
        "invite": invite,
        "connect": connect,
        "stop": stop,
        **_of_models(node),
        **_of_answers(node),
    }


def _of_models(node: Node) -> Mapping[str, Handler]:
    """Return the methods about the models that it has."""

    async def model(params: Params, emit: Emit) -> object:
        return await node.model_report(model_of(params))

    async def models(params: Params, emit: Emit) -> object:
        return {"models": await node.model_reports()}

    async def load(params: Params, emit: Emit) -> object:
        return await node.orders.load(choice_of(params), emit)

    async def unload(params: Params, emit: Emit) -> object:
        at_once = bool(params.get("at_once"))
        return await node.orders.unload(model_of(params), emit, at_once=at_once)

    return {"model": model, "models": models, "load": load, "unload": unload}


def _of_answers(node: Node) -> Mapping[str, Handler]:
    """Return the methods that ask models."""

    async def generate(params: Params, emit: Emit) -> object:
        answer = node.answering.answer(Question.of(params))
        async with aclosing(answer.events()) as events:
            async for event in events:
                await emit(event)
        return answer.facts()

    async def tokenise(params: Params, emit: Emit) -> object:
        """Say how many tokens a question of ``generate`` has, without asking it."""
        return {"tokens": await node.answering.count(Question.of(params))}

    async def timings(params: Params, emit: Emit) -> object:
        return node.answering.timings.to_json()

    async def embed(params: Params, emit: Emit) -> object:
        return await vectors(node, params)

    return {"generate": generate, "tokenise": tokenise, "timings": timings, "embed": embed}


async def vectors(node: Node, params: Params) -> Rendered:
    """Turn texts into vectors; return them and the facts, as JSON.

    ``params``: ``model`` (its name: one that is made for it, or one of the node's, the first of
    which is meant where it is left out), ``texts``, ``encoding_format`` (``float`` or ``base64``);
    and of the swarm's ``wait``, in seconds.

    The result: ``model``, ``dimensions``, ``embeddings`` (each of length 1), ``tokens`` of all
    texts together, ``tokens_each``, and ``truncated``: whether each text went on beyond them.

    Raises:
        UserError: A parameter is impossible, or the model is not here.
    """
    texts, name = texts_of(params), model_of(params)
    known = embedder_called(name)
    if known is not None:
        return await result_of(known.name, await node.embedding.embed(known, texts), params)
    served = await served_as(node, name)
    if served is None:
        raise no_embedder(name, *node.models.called().values())
    wait = seconds_of(params, "wait", 10.0)
    made = await pooled(node, served, texts, wait)
    return await result_of(name or served.info.name, made, params)


def _rendered(taken: NodeSnapshot) -> Rendered:
    return render(taken, default=fields_of)
