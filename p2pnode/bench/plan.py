"""What a plan costs in a swarm of hundreds: a chain, a repair, and the settling of claims.

The swarm is made up: peers with windows of all sizes, speeds and places, as an attacker may sign
them in a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from statistics import median
from typing import Any

from p2pnode.membership.coordinates import DIMENSIONS, Coordinate
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.distances import Distances
from p2pnode.scheduler.placement import settle_claims
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import D_MODEL, SPACE, an_offer, peer_id
from p2pnode.wire.ad import AdState

_KV_BYTES = 1 << 20  # a layer
_NUMERICS = 4


def measure(*, offers: int, layers: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds, the median and the worst of the rounds, by what was planned.

    ``cpu`` is the median of this process's own time: what a machine without other work would take.
    """
    rng = Random(1)
    views = {shape: _view(rng, offers, layers, shape) for shape in ("all", "scattered", "mixed")}
    claims = _claims(rng, offers, layers)
    work: dict[str, Callable[[], object]] = {
        "chain_ms, everyone holds all layers": views["all"].chain,
        "chain_ms, windows of all sizes": views["scattered"].chain,
        "repair_ms, windows of all sizes": lambda: _repair(views["scattered"]),
        "chain_ms, and several numerics": views["mixed"].chain,
        "repair_ms, and several numerics": lambda: _repair(views["mixed"], like=1),
        "settle_ms": lambda: settle_claims(claims, n_layers=layers),
    }
    took: dict[str, list[float]] = {name: [] for name in work}
    cpu: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, plan in work.items():  # in turns, so that a busy moment is everybody's
            before, used = time.perf_counter(), time.process_time()
            plan()
            took[name].append(1e3 * (time.perf_counter() - before))
            cpu[name].append(1e3 * (time.process_time() - used))
    found = views["all"].chain()
    return {
        "offers": offers,
        "layers": layers,
        "rounds": rounds,
        "reasons": len(found.reasons) if isinstance(found, ChainPlan) else 0,
        **{
            name: {
                "p50": round(median(times), 1),
                "worst": round(max(times), 1),
                "cpu": round(median(cpu[name]), 1),
            }
            for name, times in took.items()
        },
    }


def _view(rng: Random, count: int, layers: int, shape: str) -> PlanView:
    offers = tuple(_offer(rng, number, layers, shape) for number in range(1, count + 1))
    us = peer_id(0)
    places = {peer: _place(rng) for peer in (us, *(offer.peer for offer in offers))}
    measured = {offer.peer: rng.uniform(0.0005, 0.2) for offer in offers[::3]}
    distances = Distances(us, places, measured)
    wanted = Wanted(us, SPACE, layers, D_MODEL, lambda held, _: held * _KV_BYTES)
    return PlanView(wanted, offers, distances.rtt_us, rtts_us=distances.rtts_us)


def _offer(rng: Random, number: int, layers: int, shape: str) -> Offer:
    start = 0 if shape == "all" else rng.randrange(layers)
    stop = layers if shape == "all" else rng.randint(start + 1, layers)
    if shape == "mixed":  # so that no one can do all, and a second search is worth while
        stop = min(stop, start + layers // 2)
    return an_offer(
        number,
        start,
        stop,
        n_layers=layers,
        decode_fixed_us=rng.randint(100, 2_000),
        decode_layer_us=rng.randint(100, 5_000),
        head_us=rng.randint(500, 5_000),
        numerics=number % _NUMERICS + 1 if shape == "mixed" else 0,
    )


def _claims(rng: Random, count: int, layers: int) -> list[Offer]:
    """Return claims that collide, as after a power cut."""
    return [
        an_offer(
            number,
            start := rng.randrange(layers),
            rng.randint(start + 1, layers),
            n_layers=layers,
            state=AdState.JOINING,
            decode_layer_us=rng.randint(100, 5_000),
        )
        for number in range(1, count + 1)
    ]


def _place(rng: Random) -> Coordinate:
    vector = tuple(rng.uniform(-0.05, 0.05) for _ in range(DIMENSIONS))
    return Coordinate(vector, 0.1, 0.0, rng.uniform(1e-4, 1e-2))


def _repair(view: PlanView, like: int = 0) -> object:
    ends: tuple[NodeId, NodeId] = (view.wanted.requester, view.offers[0].peer)
    return view.repair(range(5, view.wanted.n_layers - 5), ends, like=like)
