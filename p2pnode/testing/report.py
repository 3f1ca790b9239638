"""What a simulation showed: rows of figures, as a table, as JSON, and against a baseline."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from p2pnode.errors import ConfigError
from p2pnode.testing.experiment import Outcome
from p2pnode.testing.scenario import Scenario

FORM = 1
"""Version of the JSON form."""

_KEYS = ("weather", "fec", "trouble")
_MACHINE_BOUND = ("trace_hash", "runs")  # what a baseline leaves out

_COLUMNS = (
    ("tokens/s", "tokens_per_s", 1),
    ("p50 ms", "latency_p50_ms", 1),
    ("p99 ms", "latency_p99_ms", 1),
    ("worst ms", "latency_max_ms", 0),
    ("broken", "chains_broken", 0),
    ("resent", "retransmits", 0),
    ("parity", "parity_sent", 0),
    ("recovered", "recovered", 0),
    ("dgrams/tok", "datagrams_per_token", 1),
    ("bytes/tok", "bytes_per_token", 0),
)
_TROUBLE_COLUMNS = (
    ("broken", "chains_broken", 0),
    ("noticed p50 ms", "noticed_p50_ms", 0),
    ("noticed max", "noticed_max_ms", 0),
    ("resumed p50 ms", "resumed_p50_ms", 0),
    ("resumed max", "resumed_max_ms", 0),
    ("dgrams/tok", "datagrams_per_token", 1),
    ("bytes/tok", "bytes_per_token", 0),
)


def report(scenario: Scenario, undisturbed: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything as a JSON value; ``simulations/README.md`` says what each figure means."""
    groups: dict[tuple[str, bool, str], list[Outcome]] = {}
    for outcome in outcomes:
        run = outcome.run
        trouble = run.trouble.name if run.trouble else ""
        groups.setdefault((run.weather.name, run.fec, trouble), []).append(outcome)
    return {
        "form": FORM,
        "scenario": scenario.name,
        "title": scenario.title,
        "seeds": list(scenario.seeds),
        "tokens": list(undisturbed.tokens),
        "rows": [
            {**dict(zip(_KEYS, key, strict=True)), **_figures(undisturbed, group)}
            for key, group in groups.items()
        ],
        "trace_hash": digest(outcome.trace_hash for outcome in (undisturbed, *outcomes)),
    }


def table_of(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the report's table."""
    rows = found["rows"]
    disturbed = any(row["trouble"] for row in rows)
    columns = _TROUBLE_COLUMNS if disturbed else _COLUMNS
    headings = ["weather", "FEC", *(["trouble"] if disturbed else []), "runs"]
    headings += [heading for heading, _, _ in columns] + ["tokens identical"]
    lines = []
    for row in rows:
        line = [row["weather"], "on" if row["fec"] else "off"]
        line += [row["trouble"]] if disturbed else []
        line += [str(row["answers"])]
        line += [_cell(row[key], digits) for _, key, digits in columns]
        whole = row["identical"]
        line.append("yes" if whole == row["answers"] else f"{whole} of {row['answers']}")
        lines.append(line)
    return headings, lines


def failures(found: dict[str, Any]) -> list[str]:
    """Return a line for each run that broke the promise: whole answers, identical tokens."""
    return [
        f"{_name(row)}, seed {run['seed']}{_after(run)}: {run['failure'] or 'other tokens'}"
        for row in found["rows"]
        for run in row["runs"]
        if run["failure"] or not run["identical"]
    ]


def baseline_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a report that is the same on every machine."""
    return {
        "form": found["form"],
        "scenario": found["scenario"],
        "seeds": found["seeds"],
        "rows": [
            {key: value for key, value in row.items() if key not in _MACHINE_BOUND}
            for row in found["rows"]
        ],
    }


def write_baseline(path: Path, found: dict[str, Any]) -> None:
    """Write it whole or not at all.

    Raises:
        ConfigError: It cannot be written; what was there before is still there.
    """
    text = json.dumps(baseline_of(found), indent=1, ensure_ascii=False) + "\n"
    written = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        written.write_text(text, "utf-8")
        written.replace(path)
    except OSError as error:
        written.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def changes(path: Path, found: dict[str, Any]) -> list[str]:
    """Compare with a baseline; return a line for each figure that differs.

    Raises:
        ConfigError: The file is no baseline, or one of another scenario or other seeds.
    """
    before, now = _read_baseline(path), baseline_of(found)
    for key in ("form", "scenario", "seeds"):
        if before[key] != now[key]:
            raise ConfigError(
                f"{path}: {key} is {before[key]!r} there and {now[key]!r} here",
                hint="compare like with like, or write the baseline anew with --write-baseline",
            )
    old = {_name(row): row for row in before["rows"]}
    new = {_name(row): row for row in now["rows"]}
    lines = [f"{name}: no longer there" for name in old if name not in new]
    for name, row in new.items():
        if name not in old:
            lines.append(f"{name}: is new")
            continue
        lines += [
            f"{name}: {key} {_shown(old[name].get(key))} -> {_shown(row.get(key))}"
            for key in [*row, *(key for key in old[name] if key not in row)]
            if old[name].get(key) != row.get(key)
        ]
    return lines


def digest(hashes: Iterable[str]) -> str:
    """Return one hash of several."""
    return hashlib.blake2b(" ".join(hashes).encode(), digest_size=16).hexdigest()


def _figures(undisturbed: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    waits = sorted(wait for outcome in outcomes for wait in outcome.waits)
    seconds = sum(outcome.seconds for outcome in outcomes)
    noticed = _known(outcome.noticed for outcome in outcomes)
    paused = _known(outcome.paused for outcome in outcomes)
    runs = [_run(undisturbed, outcome) for outcome in outcomes]
    return {
        "answers": len(outcomes),
        "finished": sum(not outcome.failure for outcome in outcomes),
        "identical": sum(run["identical"] for run in runs),
        "tokens_per_s": round(len(waits) / seconds, 2) if seconds else None,
        "latency_p50_ms": _milliseconds(waits, 0.5),
        "latency_p90_ms": _milliseconds(waits, 0.9),
        "latency_p99_ms": _milliseconds(waits, 0.99),
        "latency_max_ms": _milliseconds(waits, 1.0),
        "retransmits": sum(outcome.retransmits for outcome in outcomes),
        "parity_sent": sum(outcome.parity for outcome in outcomes),
        "recovered": sum(outcome.recovered for outcome in outcomes),
        "datagrams_per_token": _share(sum(one.datagrams for one in outcomes), len(waits)),
        "bytes_per_token": _share(sum(one.octets for one in outcomes), len(waits)),
        "chains_broken": sum(outcome.repairs for outcome in outcomes),
        "noticed_p50_ms": _milliseconds(noticed, 0.5),
        "noticed_max_ms": _milliseconds(noticed, 1.0),
        "resumed_p50_ms": _milliseconds(paused, 0.5),
        "resumed_max_ms": _milliseconds(paused, 1.0),
        "traffic_hash": digest(outcome.traffic_hash for outcome in outcomes),
        "trace_hash": digest(outcome.trace_hash for outcome in outcomes),
        "runs": runs,
    }


def _run(undisturbed: Outcome, outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": outcome.run.seed,
        "after_token": outcome.run.after or None,
        "identical": outcome.tokens == undisturbed.tokens,
        "failure": outcome.failure,
        "seconds": round(outcome.seconds, 6),
        "noticed_ms": None if outcome.noticed is None else round(outcome.noticed * 1000, 2),
        "resumed_ms": None if outcome.paused is None else round(outcome.paused * 1000, 2),
        "traffic_hash": outcome.traffic_hash,
        "trace_hash": outcome.trace_hash,
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return sorted(value for value in values if value is not None)


def _milliseconds(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank quantile of seconds, in milliseconds."""
    if not ordered:
        return None
    return round(ordered[max(math.ceil(share * len(ordered)), 1) - 1] * 1000, 2)


def _share(total: int, tokens: int) -> float | None:
    return round(total / tokens, 1) if tokens else None


def _name(row: dict[str, Any]) -> str:
    if "run" in row:
        return str(row["run"])
    trouble = f", {row['trouble']}" if row["trouble"] else ""
    return f"{row['weather']}, FEC {'on' if row['fec'] else 'off'}{trouble}"


def _after(run: dict[str, Any]) -> str:
    return f", after token {run['after_token']}" if run["after_token"] else ""


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _shown(value: object) -> str:
    return str(value)[:12] if isinstance(value, str) else str(value)


def _read_baseline(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    keys = {"form", "scenario", "seeds", "rows"}
    if not isinstance(value, dict) or not keys <= value.keys():
        raise ConfigError(f"{path}: not a baseline", hint="write one with --write-baseline")
    rows = value["rows"]
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and ("run" in row or row.keys() >= set(_KEYS)) for row in rows
    ):
        raise ConfigError(f"{path}: rows is a list of rows with run, or with {', '.join(_KEYS)}")
    return value
