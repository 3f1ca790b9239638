"""The comparison of HTTP servers as tables."""

from __future__ import annotations

from typing import Any

from p2pnode.bench.machine import in_words
from p2pnode.interfaces.cli.output import table
from p2pnode.phrases import plural

_SPEED = (
    "microseconds",
    "token",
    "p99",
    "cpu",
    "1st byte",
    "p99",
    "tiny",
    "p99",
    "MiB",
    "after",
    "start ms",
)
_SOUND = (
    "clients and nonsense",
    "unnoticed",
    "slowest ms",
    "unread MiB",
    "unsound",
    "heads",
    "slow head s",
    "500 idle ms",
    "left",
)


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`~p2pnode.bench.http.measure.measure` returned."""
    rows = figures["rows"]
    timed = [row for row in rows if "token_us" in row]
    attacked = [row for row in rows if "slow_writer_s" in row]
    parts = [table(_SPEED, [_speed(row) for row in timed], right=" rrrrrrrrrr")]
    if attacked:
        parts += ["", table(_SOUND, [_soundness(row) for row in attacked], right=" rrrrlrrr")]
    parts += ["", *(line for row in rows for line in _exceptions(row))]
    parts += [
        f"{why}: {row['name']} {row[why]}"
        for row in rows
        for why in ("failed", "skipped")
        if why in row
    ]
    rounds = plural(figures["conditions"]["rounds"], "round")
    tokens = min((row["tokens"] for row in timed), default=0)
    return "\n".join(
        [*parts, "", f"medians of {rounds}, {tokens} tokens", in_words(figures["conditions"])]
    )


def _speed(row: dict[str, Any]) -> list[str]:
    after = row.get("memory_after_mib")
    return [
        row["name"],
        *_both(row["token_us"]),
        f"{row['cpu_us']:.0f}",
        *_both(row["first_byte_us"]),
        *_both(row["tiny_us"]),
        f"{row['memory_mib']:.0f}",
        "" if after is None else f"{after:.0f}",
        str(row["start_ms"]),
    ]


def _both(values: dict[str, float]) -> list[str]:
    return [f"{values['p50']:.0f}", f"{values['p99']:.0f}"]


def _soundness(row: dict[str, Any]) -> list[str]:
    noticed = [one["ms"] for one in row["vanishing"].values() if one["ms"] is not None]
    attacks, slow, crowd = row["attacks"], row["slow_writer_s"], row["crowd"]["ms"]
    return [
        row["name"],
        f"{len(row['vanishing']) - len(noticed)} of {len(row['vanishing'])}",
        f"{max(noticed, default=0):.0f}",
        f"{row['held_back']['sent_mib']:.1f}",
        f"{len(attacks['unsound'])} of {len(attacks['answers'])}",
        "bounded" if row["bounds_heads"] else "endless",
        "never" if slow is None else f"{slow:.0f}",
        "none" if crowd is None else f"{crowd:.0f} ({row['crowd']['status']})",
        str(row["left_after_attacks"]),
    ]


def _exceptions(row: dict[str, Any]) -> list[str]:
    """Return in words which ways and requests a server did not master."""
    attacks = row.get("attacks", {"answers": {}, "unsound": [], "traced": []})
    unnoticed = [name for name, one in row.get("vanishing", {}).items() if one["ms"] is None]
    unsound = [f"{name} ({_answer(attacks['answers'][name])})" for name in attacks["unsound"]]
    return [
        f"{row['name']}: {what}: {', '.join(names)}"
        for what, names in (
            ("does not notice who", unnoticed),
            ("unsound", unsound),
            ("shows a traceback to a client", attacks["traced"]),
        )
        if names
    ]


def _answer(status: int | None) -> str:
    if status is None:
        return "hangs"
    return str(status) if status else "closed"
