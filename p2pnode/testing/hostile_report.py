"""What a simulation with hostile members showed: a row a run, a total, and what broke the promise.

The promise: every answer is right, or says within its time why not; and once the answers in which
the hostile may be believed are over, none of their keys stands in a plan.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from p2pnode.errors import LocalProtocolError
from p2pnode.testing.hostile_member import HOSTILE
from p2pnode.testing.hostile_run import Asked, Ending, HostileOutcome
from p2pnode.testing.report import FORM, digest
from p2pnode.testing.scenario import HostileMembers, Scenario

ENDINGS: tuple[Ending, ...] = get_args(Ending)
_SUMS = ("answers", *ENDINGS, "broken", "keys", "jobs", "called_dead", "believed", "planned_late")
_COLUMNS = (
    ("right", "right"),
    ("failed", "failed"),
    ("wrong", "wrong"),
    ("unfinished", "unfinished"),
    ("longest s", "longest_s"),
    ("broken", "broken"),
    ("keys", "keys"),
    ("believed", "believed"),
    ("in later plans", "planned_late"),
    ("named hostile", "named_hostile"),
    ("named honest", "named_honest"),
    ("called dead", "called_dead"),
)


def report_hostile(scenario: Scenario, outcomes: Sequence[HostileOutcome]) -> dict[str, Any]:
    """Return everything as a JSON value; ``simulations/README.md`` says what each figure means."""
    hostile = scenario.hostile
    if hostile is None:
        raise LocalProtocolError(f"{scenario.name} has no hostile members")
    rows = [_row(hostile, outcome) for outcome in outcomes]
    return {
        "form": FORM,
        "scenario": scenario.name,
        "title": scenario.title,
        "seeds": list(scenario.seeds),
        "rows": rows,
        "total": _total(rows),
        "ways": _ways(rows),
        "trace_hash": digest(outcome.trace_hash for outcome in outcomes),
    }


def hostile_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the report's table, the total last."""
    headings = ["run", "ways", *(heading for heading, _ in _COLUMNS)]
    lines = [[row["run"], ", ".join(row["ways"].values())] for row in found["rows"]]
    lines.append(["all", ""])
    for line, row in zip(lines, [*found["rows"], found["total"]], strict=True):
        line += [_cell(row[key]) for _, key in _COLUMNS]
    return headings, lines


def hostile_failures(found: dict[str, Any]) -> list[str]:
    """Return a line for each answer that broke the promise."""
    return [
        f"{row['run']} ({', '.join(row['ways'].values())}), answer {run['answer']}: {what}"
        for row in found["rows"]
        for run in row["runs"]
        for what in run["broke"]
    ]


def _row(hostile: HostileMembers, outcome: HostileOutcome) -> dict[str, Any]:
    answers = [
        _answer(asked, number, hostile.answers)
        for number, asked in enumerate(outcome.answers, start=1)
    ]
    endings = Counter(asked.ending for asked in outcome.answers)
    named: Counter[str] = Counter()
    for asked in outcome.answers:
        for word, times in asked.named:
            named[word] += times
    ways = dict(outcome.ways)
    of_hostile = Counter[str]()
    for word, times in named.items():
        if word.startswith(HOSTILE):
            of_hostile[ways[word.split()[0]]] += times
    late = outcome.answers[hostile.answers :]
    run = outcome.run
    return {
        "run": f"{run.weather.name}, FEC {'on' if run.fec else 'off'}, seed {run.seed}",
        "seed": run.seed,
        "ways": ways,
        "answers": len(answers),
        **{ending: endings[ending] for ending in ENDINGS},
        "longest_s": max(asked.seconds for asked in outcome.answers),
        "broken": sum(asked.broken for asked in outcome.answers),
        "keys": outcome.keys,
        "jobs": outcome.jobs,
        "called_dead": outcome.called_dead,
        "believed": sum(bool(asked.hostile) for asked in outcome.answers[: hostile.answers]),
        "planned_late": sum(bool(asked.hostile) for asked in late),
        "named": dict(sorted(of_hostile.items())),
        "named_hostile": of_hostile.total(),
        "named_honest": named.total() - of_hostile.total(),
        "traffic_hash": outcome.traffic_hash,
        "trace_hash": outcome.trace_hash,
        "runs": answers,
    }


def _answer(asked: Asked, number: int, believed: int) -> dict[str, Any]:
    broke = []
    if asked.ending == "wrong":
        broke.append("other tokens than one engine's")
    elif asked.ending == "unfinished":
        broke.append(
            f"neither whole nor failed after {asked.seconds:.1f} s, {asked.broken} repairs"
        )
    if number > believed and asked.hostile:
        broke.append(f"{', '.join(asked.hostile)} stood in a plan")
    return {
        "answer": number,
        "asker": asked.asker,
        "ending": asked.ending,
        "seconds": asked.seconds,
        "tokens": asked.tokens,
        "broken": asked.broken,
        "reason": asked.reason,
        "chain": list(asked.chain),
        "hostile": list(asked.hostile),
        "named": dict(asked.named),
        "broke": broke,
    }


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {key: sum(row[key] for row in rows) for key in _SUMS}
    sums["longest_s"] = max((row["longest_s"] for row in rows), default=0.0)
    for key in ("named_hostile", "named_honest"):
        sums[key] = sum(row[key] for row in rows)
    return sums


def _ways(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return, for each way: runs with it, answers in them that broke the promise, its namings."""
    of_way: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for way in row["ways"].values():
            of_way.setdefault(way, []).append(row)
    return {
        way: {
            "runs": len(its),
            "broke": sum(map(_broke, its)),
            "named": sum(row["named"].get(way, 0) for row in its),
        }
        for way, its in sorted(of_way.items())
    }


def _broke(row: dict[str, Any]) -> int:
    return sum(bool(run["broke"]) for run in row["runs"])


def _cell(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
