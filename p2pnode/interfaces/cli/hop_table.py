"""The parts of a hop as a table."""

from __future__ import annotations

from typing import Any

from p2pnode.bench.machine import in_words
from p2pnode.interfaces.cli.output import table
from p2pnode.phrases import plural

_PARTS = (
    ("states_coded", "coded"),
    ("frame_built", "built"),
    ("sealed", "sealed"),
    ("peer_awake", "awake"),
    ("received", "received"),
    ("opened", "opened"),
    ("job_made", "made"),
    ("job_begun", "begun"),
    ("engine_begun", "engine"),
)
_HEADINGS = ("processes", "after", "compute", "wait", *(short for _, short in _PARTS), "hop")


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`~p2pnode.bench.hop.measure.measure` returned."""
    rows = [_cells(row) for row in figures["rows"]]
    lines = [table(_HEADINGS, rows, right="rrll" + "r" * (len(_PARTS) + 1)), ""]
    lines.append(
        "microseconds of each part, p50 / p99, from an engine's end to the next one's"
        f" beginning; answers of {plural(figures['tokens'], 'token')}"
    )
    if figures["unmatched"]:
        lines.append(f"left out, for their stamps do not match: {figures['unmatched']}")
    lines.append(in_words(figures["conditions"]))
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    parts = [_cell(row["parts_us"].get(name)) for name, _ in _PARTS]
    job = f"{row['job_ms']:.1f} ms"
    return [str(row["processes"]), job, row["compute"], row["wait"], *parts, _cell(row["hop_us"])]


def _cell(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['p50']:.0f} / {spread['p99']:.0f}"
