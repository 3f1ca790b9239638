"""What ``p2pnode bench forged`` measured, for people."""

from __future__ import annotations

from typing import Any

from p2pnode.bench.forged import RATE
from p2pnode.bench.machine import in_words
from p2pnode.interfaces.cli.output import table

_HEADINGS = ("forged", "us, p50 / p99", f"of a core at {RATE:,}/s", "refused")


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`~p2pnode.bench.forged.measure` returned."""
    rows = [
        [
            row["kind"],
            f"{row['us']['p50']:.1f} / {row['us']['p99']:.1f}",
            f"{row['core_at_50k_s']:.0%}",
            f"{row['refused']} of {figures['datagrams']}",
        ]
        for row in figures["rows"]
    ]
    works = "carries messages" if figures["session_works"] else "carries nothing"
    lines = [table(_HEADINGS, rows, right="lrrr"), "", f"the open session {works} afterwards"]
    return "\n".join([*lines, in_words(figures["conditions"])])
