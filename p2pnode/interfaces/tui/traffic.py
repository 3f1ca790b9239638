"""Traffic: what flows now, by kind, and the last minute of it."""

from collections.abc import Callable, Sequence

from rich.text import Text

from p2pnode.interfaces.tui.formats import short_bytes, short_count, sparkline
from p2pnode.interfaces.tui.palette import Palette
from p2pnode.interfaces.tui.panel import Panel, Picture, lines
from p2pnode.interfaces.tui.rates import SPARK_SECONDS, STILL, Flow

NAME, BYTES, FRAMES = 9, 7, 6  # columns a number gets, its gap included


class Traffic(Panel):
    """A line for each kind of traffic, and one for all of it."""

    BORDER_TITLE = "Traffic"

    def draw(self, picture: Picture, width: int, height: int) -> Text:
        rates, palette = picture.rates, picture.palette
        room = min(SPARK_SECONDS, width - NAME - 2 * BYTES - 2 * FRAMES - 2)
        kinds = [view.kind for view in picture.node.traffic]
        rows = [
            _row(kind, rates.kinds.get(kind, STILL), rates.sparks.get(kind, ()), room, palette)
            for kind in kinds
        ]
        total = _sum([rates.kinds.get(kind, STILL) for kind in kinds])
        both = [sum(column) for column in zip(*rates.sparks.values(), strict=True)]
        return lines(_head(room, palette), *rows, _row("all", total, both, room, palette))


def _head(room: int, palette: Palette) -> Text:
    text = f"{'':{NAME}}{'B/s in':>{BYTES}}{'out':>{BYTES}}{'fr/s':>{FRAMES}}{'out':>{FRAMES}}"
    return Text(text + ("  last 60 s" if room >= 9 else ""), style=palette.muted)


def _row(name: str, flow: Flow, spark: Sequence[float], room: int, palette: Palette) -> Text:
    still = flow.bytes_in + flow.bytes_out == 0
    numbers = (
        f"{_number(short_bytes, flow.bytes_in):>{BYTES}}"
        f"{_number(short_bytes, flow.bytes_out):>{BYTES}}"
        f"{_number(short_count, flow.frames_in):>{FRAMES}}"
        f"{_number(short_count, flow.frames_out):>{FRAMES}}"
    )
    return Text.assemble(
        (f"{name:{NAME}}", palette.muted if still else palette.accent),
        (numbers, palette.muted if still else palette.plain),
        (f"  {sparkline(spark, room)}", palette.good),
    )


def _number(written: Callable[[float], str], value: float) -> str:
    return written(value) if value >= 0.05 else "·"


def _sum(flows: Sequence[Flow]) -> Flow:
    return Flow(
        sum(flow.bytes_in for flow in flows),
        sum(flow.bytes_out for flow in flows),
        sum(flow.frames_in for flow in flows),
        sum(flow.frames_out for flow in flows),
    )
