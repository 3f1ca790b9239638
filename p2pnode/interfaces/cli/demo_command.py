"""``p2pnode demo``: three real nodes on this machine answer a prompt together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli import repairs
from p2pnode.interfaces.cli.completions import complete_model
from p2pnode.interfaces.cli.node_options import DEFAULT_MODEL, activations_option, json_option
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.settings import model_file
from p2pnode.phrases import plural
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm

if TYPE_CHECKING:
    from p2pnode.engine.solo import SoloAnswer
    from p2pnode.node.snapshot import NodeSnapshot

_NAMES = ("attic", "kitchen", "study")
_SPARE = "garage"
_ONE_THREAD = ("--threads", "1")  # the nodes share one machine
_PROMPT = "Why is the sky blue? Answer in three sentences."
_KILL_AT = 12  # tokens shown before a peer is killed, or half the answer where that is less


@click.command(
    epilog="Examples:\n\n  p2pnode demo\n\n  p2pnode demo --kill     (one peer dies in mid-answer)"
    '\n\n  p2pnode demo "What is a prime number?" --max-tokens 80 --json'
)
@click.argument("prompt", default=_PROMPT)
@click.option("--kill", is_flag=True, help="Add a spare peer and kill one in mid-answer.")
@click.option("--max-tokens", type=click.IntRange(2), default=96, show_default=True)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Name or GGUF file.",
    shell_complete=complete_model,
)
@activations_option("How the answer travels between the nodes.")
@json_option
def demo(
    prompt: str, kill: bool, max_tokens: int, model: str, activations: str, as_json: bool
) -> None:
    """Start three nodes that find each other, share out a model, and answer PROMPT together."""
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint="leave it out for one of ours")
    path = model_file(model)
    tell = (lambda line: None) if as_json else note
    with local_swarm(tell) as swarm:
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
    if run.result["finish"] == "length":
        tell(f"\n{repairs.cut(len(run.result['token_ids']), max_tokens)}")
    tell("\n\nnow the same prompt on one engine that holds every layer ...\n")
    solo = _answer_alone(path, run.result, max_tokens)
    facts = _facts(run, solo, peers)
    if as_json:
        say_json(facts)
    else:
        _summarise(facts, kill=kill)


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
            line = f"{picture.state}, {plural(peers, 'peer')}{held}"
            if self.seen.get(picture.name) != line:
                self.seen[picture.name] = line
                self.tell(f"{picture.name:>10}  {line}")

    def ask(self, prompt: str) -> None:
        if not self.quiet:
            say(f"\n> {prompt}\n")

    def token(self, text: str) -> None:
        if not self.quiet:
            say(text, end="")


@dataclass(slots=True)
class Run:
    """One answer of the swarm.

    Attributes:
        result: The facts, as the asking node gives them.
        killed: The node that was killed.
        killed_after: Tokens that had come when it was.
        resumed_ms: Milliseconds from the kill to the next token; None if none came.
        chains: The stages of each chain that served, behind the number of tokens before it.
    """

    result: dict[str, Any] = field(default_factory=dict)
    killed: NodeProcess | None = None
    killed_after: int = 0
    resumed_ms: float | None = None
    chains: list[tuple[int, list[dict[str, Any]]]] = field(default_factory=list)


def _gather(swarm: LocalSwarm, path: Path, show: Show) -> bool:
    from p2pnode.node.models import describe_model

    third = -(-describe_model(path).n_layers // len(_NAMES))
    for name in _NAMES:
        swarm.start(name, "--model", str(path), "--max-layers", str(third), *_ONE_THREAD)
    for node in swarm.nodes:
        node.wait_until_up()
    return swarm.wait_until_serving(show=show.progress)


def _add_spare(swarm: LocalSwarm, path: Path, show: Show) -> None:
    """Start a fourth node that holds the middle layers too."""
    held = sorted(node.snapshot().layers for node in swarm.nodes)
    first, stop = held[1]
    show.tell(f"{_SPARE:>10}  a spare for layers [{first}, {stop})")
    spare = swarm.start(_SPARE, "--model", str(path), "--layers", f"{first}:{stop}", *_ONE_THREAD)
    spare.wait_until_up()
    swarm.wait_until_serving(show=show.progress)


def _ask(
    swarm: LocalSwarm, prompt: str, max_tokens: int, activations: str, kill: bool, show: Show
) -> Run:
    """Ask the node that holds the first layers; kill a middle one on the way if told to."""
    run = Run()
    asker = next(node for node in swarm.nodes if node.snapshot().layers[0] == 0)
    struck_at, tokens, middle = 0.0, 0, ""
    kill_at = min(_KILL_AT, max_tokens // 2)

    def hear(event: dict[str, Any]) -> None:
        nonlocal struck_at, tokens, middle
        match event["event"]:
            case "plan":
                run.chains.append((0, event["plan"]["stages"]))
                middle = event["plan"]["stages"][1]["peer"]
            case "repaired":
                run.chains.append((tokens, event["stages"]))
            case "token":
                tokens += 1
                if struck_at and run.resumed_ms is None:
                    run.resumed_ms = 1e3 * (time.monotonic() - struck_at)
                show.token(event["text"])
                if kill and tokens == kill_at:
                    run.killed_after = tokens
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


def _answer_alone(path: Path, asked: dict[str, Any], max_tokens: int) -> SoloAnswer:
    """Answer the very prompt of ``asked``, until one of its stop tokens, in this process."""
    from p2pnode.engine.registry import EngineOptions, load_engine
    from p2pnode.engine.solo import answer_alone
    from p2pnode.node.model_cache import cache_dir
    from p2pnode.node.models import open_model

    known = open_model(path)
    options = EngineOptions(threads=1, cache=cache_dir())
    engine = load_engine(path, range(known.info.n_layers), options, tree=known.tree)
    engine.measure()  # warm, as the nodes are
    stop = frozenset(asked["stop_ids"])
    return answer_alone(engine, asked["prompt_ids"], max_tokens, stop=stop)


def _peer_facts(node: NodeProcess) -> dict[str, Any]:
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
        "served": _served(run.chains, len(result["token_ids"])),
        "tokens_per_s": result["tokens_per_s"],
        "solo_tokens_per_s": round(solo.tokens_per_s, 3),
        "hop_ms": result["hop_ms"],
        "activations": result["activations"],
        "killed": None if run.killed is None else run.killed.name,
        "killed_after": run.killed_after,
        "resumed_ms": None if run.resumed_ms is None else round(run.resumed_ms, 1),
    }


def _served(chains: list[tuple[int, list[dict[str, Any]]]], tokens: int) -> list[dict[str, Any]]:
    """Say who computed which layers for which tokens, the first and the last of them."""
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    ends = [before for before, _ in chains[1:]] + [tokens]
    for (before, stages), end in zip(chains, ends, strict=True):
        for stage in stages if end > before else []:
            row = {"name": stage["name"], "layers": stage["layers"], "tokens": [before + 1, end]}
            rows.setdefault((stage["peer"], *stage["layers"]), row)["tokens"][1] = end
    return sorted(rows.values(), key=lambda row: (row["layers"], row["tokens"]))


def _summarise(facts: dict[str, Any], *, kill: bool) -> None:
    for row in facts["served"]:
        say(f"{row['name']:>10}  {_share_of(row, facts['tokens'])}")
    say(
        f"{facts['tokens']} tokens at {facts['tokens_per_s']:.1f} tokens/s over "
        f"{plural(len(facts['plan']['stages']), 'peer')}, "
        f"{facts['solo_tokens_per_s']:.1f} alone{_hop(facts['hop_ms'])}"
    )
    if kill:
        say(_death(facts))
    same = "the very same tokens" if facts["identical"] else "DIFFERENT tokens"
    sent = facts["activations"]["codings"]
    why = "" if sent == ["f32"] else f" (sent between peers as {', '.join(sent)}, so it may)"
    say(f"one engine alone says {same}{why}")


def _share_of(row: dict[str, Any], tokens: int) -> str:
    (first, stop), (since, until) = row["layers"], row["tokens"]
    part = "" if (since, until) == (1, tokens) else f", tokens {since} to {until}"
    return f"layers [{first}, {stop}){part}"


def _hop(hop: dict[str, float | None]) -> str:
    if hop["p50"] is None or hop["p99"] is None:
        return ""  # an answer of one token
    return f"; a hop costs {hop['p50']:.2f} ms (p99 {hop['p99']:.2f})"


def _death(facts: dict[str, Any]) -> str:
    if facts["killed"] is None:
        return "the answer had ended before anybody was to be killed"
    killed = f"{facts['killed']} was killed after {plural(facts['killed_after'], 'token')}"
    if facts["resumed_ms"] is None:
        return f"{killed}; the answer had ended"
    later = [row for row in facts["served"] if row["tokens"][0] > facts["killed_after"]]
    successors = " and ".join(dict.fromkeys(row["name"] for row in later))
    taken_over = f", from {successors} in its place" if successors else ""
    return f"{killed}; the next one came {facts['resumed_ms']:.0f} ms later{taken_over}"
