"""``p2pnode simulate``: whole production nodes on a virtual network, told what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.node_options import json_option
from p2pnode.interfaces.cli.output import note, progress, say, say_json, table
from p2pnode.interfaces.cli.values import HomePath
from p2pnode.phrases import plural

if TYPE_CHECKING:
    from p2pnode.testing.experiment import Outcome
    from p2pnode.testing.hostile_run import HostileOutcome
    from p2pnode.testing.scenario import Scenario

_FILE = HomePath(path_type=Path, dir_okay=False)
_MOST_LINES = 20
_MOST_SEED = 2**31 - 1

_Outcomes: TypeAlias = "Sequence[Outcome | HostileOutcome]"
_Tell: TypeAlias = Callable[[float], None]


def _seeds_of(
    context: click.Context, option: click.Parameter, words: str | None
) -> tuple[int, ...] | None:
    """Read ``5``, or ``1-25`` with both ends."""
    if words is None:
        return None
    from p2pnode.testing.scenario_file import MOST_RUNS

    first, dash, last = words.partition("-")
    if not first.isdecimal() or not (last.isdecimal() or not dash):
        raise click.BadParameter(f"{words!r} is neither a seed nor a range such as 1-25")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds or seeds[-1] > _MOST_SEED or len(seeds) > MOST_RUNS:
        raise click.BadParameter(f"{words!r} holds none of 0 to {_MOST_SEED}, or too many")
    return tuple(seeds)


@click.command(
    epilog="Example:\n\n  p2pnode simulate simulations/scenarios/loss-sweep.toml --check"
)
@click.argument("scenario", type=_FILE)
@json_option
@click.option(
    "--seed",
    "seeds",
    callback=_seeds_of,
    metavar="SEED[-SEED]",
    help="Run this seed, or these (1-25), instead of the scenario's.",
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
    seeds: tuple[int, ...] | None,
    jobs: int | None,
    check: bool,
    baseline: Path | None,
    write_baseline: bool,
) -> None:
    """Answer in a swarm of whole nodes on a virtual network, as SCENARIO describes.

    The nodes are the production ones; sockets, clocks and weights are made up. The same seed tells
    the same story. Exits with 1 if an answer stays incomplete or its tokens differ; with hostile
    members, if one neither is right nor fails in time, or if they are still believed in the end.
    """
    from p2pnode.testing import report as reports
    from p2pnode.testing.scenario_file import read_scenario

    if write_baseline and baseline is None:
        raise UsageError("--write-baseline needs --baseline FILE to say where")
    plan = read_scenario(scenario)
    if seeds is not None:
        plan = replace(plan, seeds=seeds)
    outcomes = _run(plan, jobs, check=check)
    found = _report(plan, outcomes)
    if baseline is not None and not write_baseline:
        found["changes"] = reports.changes(baseline, found)
    if as_json:
        say_json(found)
    else:
        _show(plan, found)
    if check:
        note(f"same trace twice: {plural(len(plan.runs), 'run')}")
    _refuse_broken(plan, found)
    if baseline is not None and write_baseline:
        reports.write_baseline(baseline, found)
        note(f"wrote {baseline}")


def _run(plan: Scenario, jobs: int | None, *, check: bool) -> _Outcomes:
    from p2pnode.testing.processes import terminable

    with terminable(), progress(f"simulating {plan.name}") as bar:
        half = 0.5 if check else 1.0
        first = _outcomes(plan, jobs, lambda part: bar(part * half))
        if check:
            again = _outcomes(plan, jobs, lambda part: bar(half + part * half))
            _refuse_unlike(first, again)
    return first


def _outcomes(plan: Scenario, jobs: int | None, tell: _Tell) -> _Outcomes:
    """Run everything; what is undisturbed, where there is such a run, comes first."""
    from p2pnode.testing.experiment import simulate as run_scenario
    from p2pnode.testing.hostile_run import simulate_hostile

    if plan.hostile is not None:
        return simulate_hostile(plan, jobs=jobs, progress=tell)
    undisturbed, outcomes = run_scenario(plan, jobs=jobs, progress=tell)
    return [undisturbed, *outcomes]


def _report(plan: Scenario, outcomes: _Outcomes) -> dict[str, Any]:
    from p2pnode.testing import hostile_report, report as reports
    from p2pnode.testing.experiment import Outcome
    from p2pnode.testing.hostile_run import HostileOutcome

    if plan.hostile is not None:
        return hostile_report.report_hostile(
            plan, [one for one in outcomes if isinstance(one, HostileOutcome)]
        )
    undisturbed, *others = (one for one in outcomes if isinstance(one, Outcome))
    return reports.report(plan, undisturbed, others)


def _refuse_unlike(first: _Outcomes, second: _Outcomes) -> None:
    from p2pnode.testing.experiment import unlike

    differing = unlike(first, second)
    if differing:
        run = differing[0]
        raise UserError(
            f"{plural(len(differing), 'run')} of {len(first)} told another story the second time; "
            f"the first: {run.weather.name}, FEC {'on' if run.fec else 'off'}, seed {run.seed}",
            hint="look for unseeded chance, the order of a set, or the clock of the machine",
        )


def _show(plan: Scenario, found: dict[str, Any]) -> None:
    from p2pnode.testing import hostile_report, report as reports

    if plan.hostile is None:
        headings, rows = reports.table_of(found)
        words = headings.index("runs")
    else:
        headings, rows = hostile_report.hostile_table(found)
        words = headings.index("right")
    say(found["title"])
    say(table(headings, rows, right="l" * words + "r" * (len(headings) - words)))
    say(f"trace {found['trace_hash']}")
    _show_lines("change", " since the baseline", found.get("changes"))
    if plan.hostile is not None:
        _show_lines("answer", " not as promised", hostile_report.hostile_failures(found))


def _show_lines(noun: str, what: str, lines: list[str] | None) -> None:
    if lines is None:
        return
    say(f"{plural(len(lines), noun)}{what}")
    for line in lines[:_MOST_LINES]:
        say(f"  {line}")
    if len(lines) > _MOST_LINES:
        say(f"  and {len(lines) - _MOST_LINES} more: --json lists them")


def _refuse_broken(plan: Scenario, found: dict[str, Any]) -> None:
    from p2pnode.testing import hostile_report, report as reports

    if plan.hostile is None:
        broken = reports.failures(found)
    else:
        broken = hostile_report.hostile_failures(found)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise UserError(f"an answer was not what it should be: {broken[0]}{more}")
