"""Commands that look at the running node."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.node_options import json_option, state_option
from p2pnode.interfaces.cli.output import note, say, say_json, table
from p2pnode.interfaces.spans import span
from p2pnode.node.peer_snapshot import PeerView, counted
from p2pnode.node.snapshot import ModelView, NodeSnapshot, lacking, other_versions, ways
from p2pnode.node.snapshot_json import from_json
from p2pnode.phrases import runs_text


def look(state: Path | None, command: str = "peers") -> NodeSnapshot:
    """Return the running node's snapshot; ``command`` is what was asked, for hints.

    Raises:
        UserError: No node is running.
    """
    from p2pnode.interfaces.cli.running_node import connect

    with connect(state, command) as client:
        return from_json(client.call("snapshot"))


@click.command(epilog="Example:\n\n  p2pnode invite")
@state_option
@json_option
def invite(state: Path | None, as_json: bool) -> None:
    """Print a code that lets another machine join this swarm. It is a secret."""
    from p2pnode.interfaces.cli.running_node import connect
    from p2pnode.net.addresses import is_loopback

    with connect(state, "invite") as client:
        facts = client.call("invite")
    if as_json:
        say_json(facts)
        return
    say(facts["code"])
    click.echo("on the other machine:  p2pnode join CODE", err=True)
    if all(is_loopback((host, port)) for host, port in facts["addresses"]):
        note("the node is reachable from this machine alone: so is the code (see --listen)")


@click.command(epilog="Examples:\n\n  p2pnode peers\n\n  p2pnode peers --json")
@state_option
@json_option
def peers(state: Path | None, as_json: bool) -> None:
    """List every peer: what it holds, how fast and how far it is, and why it does no work."""
    from p2pnode.net.local_nodes import local_nodes

    picture = look(state)
    pids = {node.node_id: node.pid for node in local_nodes()}
    if as_json:
        say_json(_facts(picture, pids))
        return
    tell_peers(picture, pids)


def tell_peers(picture: NodeSnapshot, pids: Mapping[str, int]) -> None:
    """Print the table of peers, and what is worth knowing besides."""
    rows = [_own_row(picture), *(_row(peer, pids.get(peer.node_id)) for peer in _sorted(picture))]
    headings, rows = _with_versions(_HEADINGS, rows, _versions(picture))
    say(table(headings, rows, right="  r  rrr"))
    for name, runs in lacking(picture):
        missing = runs_text(range(*run) for run in runs)
        say(f"\nno live peer serves layers {missing} of {name}")
    if said := _ways(picture):
        say(said)
    if picture.limits:
        say(f"\nlends at most: {', '.join(picture.limits)}")
    if said := _other_versions(picture):
        say(said)
    if picture.called:
        say("\ncalled, and nobody reached:")
        say("\n".join(f"  {one.address}  {one.reason}" for one in picture.called))
    if picture.mdns_problem:
        say(f"\n{picture.mdns_problem}")
    say(f"\n{counted(picture.peers)}, swarm {picture.swarm_tag}")


@click.command(epilog="Example:\n\n  p2pnode top")
@state_option
def top(state: Path | None) -> None:
    """Watch peers and traffic live, in a terminal UI of its own process."""
    from p2pnode.interfaces.tui import run_top

    _insist_on_a_terminal()
    look(state, "top")  # no node: say so before the screen is taken
    run_top(lambda: look(state, "top"))


def model_facts(one: ModelView) -> dict[str, object]:
    """Return what JSON says of a model of the running node."""
    return {
        "name": one.name,
        "root": one.root,
        "space_hash32": f"{one.space_hash32:08x}",
        "state": one.state,
        "reason": one.reason,
        "layers": list(one.layers),
        "n_layers": one.n_layers,
        "decode_us": one.decode_us,
        "numerics": one.numerics,
        "sessions": one.sessions,
        "answers": one.answers,
        "missing_layers": [list(run) for run in one.missing_layers],
    }


def _insist_on_a_terminal() -> None:
    """Refuse to draw where that would be garbage, or nothing at all.

    Raises:
        UserError: Standard input or output is no terminal, or one that cannot move its cursor.
    """
    hint = "p2pnode peers shows the same in plain lines"
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise UserError("top draws on a terminal, and this is none", hint=hint)
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        said = f"TERM is {kind}" if kind else "TERM is not set"
        raise UserError(f"top cannot draw on this terminal: {said}", hint=hint)


_HEADINGS = (
    "PEER",
    "ID",
    "PROCESS",
    "STATE",
    "LAYERS",
    "MS/TOKEN",
    "RTT MS",
    "LOSS",
    "SENT AS",
    "ADDRESS",
    "WHY",
)


def _own_row(picture: NodeSnapshot) -> tuple[str, ...]:
    return (
        f"{picture.name} (this node)",
        picture.node_id[:8],
        str(picture.pid or "-"),
        picture.state,
        _held((one.name, one.layers) for one in picture.models) or _layers(picture.layers),
        _ms(picture.decode_us),
        "-",
        "-",
        "-",
        picture.listening[0] if picture.listening else "-",
        picture.reason,
    )


def _row(peer: PeerView, pid: int | None) -> tuple[str, ...]:
    return (
        peer.name,
        peer.node_id[:8],
        str(pid or "-"),
        peer.state if peer.gone_s is None else f"{peer.state} {span(peer.gone_s)} ago",
        _held((one.model, one.layers) for one in peer.offers) or _layers(peer.layers),
        _ms(peer.decode_us),
        "-" if peer.rtt_ms is None else f"{peer.rtt_ms:.2f}",
        f"{peer.loss:.1%}",
        peer.sends or ("f16" if peer.edges else "-"),
        peer.addresses[0] if peer.addresses else "-",
        peer.reason,
    )


def _sorted(picture: NodeSnapshot) -> list[PeerView]:
    """Return the peers, those that are gone behind the others."""
    return sorted(picture.peers, key=lambda peer: peer.is_gone)


def _facts(picture: NodeSnapshot, pids: Mapping[str, int]) -> dict[str, object]:
    facts = asdict(picture)
    wanted = ("node_id", "name", "pid", "state", "model", "n_layers", "layers", "missing_layers")
    facts["models"] = [model_facts(one) for one in picture.models]
    own = ("reason", "device", "numerics", "owners_cpu", "limits", "software")

    peers = [{**peer, "pid": pids.get(peer["node_id"])} for peer in facts["peers"]]
    chosen = {key: facts[key] for key in (*wanted, *own, "models", "called", "mdns_problem")}
    return {**chosen, "peers": peers}


def _ways(picture: NodeSnapshot) -> str:
    """Say who computes how; nothing where nobody says so."""
    known = ways(picture)
    if not any(known):
        return ""
    rows = (f"  {name or 'not said'}: {', '.join(who)}" for name, who in known.items())
    return "\n".join(("\ncompute as:", *rows))


def _versions(picture: NodeSnapshot) -> list[str]:
    """Return who runs which version, row by row; nothing where all run one."""
    if not other_versions(picture):
        return []
    return [picture.software, *(peer.software or "-" for peer in _sorted(picture))]


def _with_versions(
    headings: Sequence[str], rows: list[tuple[str, ...]], versions: list[str]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Put the versions, if there are any, before the last column: that is as wide as its words."""
    if not versions:
        return list(headings), rows
    wider = [(*row[:-1], one, row[-1]) for row, one in zip(rows, versions, strict=True)]
    return [*headings[:-1], "VERSION", headings[-1]], wider


def _other_versions(picture: NodeSnapshot) -> str:
    """Say who runs another version, or does not say which; nothing where all run one."""
    known = other_versions(picture)
    if not known:
        return ""
    rows = (f"  {version or 'not said'}: {', '.join(who)}" for version, who in known.items())
    return "\n".join((f"\nversions other than this node's {picture.software}:", *rows))


def _held(offers: Iterable[tuple[str, tuple[int, int]]]) -> str:
    """Say what is held of several models; nothing of one, whose layers stand alone."""
    (first, *others) = [*offers] or [("", (0, 0))]
    held = [f"{name} {_layers(layers)}" for name, layers in others if layers[1] > layers[0]]
    return ", ".join((_layers(first[1]), *held)) if held else ""


def _layers(layers: tuple[int, int]) -> str:
    return f"[{layers[0]}, {layers[1]})" if layers[1] > layers[0] else "-"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1e3:.1f}" if microseconds else "-"
