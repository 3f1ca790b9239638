"""The figures as a table."""

from __future__ import annotations

from typing import Any

from p2pnode.interfaces.cli.output import plural, table

_HEADINGS = ("one Think, us", "encode", "decode", "round trip", "p99", "ours / its", "p99")


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`~p2pnode.bench.think.measure.measure` returned."""
    rows = figures["rows"]
    present = [row for row in rows if "skipped" not in row]
    absent = [f"skipped: {row['name']} {row['skipped']}" for row in rows if "skipped" in row]
    lines = [table(_HEADINGS, [_cells(row) for row in present], right=" rrrrrr"), *absent]
    return "\n".join([*lines, "", _footing(figures["conditions"], present)])


def _footing(facts: dict[str, Any], present: list[dict[str, Any]]) -> str:
    kept = f", kept on {facts['kept_on_cores']}" if facts["kept_on_cores"] else ""
    least = min((row["repetitions"] for row in present), default=0)
    return (
        f"{facts['shape']} {facts['dtype']}, a frame of {facts['frame_bytes']} bytes; "
        f"medians of at least {least} repetitions in {facts['rounds']} rounds; "
        f"{plural(facts['cpu_count'], 'core')}{kept}, Python {facts['python']}"
    )


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
