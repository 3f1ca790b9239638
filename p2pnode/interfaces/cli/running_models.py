"""Commands about the models of the running node: one more, one less, and all it has."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.completions import complete_model, complete_own_model
from p2pnode.interfaces.cli.look_commands import look, model_facts
from p2pnode.interfaces.cli.model_choices import Wanted, parse_layers
from p2pnode.interfaces.cli.node_options import json_option, state_option
from p2pnode.interfaces.cli.output import note, progress, say, say_json, table
from p2pnode.interfaces.cli.settings import note_untested, path_of
from p2pnode.node.snapshot import ModelView, NodeSnapshot, lacking
from p2pnode.phrases import runs_text


@click.command(
    epilog="Examples:\n\n  p2pnode models load gemma3-270m\n\n"
    "  p2pnode models load qwen3-4b --layers 0:12\n\n"
    "It is not remembered: what a node has at its start is said by --model of 'p2pnode up'."
)
@click.argument("name", metavar="NAME|PATH|hf:OWNER/REPO", shell_complete=complete_model)
@click.option(
    "--layers",
    default="auto",
    show_default=True,
    metavar="auto|A:B",
    help="Layers to hold: what the swarm needs, or A up to but not B.",
)
@state_option
@json_option
def load(name: str, layers: str, state: Path | None, as_json: bool) -> None:
    """Let the running node hold one more model, beside those that it has."""
    from p2pnode.interfaces.cli.running_node import connect

    if layers == "none":
        raise UsageError(
            "a model without layers is not loaded", hint="a node is told so by: p2pnode up --layers"
        )
    chosen = Wanted(name, parse_layers(layers))
    with connect(state, "models load", timeout=None) as client:
        path = path_of(chosen)
        if not as_json:
            note_untested(path)
        run = None if chosen.layers is None else [chosen.layers.start, chosen.layers.stop]
        asked = {"path": str(path.absolute()), "called": name, "layers": run}
        with ExitStack() as display:
            heard = None if as_json else _Shown(name, display)
            found = client.call("load", asked, heard)
    if as_json:
        say_json(found)
        return
    say(_loaded(found))
    if found["is_new"]:
        note(f"at the next start it has this model if you say: p2pnode up --model {name}")


@click.command(epilog="Example:\n\n  p2pnode models unload gemma3-270m")
@click.argument("name", metavar="NAME[@ROOT]", shell_complete=complete_own_model)
@click.option("--now", "at_once", is_flag=True, help="Do not wait for answers under way.")
@state_option
@json_option
def unload(name: str, at_once: bool, state: Path | None, as_json: bool) -> None:
    """Let the running node hold a model no more, after the answers under way, 10 s at most.

    Answers of other nodes go on elsewhere then; those that were asked for here fail.
    """
    from p2pnode.interfaces.cli.running_node import connect

    with connect(state, "models unload", timeout=None) as client:
        found = client.call("unload", {"model": name, "at_once": at_once})
    if as_json:
        say_json(found)
    else:
        say(f"{found['name']} is unloaded; its file stays")


@click.command(epilog="Example:\n\n  p2pnode models running --json")
@state_option
@json_option
def running(state: Path | None, as_json: bool) -> None:
    """List the models of the running node: what it holds of each, and who uses it."""
    picture = look(state, "models running")
    if as_json:
        say_json({"models": [model_facts(one) for one in picture.models]})
    elif picture.models:
        tell_models(picture)
    else:
        say("this node has no model; p2pnode models load NAME loads one")


def tell_models(picture: NodeSnapshot) -> None:
    """Print the table of a node's models."""
    headings = ("MODEL", "ROOT", "STATE", "LAYERS", "MS/TOKEN", "SESSIONS", "ANSWERS", "WHY")
    say(table(headings, [_row(one) for one in picture.models], right="    rrr"))
    for name, runs in lacking(picture):
        say(f"\nno live peer serves layers {runs_text(range(*run) for run in runs)} of {name}")


class _Shown:
    """Shows how far a model is: a bar for hashing on a terminal, a line for each state."""

    def __init__(self, name: str, display: ExitStack) -> None:
        self._name = name
        self._display = display
        self._bar: Callable[[float], None] | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "hashing":
            if self._bar is None and sys.stderr.isatty():
                self._bar = self._display.enter_context(progress(f"hashing {self._name}"))
            if self._bar is not None:
                self._bar(float(event["part"]))
            return
        self._display.close()
        first, stop = event["layers"]
        held = f" layers {first}:{stop}" if event["state"] == "serving" else ""
        note(f"{event['name']}: {event['state']}{held}")


def _loaded(found: Mapping[str, Any]) -> str:
    first, stop = found["layers"]
    already = "" if found["is_new"] else " already"
    if stop <= first:
        return f"{found['name']} is here{already}, and no layers of it: {found['reason']}"
    return f"{found['name']} is here{already}: layers {first}:{stop} of {found['n_layers']}"


def _row(one: ModelView) -> tuple[str, ...]:
    first, stop = one.layers
    return (
        one.name,
        one.root[:8],
        one.state,
        f"[{first}, {stop}) of {one.n_layers}" if stop > first else f"- of {one.n_layers}",
        f"{one.decode_us / 1e3:.1f}" if one.decode_us else "-",
        str(one.sessions),
        str(one.answers),
        one.reason,
    )
