"""``p2pnode demo``: three real nodes on this machine answer a prompt together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pnode.interfaces.cli.output import note, printable, say, say_json
from p2pnode.interfaces.cli.settings import (
    DEFAULT_MODEL,
    activations_option,
    json_option,
    model_file,
)
from p2pnode.testing.processes import LocalNode, LocalSwarm, local_swarm

if TYPE_CHECKING:
    from p2pnode.engine.base import ModelInfo
    from p2pnode.engine.solo import SoloAnswer
    from p2pnode.node.snapshot import NodeSnapshot

_NAMES = ("attic", "kitchen", "study")
_SPARE = "garage"
_PROMPT = "Why is the sky blue? Answer in three sentences."
_KILL_AT = 12  # tokens shown before a peer is killed


@click.command(
    epilog="Examples:\n\n  p2pnode demo\n\n  p2pnode demo --kill     (one peer dies in mid-answer)"
    '\n\n  p2pnode demo "What is a prime number?" --max-tokens 80 --json'
)
@click.argument("prompt", default=_PROMPT)
@click.option("--kill", is_flag=True, help="Add a spare peer and kill one in mid-answer.")
@click.option("--max-tokens", type=click.IntRange(2), default=96, show_default=True)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Name or GGUF file.")
@activations_option("How the answer travels between the nodes.")
@json_option
def demo(
    prompt: str, kill: bool, max_tokens: int, model: str, activations: str, as_json: bool
) -> None:
    """Start three nodes that find each other, share out a model, and answer PROMPT together."""
    path = model_file(model)
    tell = (lambda line: None) if as_json else note
    with local_swarm() as swarm:
        show = Show(tell, as_json)
        tell("starting three nodes, each with an identity of its own and room for a third")
        alone = _gather(swarm, path, show)
        if not alone:
            tell("multicast does not work here, so they were told each other's addresses")
        if kill:
            _add_spare(swarm, path, show)
        show.ask(prompt)
        run = _ask(swarm, prompt, max_tokens, activations, kill, show)
        peers = [_peer_facts(node) for node in swarm.nodes if node is not run.killed]
    tell("\n\nthe same prompt on one engine that holds every layer:")
    solo = _answer_alone(path, run.result["prompt_ids"], max_tokens)
    facts = _facts(run, solo, peers)
    if as_json:
        say_json(facts)
    else:
        _summarise(facts)


@dataclass(slots=True)
class Show:
    """What a person sees while it runs."""

    tell: Any
    quiet: bool
    seen: dict[str, str] = field(default_factory=dict)

    def progress(self, pictures: list[NodeSnapshot]) -> None:
        """Tell each node's state when it changes."""
        for picture in pictures:
            peers = sum(peer.connected for peer in picture.peers)
            first, stop = picture.layers
            held = f", holds layers [{first}, {stop})" if stop else ""
            line = f"{picture.state}, {peers} peers{held}"
            if self.seen.get(picture.name) != line:
                self.seen[picture.name] = line
                self.tell(f"{picture.name:>10}  {line}")

    def ask(self, prompt: str) -> None:
        if not self.quiet:
            say(f"\n> {prompt}\n")

    def token(self, text: str) -> None:
        if not self.quiet:
            say(printable(text), end="")


@dataclass(slots=True)
class Run:
    """One answer of the swarm.

    Attributes:
        result: The facts, as the asking node gives them.
        killed: The node that was killed.
        resumed_ms: Milliseconds from the kill to the next token.
    """

    result: dict[str, Any] = field(default_factory=dict)
    killed: LocalNode | None = None
    resumed_ms: float | None = None


def _gather(swarm: LocalSwarm, path: Path, show: Show) -> bool:
    from p2pnode.node.models import describe_model

    third = -(-describe_model(path).n_layers // len(_NAMES))
    for name in _NAMES:
        swarm.start(name, "--model", str(path), "--max-layers", str(third))
    for node in swarm.nodes:
        node.wait_until_up()
    return swarm.wait_until_serving(show=show.progress)


def _add_spare(swarm: LocalSwarm, path: Path, show: Show) -> None:
    """Start a fourth node that holds the middle layers too."""
    held = sorted(node.snapshot().layers for node in swarm.nodes)
    first, stop = held[1]
    show.tell(f"{_SPARE:>10}  a spare for layers [{first}, {stop})")
    spare = swarm.start(_SPARE, "--model", str(path), "--layers", f"{first}:{stop}")
    spare.wait_until_up()
    swarm.wait_until_serving(show=show.progress)


def _ask(
    swarm: LocalSwarm, prompt: str, max_tokens: int, activations: str, kill: bool, show: Show
) -> Run:
    """Ask the node that holds the first layers; kill a middle one on the way if told to."""
    run = Run()
    asker = next(node for node in swarm.nodes if node.snapshot().layers[0] == 0)
    struck_at, tokens, middle = 0.0, 0, ""

    def hear(event: dict[str, Any]) -> None:
        nonlocal struck_at, tokens, middle
        match event["event"]:
            case "plan":
                middle = event["plan"]["stages"][1]["peer"]
            case "token":
                tokens += 1
                if struck_at and run.resumed_ms is None:
                    run.resumed_ms = 1e3 * (time.monotonic() - struck_at)
                show.token(event["text"])
                if kill and tokens == _KILL_AT:
                    run.killed = next(node for node in swarm.nodes if node.node_id == middle)
                    run.killed.kill()
                    struck_at = time.monotonic()
            case "broken" if not show.quiet:
                show.tell(f"\n[{run.killed.name if run.killed else 'a peer'} is gone: repairing]")

    with asker.client(timeout=None) as client:
        params = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "activations": activations,
            "wait": 30.0,
        }
        run.result = client.call("generate", params, hear)
    return run


def _answer_alone(path: Path, prompt_ids: list[int], max_tokens: int) -> SoloAnswer:
    from p2pnode.engine.registry import load_engine
    from p2pnode.engine.solo import answer_alone
    from p2pnode.node.models import open_model

    known = open_model(path)
    model: ModelInfo = known.info
    engine = load_engine(path, range(model.n_layers), tree=known.tree)
    engine.measure()  # warm, as the nodes are
    return answer_alone(engine, prompt_ids, max_tokens, stop=frozenset(model.eos_ids))


def _peer_facts(node: LocalNode) -> dict[str, Any]:
    picture = node.snapshot()
    return {
        "name": node.name,
        "node_id": node.node_id,
        "pid": node.pid,
        "address": node.address,
        "layers": list(picture.layers),
    }


def _facts(run: Run, solo: SoloAnswer, peers: list[dict[str, Any]]) -> dict[str, Any]:
    result = run.result
    return {
        "text": result["text"],
        "tokens": len(result["token_ids"]),
        "token_ids": result["token_ids"],
        "solo_token_ids": list(solo.token_ids),
        "identical": result["token_ids"] == list(solo.token_ids),
        "peers": peers,
        "plan": result["plan"],
        "tokens_per_s": result["tokens_per_s"],
        "solo_tokens_per_s": round(solo.tokens_per_s, 3),
        "hop_ms": result["hop_ms"],
        "activations": result["activations"],
        "killed": None if run.killed is None else run.killed.name,
        "resumed_ms": None if run.resumed_ms is None else round(run.resumed_ms, 1),
    }


def _summarise(facts: dict[str, Any]) -> None:
    for stage in facts["plan"]["stages"]:
        first, stop = stage["layers"]
        say(f"{stage['name']:>10}  layers [{first}, {stop})")
    hop = facts["hop_ms"]
    say(
        f"{facts['tokens']} tokens at {facts['tokens_per_s']:.1f} tokens/s over three peers, "
        f"{facts['solo_tokens_per_s']:.1f} alone; a hop costs {hop['p50']:.2f} ms "
        f"(p99 {hop['p99']:.2f})"
    )
    if facts["killed"]:
        say(
            f"{facts['killed']} was killed after {_KILL_AT} tokens; "
            f"the next one came {facts['resumed_ms']:.0f} ms later"
        )
    same = "the very same tokens" if facts["identical"] else "DIFFERENT tokens"
    sent = facts["activations"]["codings"]
    why = "" if sent == ["f16"] else f" (sent between peers as {', '.join(sent)}, so it may)"
    say(f"one engine alone says {same}{why}")
