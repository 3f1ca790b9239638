"""The figures of ``p2pnode bench serve`` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from p2pnode.bench.machine import in_words
from p2pnode.interfaces.cli.output import table
from p2pnode.phrases import plural

_TOGETHER = (
    *("sessions", "batching", "tokens/s", "with prompts", "CPU ms", "a step", "least share"),
    *("step, ms", "p99", "first token, ms", "p99", "wrong"),
)
_NEWCOMER = ("batching", "alone, ms", "p99", "beside, ms", "p99", "p99 / alone", "allowed, ms")
_MODELS = ("model", "alone, tokens/s", "beside the other")
_REUSE = ("positions", "reused", "first turn, ms", "second, ms", "second / first")


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`~p2pnode.bench.serve.measure.measure` returned."""
    return "\n".join([*_parts(figures), *_footing(figures)])


def _parts(figures: Mapping[str, Any]) -> Iterator[str]:
    if (part := figures.get("batching")) is not None:
        yield table(_TOGETHER, [_together(row) for row in part["rows"]], right="r rrrrrrrrrr")
        for name, ratio in part["ratios"].items():
            yield f"tokens/s, {name}: {ratio['median']:.2f}"
        yield ""
    if (part := figures.get("newcomer")) is not None:
        yield f"a newcomer with {part['prompt_tokens']} tokens beside {part['others']} others"
        yield table(_NEWCOMER, [_newcomer(row) for row in part["rows"]], right=" rrrrrr")
        yield ""
    if (part := figures.get("reuse")) is not None:
        yield table(_REUSE, [_reuse(part)], right="rrrrr")
        yield ""
    if (part := figures.get("models")) is not None:
        yield from _models(part)
        yield ""


def _footing(figures: Mapping[str, Any]) -> Sequence[str]:
    asked = figures["askers"]
    who = plural(asked, "node") + " without layers" if isinstance(asked, int) else asked
    facts = (
        f"{figures['engine']}, {plural(figures['threads'], 'thread')} a node",
        f"{plural(figures['rounds'], 'round')}, asked by {who}",
    )
    return ["; ".join(facts), in_words(figures["conditions"])]


def _together(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["sessions"]),
        row["batching"],
        f"{row['tokens_per_s']:.1f}",
        f"{row['with_prompts_tokens_per_s']:.1f}",
        f"{row['cpu_ms_per_token']:.1f}",
        f"{row['sessions_a_step']:.1f}",
        f"{row['least_share']:.2f}",
        *_spread(row["step_ms"]),
        *_spread(row["first_token_ms"]),
        str(row["wrong_sessions"]),
    ]


def _newcomer(row: Mapping[str, Any]) -> list[str]:
    return [
        row["batching"],
        *_spread(row["alone_ms"]),
        *_spread(row["beside_ms"]),
        f"{row['p99_over_alone']:.2f}",
        f"{row['allowed_ms']:.0f}",
    ]


def _reuse(part: Mapping[str, Any]) -> list[str]:
    return [
        ", ".join(map(str, part["positions"])),
        str(part["reused"]),
        f"{part['first_turn_ms']['p50']:.1f}",
        f"{part['second_turn_ms']['p50']:.1f}",
        f"{part['second_over_first']['median']:.3f}",
    ]


def _models(part: Mapping[str, Any]) -> Iterator[str]:
    speeds = zip(
        part["models"], part["alone_tokens_per_s"], part["together_tokens_per_s"], strict=True
    )
    cells = [[name, f"{alone:.1f}", f"{together:.1f}"] for name, alone, together in speeds]
    yield table(_MODELS, cells, right=" rr")
    before, meanwhile = (part["step_ms"][when]["p99"] for when in ("before", "while_loading"))
    yield (
        f"the second is loaded in {part['load_s']:.1f} s; a token of the first, p99: "
        f"{before:.1f} ms before, {meanwhile:.1f} meanwhile ({part['p99_ratio']:.2f})"
    )


def _spread(values: Mapping[str, float]) -> tuple[str, str]:
    return f"{values['p50']:.1f}", f"{values['p99']:.1f}"
