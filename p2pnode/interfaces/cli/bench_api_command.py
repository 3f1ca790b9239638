"""``p2pnode bench api``: what the HTTP API costs and bears."""

from __future__ import annotations

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.bench_report import measured, model_option, report
from p2pnode.interfaces.cli.node_options import json_option
from p2pnode.interfaces.cli.output import progress
from p2pnode.interfaces.cli.settings import model_file


@click.command(
    epilog="Examples:\n\n  p2pnode bench api --json\n\n  p2pnode bench api --streams 0 --rounds 20"
)
@click.option("--rounds", type=click.IntRange(2), default=10, show_default=True)
@click.option("--tokens", type=click.IntRange(2), default=64, show_default=True)
@click.option(
    "--streams",
    type=click.IntRange(0, 200),
    default=50,
    show_default=True,
    help="Answers at once; 0 leaves that out.",
)
@click.option("--stream-tokens", type=click.IntRange(2), default=64, show_default=True)
@click.option("--vanish", type=click.IntRange(0), default=5, show_default=True)
@model_option
@json_option
def api(model: str, as_json: bool, **counts: int) -> None:
    """Compare the HTTP API with generate, in turns; then let clients vanish, and come in crowds.

    Exits with 1 if an answer of the crowd does not complete.
    """
    from p2pnode.bench import api as measurement

    path = model_file(model)
    with progress("generate and HTTP in turns, and many at once", show=not as_json) as bar:
        figures = measured(measurement.measure, path, tell=bar, **counts)
    report(figures, as_json)
    streams = counts["streams"]
    if streams and figures["streams_outcomes"] != {"complete": streams}:
        raise UserError(f"not all answers completed: {figures['streams_outcomes']}")
