"""``p2pnode bench http-servers``: which HTTP server the API should have."""

from __future__ import annotations

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.bench_report import report_table
from p2pnode.interfaces.cli.node_options import json_option
from p2pnode.interfaces.cli.output import progress

_OURS = "p2pnode.interfaces.http.server:serve_app"
"""Handed in from here: measurements know no faces."""


@click.command(
    "http-servers",
    epilog="Examples:\n\n  p2pnode bench http-servers --json"
    "\n\n  p2pnode bench http-servers --only p2pnode --only hypercorn --rounds 2",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Leave out all others; repeatable. Short names do: uvicorn, hypercorn-trio, bare.",
)
@json_option
def http_servers(rounds: int, only: tuple[str, ...], as_json: bool) -> None:
    """Compare HTTP servers for the API: clients that vanish, nonsense, and what a token costs.

    Each serves the same app in a process of its own. They are timed in turns, beside bare loops
    that no server can be quicker than; then clients vanish in every way, and send what no client
    would. Takes a minute a server. Exits with 1 if nobody was measured.
    """
    from p2pnode.bench.http.contestant import EVERYONE, Contestant, choose
    from p2pnode.bench.http.measure import measure
    from p2pnode.interfaces.cli.http_servers_table import as_table

    ours = Contestant("p2pnode", "p2pnode", _OURS, distribution="uvicorn")
    contestants = choose(only, (ours, *EVERYONE))
    with progress("everyone in turns", show=not as_json) as bar:
        figures = measure(contestants, rounds=rounds, tell=bar)
    report_table(figures, as_json, as_table)
    if not any("token_us" in row for row in figures["rows"]):
        raise UserError("nobody could be measured", hint="the reason stands beside each name")
