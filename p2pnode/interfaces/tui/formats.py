"""How numbers and texts are written on the screen. Plain functions, no widgets."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from rich.text import Text

from p2pnode.interfaces.spans import span as span
from p2pnode.terminal import label

_T = TypeVar("_T")

ABSENT = "-"
BLOCKS = " ▁▂▃▄▅▆▇█"
UNITS = ("", "K", "M", "G", "T", "P")


def short_count(number: float) -> str:
    """Return a count in at most five characters: ``0``, ``0.3``, ``999``, ``1.2k``, ``34k``."""
    if 0.05 <= number < 0.95:
        return f"{number:.1f}"
    return _scaled(number, 1000, ("", "k", "M", "G", "T", "P"))


def short_bytes(number: float) -> str:
    """Return bytes in at most five characters, in powers of 1024: ``512``, ``1.2K``, ``34M``."""
    return _scaled(number, 1024, UNITS)


def long_bytes(number: float) -> str:
    """Return bytes with their unit: ``512 B``, ``1.2 KiB``."""
    text = short_bytes(number)
    if text[-1].isdigit():
        return f"{text} B"
    return f"{text[:-1]} {text[-1]}iB"


def share(part: float) -> str:
    """Return a share of 0 to 1 as a percentage; a small one is not rounded to nothing."""
    percent = part * 100
    if 0 < percent < 0.1:
        return "<0.1%"
    return f"{percent:.1f}%" if 0 < percent < 10 else f"{percent:.0f}%"


def milliseconds(value: float | None) -> str:
    """Return milliseconds without their unit, with about three digits."""
    if value is None:
        return ABSENT
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ago(seconds: float | None) -> str:
    """Return how long ago something was, in at most five characters; None is never."""
    if seconds is None:
        return "never"
    return span(seconds).split()[0] if seconds >= 1 else "now"


def layers(run: tuple[int, int]) -> str:
    """Return a run of layers, first and one past the last; a dash for none."""
    return f"[{run[0]}, {run[1]})" if run[0] < run[1] else ABSENT


def clip(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` columns of the screen; some signs take two."""
    if width < 1:
        return ""
    fitted = Text(text)
    fitted.truncate(width, overflow="ellipsis")
    return fitted.plain


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw ``values`` as ``width`` blocks, oldest left; the tallest is the largest value.

    Anything above zero gets at least the lowest block, so that a whisper is not silence.
    """
    columns = resampled(values, width)
    top = max(columns, default=0.0)
    if top <= 0:
        return BLOCKS[0] * len(columns)
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[0 if v <= 0 else max(1, round(v / top * steps))] for v in columns)


def resampled(values: Sequence[float], width: int) -> list[float]:
    """Return ``values`` averaged into ``width`` columns; fewer values than columns stay as is."""
    if width <= 0:
        return []
    count = len(values)
    if count <= width:
        return list(values)
    edges = [index * count // width for index in range(width + 1)]
    return [sum(values[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]


def labelled(value: _T) -> _T:
    """Return ``value``, a tree of dataclasses, with every text in it safe for a terminal.

    Names, reasons and log lines come from other people's machines; an escape sequence in one of
    them must not reach the terminal.
    """
    return cast(_T, _labelled(value))


def _labelled(value: object) -> object:
    if isinstance(value, str):
        return label(value)
    if isinstance(value, tuple):
        return tuple(_labelled(item) for item in value)
    if isinstance(value, Mapping):
        return {_labelled(key): _labelled(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        cleaned: dict[str, Any] = {name: _labelled(part) for name, part in parts.items()}
        return replace(value, **cleaned)
    return value


def _scaled(number: float, base: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if number < 999.5:
            return f"{number:.1f}{unit}" if unit and number < 9.95 else f"{number:.0f}{unit}"
        number /= base
    return f"{number:.0f}{units[-1]}"
