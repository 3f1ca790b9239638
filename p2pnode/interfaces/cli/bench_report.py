"""What the commands of ``p2pnode bench`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import click

from p2pnode.interfaces.cli.node_options import DEFAULT_MODEL
from p2pnode.interfaces.cli.output import say, say_json

P = ParamSpec("P")

model_option = click.option(
    "--model", default=DEFAULT_MODEL, show_default=True, help="Name or GGUF file."
)


def measured(
    measure: Callable[P, dict[str, Any]], /, *chosen: P.args, **named: P.kwargs
) -> dict[str, Any]:
    """Return figures and, as ``conditions``, the machine as it was before they were taken."""
    from p2pnode.bench.machine import describe_machine

    machine = describe_machine()
    return {**measure(*chosen, **named), "conditions": machine}


def report_table(
    figures: dict[str, Any], as_json: bool, as_table: Callable[[dict[str, Any]], str]
) -> None:
    """Print figures that come in rows."""
    if as_json:
        say_json(figures)
    else:
        say(as_table(figures))


def report(figures: dict[str, Any], as_json: bool) -> None:
    """Print figures that each have a name."""
    if as_json:
        say_json(figures)
        return
    from p2pnode.bench.machine import in_words

    width = max(len(name) for name in figures)
    for name, value in figures.items():
        if name != "conditions":
            say(f"{name:<{width}}  {_text(value)}")
    say(in_words(figures["conditions"]))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "; ".join(_text(inner) for inner in value)
    return str(value)
