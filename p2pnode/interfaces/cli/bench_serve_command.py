"""``p2pnode bench serve``: what each of many people at once has of a swarm, and all together."""

from __future__ import annotations

from typing import Any

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.bench_report import measured, model_option, report_table
from p2pnode.interfaces.cli.node_options import ENGINES, json_option
from p2pnode.interfaces.cli.output import progress
from p2pnode.interfaces.cli.settings import model_file

_PARTS = ("batching", "newcomer", "reuse", "models")
"""As the measurement has them, which takes long to import; a test holds the two together."""


@click.command(
    epilog="Examples:\n\n  p2pnode bench serve --json\n\n"
    "  p2pnode bench serve --only batching --sessions 1 --sessions 8 --askers 2\n\n"
    "  p2pnode bench serve --only models --two-models gemma3-270m"
)
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--sessions",
    type=click.IntRange(1, 16),
    multiple=True,
    default=(1, 2, 4, 8),
    show_default=True,
    help="How many at once; repeatable.",
)
@click.option(
    "--tokens", type=click.IntRange(8), default=48, show_default=True, help="Of each answer."
)
@click.option(
    "--prompt",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Tokens of each prompt.",
)
@click.option(
    "--long-prompt",
    type=click.IntRange(65),
    default=256,
    show_default=True,
    help="Tokens of a newcomer's prompt.",
)
@click.option(
    "--positions",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Of a chat's first turn.",
)
@click.option(
    "--batching",
    type=click.Choice(("on", "off")),
    multiple=True,
    default=("on", "off"),
    show_default=True,
    help="Of nodes; each way has a swarm of its own.",
)
@click.option(
    "--askers",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="Nodes without layers that ask in turn; 0: the one with the first layers asks for all.",
)
@click.option(
    "--only",
    type=click.Choice(_PARTS),
    multiple=True,
    help="This part alone; repeatable.  [default: all]",
)
@click.option(
    "--two-models",
    "second",
    metavar="NAME|PATH",
    help="Measure a node that loads this model beside the other, too.",
)
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@model_option
@json_option
def serve(
    rounds: int,
    askers: int,
    only: tuple[str, ...],
    batching: tuple[str, ...],
    second: str | None,
    engine: str,
    threads: int,
    model: str,
    as_json: bool,
    **counts: Any,
) -> None:
    """Ask for many answers at once over three stages, with batching and without, in turns.

    Then let a newcomer with a long prompt come while the others decode, and go on with a long
    chat. Exits with 1 if a session has other tokens than its prompt has alone.
    """
    if second is None and only == ("models",):
        raise click.UsageError("name the second model: --two-models gemma3-270m")
    from p2pnode.bench.serve import measure as measurement
    from p2pnode.interfaces.cli.bench_serve_table import as_table

    path = model_file(model)
    with progress("many at once, in turns", show=not as_json) as bar:
        figures = measured(
            measurement.measure,
            path,
            sizes=measurement.Sizes(rounds=rounds, **counts),
            only=only or _PARTS,
            batching=batching,
            second=None if second is None else model_file(second),
            engine=engine,
            threads=threads,
            askers=askers,
            tell=bar,
        )
    report_table(figures, as_json, as_table)
    if not all(figures.get(part, {}).get("identical", True) for part in _PARTS):
        raise UserError("a session had other tokens than its prompt has alone")
