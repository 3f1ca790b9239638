"""Commands that look at the running node."""

from pathlib import Path

import click

from p2pnode.interfaces.cli.output import note, plural, say, say_json, table
from p2pnode.interfaces.cli.settings import json_option, state_of, state_option
from p2pnode.node.snapshot import NodeSnapshot, PeerView, from_json


def look(state: Path | None) -> NodeSnapshot:
    """Return the running node's snapshot.

    Raises:
        UserError: No node is running.
    """
    from p2pnode.net.control_client import ControlClient
    from p2pnode.net.control_lines import find_control_path

    with ControlClient(find_control_path(state_of(state))) as client:
        return from_json(client.call("snapshot"))


@click.command(epilog="Example:\n\n  p2pnode invite")
@state_option
@json_option
def invite(state: Path | None, as_json: bool) -> None:
    """Print a code that lets another machine join this swarm. It is a secret."""
    from p2pnode.net.addresses import is_loopback
    from p2pnode.net.control_client import ControlClient
    from p2pnode.net.control_lines import find_control_path

    with ControlClient(find_control_path(state_of(state))) as client:
        facts = client.call("invite")
    if as_json:
        say_json(facts)
        return
    say(facts["code"])
    click.echo("on the other machine:  p2pnode join CODE", err=True)
    if all(is_loopback((host, port)) for host, port in facts["addresses"]):
        note("this machine has no network now: the code leads to it from itself alone")


@click.command(epilog="Examples:\n\n  p2pnode peers\n\n  p2pnode peers --json")
@state_option
@json_option
def peers(state: Path | None, as_json: bool) -> None:
    """List every peer: what it holds, how fast and how far it is, and why it does no work."""
    from dataclasses import asdict

    picture = look(state)
    if as_json:
        facts = asdict(picture)
        wanted = ("node_id", "name", "state", "model", "n_layers", "layers", "missing_layers")
        say_json({key: facts[key] for key in (*wanted, "peers", "called", "mdns_problem")})
        return
    say(table(_HEADINGS, [_own_row(picture), *map(_row, picture.peers)], right="    rrr"))
    missing = ", ".join(f"[{first}, {stop})" for first, stop in picture.missing_layers)
    if missing:
        say(f"\nno live peer serves layers {missing} of {picture.model}")
    if picture.called:
        say("\ncalled, and nobody reached:")
        say("\n".join(f"  {one.address}  {one.reason}" for one in picture.called))
    if picture.mdns_problem:
        say(f"\n{picture.mdns_problem}")
    say(f"\n{plural(len(picture.peers), 'peer')}, swarm {picture.swarm_tag}")


@click.command(epilog="Example:\n\n  p2pnode top")
@state_option
def top(state: Path | None) -> None:
    """Watch peers and traffic live, in a terminal UI of its own process."""
    from p2pnode.interfaces.tui import run_top

    look(state)  # no node: say so before the screen is taken
    run_top(lambda: look(state))


_HEADINGS = (
    "PEER",
    "ID",
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
        picture.state,
        _layers(picture.layers),
        _ms(picture.decode_us),
        "-",
        "-",
        "-",
        picture.listening[0] if picture.listening else "-",
        picture.reason,
    )


def _row(peer: PeerView) -> tuple[str, ...]:
    return (
        peer.name,
        peer.node_id[:8],
        peer.state,
        _layers(peer.layers),
        _ms(peer.decode_us),
        "-" if peer.rtt_ms is None else f"{peer.rtt_ms:.2f}",
        f"{peer.loss:.1%}",
        peer.sends or ("f16" if peer.edges else "-"),
        peer.addresses[0] if peer.addresses else "-",
        peer.reason,
    )


def _layers(layers: tuple[int, int]) -> str:
    return f"[{layers[0]}, {layers[1]})" if layers[1] > layers[0] else "-"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1e3:.1f}" if microseconds else "-"
