"""A peer killed in mid-answer: how long until it is noticed, and until the answer goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.bench.chain import start_three
from p2pnode.bench.hop.swarm import PROMPT
from p2pnode.quantiles import quantile
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm

_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Fall:
    """One kill; milliseconds since it."""

    noticed_ms: float
    resumed_ms: float
    replay_ms: float
    identical: bool


def measure(
    path: Path, *, rounds: int, tokens: int, tell: Callable[[float], None]
) -> dict[str, Any]:
    """Kill the middle peer of a chain with a spare, ``rounds`` times, each in a fresh swarm."""
    falls, idle = [], []
    for number in range(rounds):
        falls.append(_fall(path, tokens, strike_at=tokens // 2))
        idle.append(_idle_death(path))
        tell((number + 1) / rounds)
    return {
        "rounds": rounds,
        "tokens": tokens,
        "idle_noticed_ms": _range([1e3 * seconds for seconds in idle]),
        "noticed_ms": _range([fall.noticed_ms for fall in falls]),
        "resumed_ms": _range([fall.resumed_ms for fall in falls]),
        "replay_ms": _range([fall.replay_ms for fall in falls]),
        "identical": all(fall.identical for fall in falls),
    }


def _fall(path: Path, tokens: int, strike_at: int) -> Fall:
    with local_swarm() as swarm:
        asker = start_three(swarm, path)
        first, stop = swarm.nodes[1].snapshot().layers
        swarm.start(
            "spare", "--model", str(path), "--layers", f"{first}:{stop}", "--threads", "1"
        ).wait_until_up()
        swarm.wait_until_serving()
        undisturbed = _ask(asker, tokens, lambda event: None)["token_ids"]
        moments: dict[str, float] = {}
        shown = 0

        def hear(event: dict[str, Any]) -> None:
            nonlocal shown
            kind = event["event"]
            if kind == "plan":
                moments["victim"] = _place(swarm, event["plan"]["stages"][1]["peer"])
            if kind == "token":
                shown += 1
                if "struck" in moments:
                    moments.setdefault("resumed", time.monotonic())
                if shown == strike_at:
                    swarm.nodes[int(moments["victim"])].kill()
                    moments["struck"] = time.monotonic()
            if kind in {"broken", "repaired"}:
                moments.setdefault(kind, time.monotonic())

        answer = _ask(asker, tokens, hear)
        return Fall(
            1e3 * (moments["broken"] - moments["struck"]),
            1e3 * (moments["resumed"] - moments["struck"]),
            1e3 * (moments["resumed"] - moments["repaired"]),
            answer["token_ids"] == undisturbed,
        )


def _idle_death(path: Path) -> float:
    """Return the seconds until both others no longer believe in a peer killed while idle."""
    with local_swarm() as swarm:
        start_three(swarm, path)
        victim, *witnesses = reversed(swarm.nodes)
        victim.kill()
        struck = time.monotonic()
        while time.monotonic() - struck < _PATIENCE:
            if all(_state(node, victim.node_id) in {"suspect", "dead"} for node in witnesses):
                break
            time.sleep(0.02)
        return time.monotonic() - struck


def _ask(node: NodeProcess, tokens: int, hear: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    params = {"prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True}
    with node.client(timeout=None) as client:
        result: dict[str, Any] = client.call("generate", params, hear)
    return result


def _place(swarm: LocalSwarm, node_id: str) -> int:
    return next(place for place, node in enumerate(swarm.nodes) if node.node_id == node_id)


def _state(node: NodeProcess, node_id: str) -> str:
    return next(
        (peer.state for peer in node.snapshot().peers if peer.node_id == node_id), "unknown"
    )


def _range(values: list[float]) -> dict[str, float]:
    return {"p50": round(quantile(values, 0.5), 1), "max": round(max(values), 1)}
