"""``p2pnode simulate``: whole production nodes on a virtual network, told what goes wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from p2pnode.errors import ConfigError, UserError
from p2pnode.interfaces.cli.output import note, plural, progress, say, say_json, table
from p2pnode.interfaces.cli.settings import json_option
from p2pnode.testing import report as reports
from p2pnode.testing.experiment import Outcome, simulate as run_scenario, unlike
from p2pnode.testing.scenario import Scenario, read_scenario

_FILE = click.Path(path_type=Path, dir_okay=False)
_MOST_LINES = 20


@click.command(
    epilog="Example:\n\n  p2pnode simulate simulations/scenarios/loss-sweep.toml --check"
)
@click.argument("scenario", type=_FILE)
@json_option
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), help="Run this seed instead of the scenario's."
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), help="Processes to run on.  [default: one a core]"
)
@click.option("--check", is_flag=True, help="Run everything twice; fail if any trace differs.")
@click.option("--baseline", type=_FILE, help="Say what changed since this file was written.")
@click.option("--write-baseline", is_flag=True, help="Write the --baseline file anew.")
def simulate(
    scenario: Path,
    as_json: bool,
    seed: int | None,
    jobs: int | None,
    check: bool,
    baseline: Path | None,
    write_baseline: bool,
) -> None:
    """Answer in a swarm of whole nodes on a virtual network, as SCENARIO describes.

    The nodes are the production ones; sockets, clocks and weights are made up. The same seed tells
    the same story. Exits with 1 if an answer stays incomplete or its tokens differ.
    """
    if write_baseline and baseline is None:
        raise ConfigError("--write-baseline needs --baseline FILE to say where")
    plan = read_scenario(scenario)
    if seed is not None:
        plan = replace(plan, seeds=(seed,))
    undisturbed, outcomes = _run(plan, jobs, check=check)
    found = reports.report(plan, undisturbed, outcomes)
    if baseline is not None and not write_baseline:
        found["changes"] = reports.changes(baseline, found)
    if as_json:
        say_json(found)
    else:
        _show(found)
    if check:
        note(f"same trace twice: {plural(len(outcomes), 'run')}")
    _refuse_broken(found)
    if baseline is not None and write_baseline:
        reports.write_baseline(baseline, found)
        note(f"wrote {baseline}")


def _run(plan: Scenario, jobs: int | None, *, check: bool) -> tuple[Outcome, list[Outcome]]:
    with progress(f"simulating {plan.name}") as bar:
        half = 0.5 if check else 1.0
        first = run_scenario(plan, jobs=jobs, progress=lambda part: bar(part * half))
        if check:
            again = run_scenario(plan, jobs=jobs, progress=lambda part: bar(half + part * half))
            _refuse_unlike([first[0], *first[1]], [again[0], *again[1]])
    return first


def _refuse_unlike(first: list[Outcome], second: list[Outcome]) -> None:
    differing = unlike(first, second)
    if differing:
        run = differing[0]
        raise UserError(
            f"{plural(len(differing), 'run')} of {len(first)} told another story the second time; "
            f"the first: {run.weather.name}, FEC {'on' if run.fec else 'off'}, seed {run.seed}",
            hint="look for unseeded chance, the order of a set, or the clock of the machine",
        )


def _show(found: dict[str, Any]) -> None:
    headings, rows = reports.table_of(found)
    say(found["title"])
    words = headings.index("runs")
    say(table(headings, rows, right="l" * words + "r" * (len(headings) - words)))
    say(f"trace {found['trace_hash']}")
    lines = found.get("changes")
    if lines is None:
        return
    say(f"{plural(len(lines), 'change')} since the baseline")
    for line in lines[:_MOST_LINES]:
        say(f"  {line}")
    if len(lines) > _MOST_LINES:
        say(f"  and {len(lines) - _MOST_LINES} more: --json lists them")


def _refuse_broken(found: dict[str, Any]) -> None:
    broken = reports.failures(found)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise UserError(f"an answer was not what it should be: {broken[0]}{more}")
