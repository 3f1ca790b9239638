"""The figures as a table."""

from __future__ import annotations

from typing import Any

from p2pnode.bench.machine import in_words
from p2pnode.interfaces.cli.output import table
from p2pnode.phrases import plural

_HEADINGS = ("one Think, us", "encode", "decode", "round trip", "p99", "ours / its", "p99")


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`~p2pnode.bench.think.measure.measure` returned."""
    rows = figures["rows"]
    measured = [row for row in rows if "repetitions" in row]
    others = [
        f"{why}: {row['name']} {row[why]}"
        for row in rows
        for why in ("failed", "skipped")
        if why in row
    ]
    lines = [table(_HEADINGS, [_cells(row) for row in measured], right=" rrrrrr"), *others]
    return "\n".join([*lines, "", *_footing(figures["conditions"], measured)])


def _footing(facts: dict[str, Any], measured: list[dict[str, Any]]) -> list[str]:
    kept, left_out = facts["kept_on_cores"], facts["left_out"]
    least = min((row["repetitions"] for row in measured), default=0)
    parts = [
        f"{facts['shape']} {facts['dtype']}, a frame of {facts['frame_bytes']} bytes",
        f"medians of at least {least} repetitions in {plural(facts['rounds'], 'round')}",
    ]
    if kept:
        parts.append(f"both sides kept on {_cores(kept)}")
    if left_out:
        parts.append(f"{plural(left_out, 'other')} left out")
    return ["; ".join(parts), in_words(facts)]


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{count} cores"


def _cells(row: dict[str, Any]) -> list[str]:
    whole, ratio = row["round_trip_us"], row.get("ours_over_its")
    return [
        row["name"],
        _part(row["encode_us"], "p50"),
        _part(row["decode_us"], "p50"),
        _part(whole, "p50"),
        _part(whole, "p99"),
        _part(ratio, "p50", 3),
        _part(ratio, "p99", 3),
    ]


def _part(values: dict[str, float] | None, part: str, digits: int = 1) -> str:
    return "" if values is None else f"{values[part]:.{digits}f}"
