"""Byte layouts drawn in text, eight bytes a row."""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.wire.layout import Layout, written_offsets

_ACROSS = 8  # bytes a row
_WIDE = 10  # columns a byte, its left border included


@dataclass(slots=True)
class _Row:
    """Eight bytes of the layout.

    Attributes:
        offset: Where it begins, as the pages write it.
        cells: Whose byte each one is; fewer than eight where a field of another size follows.
        labels: What is written at the first byte of each field.
        full: It is a repeated field's own row, and takes no other.
    """

    offset: str
    cells: list[str]
    labels: dict[int, str]
    full: bool = False


def draw(layout: Layout) -> str:
    """Return the layout as a diagram. A field that repeats has a row of its own."""
    rows = _rows(layout)
    margin = max(len(row.offset) for row in rows)
    ruler = "".join(f"{number:^{_WIDE}}" for number in range(_ACROSS))
    lines = [f"{'':{margin}} {ruler}".rstrip()]
    above: list[str] = []
    for row in rows:
        lines.append(f"{'':{margin}} {_border(above, row.cells)}")
        lines.append(f"{row.offset:>{margin}} {_content(row)}")
        above = row.cells
    lines.append(f"{'':{margin}} {_border(above, [])}")
    return "\n".join(lines)


def _rows(layout: Layout) -> list[_Row]:
    rows: list[_Row] = []
    for part, starts in zip(layout, written_offsets(layout), strict=True):
        if part.times:
            words = part.name if part.size == part.name else f"{part.name}: {part.size} bytes"
            rows.append(_Row(starts, [part.name] * _ACROSS, {0: words}, full=True))
            continue
        for byte in range(part.unit):
            if not rows or rows[-1].full or len(rows[-1].cells) == _ACROSS:
                # A field that goes on over the row's end lies at a plain number.
                rows.append(_Row(str(int(starts) + byte) if byte else starts, [], {}))
            if byte == 0:
                rows[-1].labels[len(rows[-1].cells)] = part.name
            rows[-1].cells.append(part.name)
    return rows


def _border(above: Sequence[str], below: Sequence[str]) -> str:
    """Draw the line between two rows, open where one field goes on below itself."""
    columns = range(max(len(above), len(below)))
    goes_on = [above[at : at + 1] == below[at : at + 1] for at in columns]
    line = ""
    for at in columns:
        inside = at > 0 and goes_on[at - 1] and goes_on[at]
        line += (" " if inside else "+") + (" " if goes_on[at] else "-") * (_WIDE - 1)
    return line + "+"


def _content(row: _Row) -> str:
    line = ""
    for at, cell in enumerate(row.cells):
        begins = at == 0 or row.cells[at - 1] != cell
        label = row.labels.get(at, "")
        line = line.ljust(at * _WIDE) + ("|" + label if begins else "")
    return line.ljust(len(row.cells) * _WIDE) + "|"
