"""``p2pnode bench hop``: where the time between two engines goes."""

from __future__ import annotations

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.bench_report import measured, model_option, report_table
from p2pnode.interfaces.cli.node_options import ENGINES, json_option
from p2pnode.interfaces.cli.output import progress
from p2pnode.interfaces.cli.settings import model_file


@click.command(
    epilog="Examples:\n\n  p2pnode bench hop --json"
    "\n\n  p2pnode bench hop --processes 3 --compute engine --wait sleep --tokens 64"
)
@click.option(
    "--processes",
    type=click.IntRange(1, 3),
    multiple=True,
    default=(1, 2, 3),
    show_default=True,
    help="Share the layers out over so many nodes; repeatable. One sends nothing: its hop is what "
    "a token pays between two jobs of one process.",
)
@click.option(
    "--after",
    type=click.FloatRange(0.05, 1000),
    multiple=True,
    default=(1.0, 15.0, 50.0),
    show_default=True,
    metavar="MS",
    help="Milliseconds of a job before the hop; repeatable. With --compute engine, its own.",
)
@click.option(
    "--compute",
    "computes",
    type=click.Choice(("engine", "arithmetic", "sleep", "spin")),
    multiple=True,
    default=("arithmetic", "sleep", "spin"),
    show_default=True,
    help="What a job does: the engine's own work, products with an array as large as a stage's "
    "weights, nothing, or products that stay in the first cache; repeatable.",
)
@click.option(
    "--wait",
    "waits",
    type=click.Choice(("sleep", "poll", "rehearse", "rehearse-poll")),
    multiple=True,
    default=("sleep", "poll"),
    show_default=True,
    help="How a stage waits for the next job: as nodes do; asking again and again; as nodes do, "
    "but a message's code runs once for nothing shortly before it is due; or so, and asking from "
    "then on; repeatable.",
)
@click.option("--tokens", type=click.IntRange(1, 4096), default=12, show_default=True)
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@model_option
@json_option
def hop(
    processes: tuple[int, ...],
    after: tuple[float, ...],
    computes: tuple[str, ...],
    waits: tuple[str, ...],
    tokens: int,
    engine: str,
    threads: int,
    model: str,
    as_json: bool,
) -> None:
    """Show where the time goes between one stage's engine and the next one's.

    Real nodes answer, and note each moment of a hop: the hidden state coded, the frame built and
    sealed, the peer awake, the datagram received and opened, the next job and its engine begun.
    Exits with 1 if no hop could be joined.
    """
    from p2pnode.bench.hop import measure as measurement
    from p2pnode.interfaces.cli.hop_table import as_table

    path = model_file(model)
    chosen = measurement.cases(processes, computes, waits, after)
    with progress("hops", show=not as_json) as bar:
        figures = measured(
            measurement.measure,
            path,
            chosen,
            tokens=tokens,
            engine=engine,
            threads=threads,
            tell=bar,
        )
    report_table(figures, as_json, as_table)
    if not all(row["hops"] for row in figures["rows"]):
        raise UserError("no hop could be joined", hint="ask for more with --tokens")
