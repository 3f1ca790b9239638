"""The figures of the engines as a table."""

from __future__ import annotations

from typing import Any

from p2pnode.bench.machine import in_words
from p2pnode.interfaces.cli.output import table
from p2pnode.phrases import plural

_COLUMNS = {
    "DECODE/S": "decode_tok_s",
    "CPU MS": "decode_cpu_ms",
    "PROMPT 64/S": "prefill64_tok_s",
    "128/S": "prefill128_tok_s",
    "512/S": "prefill512_tok_s",
    "RSS MB": "rss_mb",
    "LOAD S": "load_s",
    "KL": "kl",
    "ARGMAX": "argmax",
    "PYTHON US": "python_us",
    "A LAYER": "python_layer_us",
}
_RATIOS = ("decode", "decode_cpu", "prefill64", "prefill128", "prefill128_cpu", "prefill512")


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`p2pnode.bench.engine.measure.measure` returned."""
    rows = figures["rows"]
    measured = [row for row in rows if "failed" not in row]
    headings = ("ENGINE", "THREADS", *_COLUMNS)
    lines = [table(headings, [_cells(row) for row in measured], right=" r" + "r" * len(_COLUMNS))]
    lines += [f"failed: {_name(row)}, {row['failed']}" for row in rows if "failed" in row]
    if figures["ratios"]:
        lines += ["", _ratio_table(figures["ratios"])]
    lines += ["", *(f"{_name(row)}: {row['numerics']} on {row['device']}" for row in measured)]
    return "\n".join([*lines, "", *_footing(figures)])


def _ratio_table(ratios: list[dict[str, Any]]) -> str:
    headings = ("SPEED OF", "AGAINST", "THREADS", *(name.replace("_", " ") for name in _RATIOS))
    cells = [
        [row["engine"], row["against"], str(row["threads"]), *(_text(row, one) for one in _RATIOS)]
        for row in ratios
    ]
    return table(headings, cells, right="  r" + "r" * len(_RATIOS))


def _footing(figures: dict[str, Any]) -> list[str]:
    compared = figures["compared_tokens"]
    against = (
        f"KL and argmax over {plural(compared, 'token')}, in chunks of 64, against float32"
        if compared
        else f"nothing was compared with float32: {figures['reference']}"
    )
    facts = (
        f"{figures['model']}; medians of {plural(figures['rounds'], 'round')} of "
        f"{plural(figures['decoded_tokens'], 'token')}; {against}"
    )
    return [facts, in_words(figures["conditions"])]


def _cells(row: dict[str, Any]) -> list[str]:
    return [_name(row), str(row["threads"]), *(_text(row, one) for one in _COLUMNS.values())]


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _name(row: dict[str, Any]) -> str:
    return " ".join(filter(None, (row["engine"], row["library"])))
