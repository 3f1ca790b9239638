"""Tables and examples of Markdown pages, so that tests can hold documents against the code.

What is checked has a comment above it: ``<!-- table: name -->``, ``<!-- example: name -->``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """One document; what it lacks is a :class:`LookupError`."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    def table(self, name: str) -> list[Row]:
        """Return a table's rows, cells by column."""
        _, found, rest = self.text.partition(f"<!-- table: {name} -->\n")
        if not found:
            raise LookupError(f"{self.path.name} has no table {name}")
        cells: list[list[str]] = []
        for line in rest.splitlines():
            if not line.startswith("|"):
                break
            cells.append([cell.strip() for cell in line.strip("|").split("|")])
        head, _, *body = cells
        return [dict(zip(head, row, strict=True)) for row in body]

    def example(self, name: str) -> str:
        """Return what a code block says."""
        pattern = rf"<!-- example: {re.escape(name)} -->\n```\w*\n(.*?)```"
        found = re.search(pattern, self.text, re.DOTALL)
        if found is None:
            raise LookupError(f"{self.path.name} has no example {name}")
        return found[1]

    def layout(self, name: str, data: bytes, sizes: Mapping[str, int] | None = None) -> "Layout":
        """Take bytes apart with nothing but a byte table; ``sizes`` gives those not written out."""
        return Layout(self.table(name), data, sizes or {})


class Layout:
    """Fields that a byte table found in bytes.

    Attributes:
        size: Bytes that the table accounts for.

    Raises:
        ValueError: The table's offsets and sizes do not add up, or the bytes end before it.
    """

    def __init__(self, rows: Sequence[Row], data: bytes, sizes: Mapping[str, int]) -> None:
        self._values: dict[str, bytes] = {}
        self.size = 0
        for row in rows:
            size = int(row["size"]) if row["size"].isdigit() else sizes[row["size"]]
            misplaced = row["offset"].isdigit() and int(row["offset"]) != self.size
            if misplaced or self.size + size > len(data):
                raise ValueError(f"{row['field']} is at {self.size} of {len(data)} bytes: {row}")
            self._values[row["field"]] = data[self.size : self.size + size]
            self.size += size

    def raw(self, field: str) -> bytes:
        return self._values[field]

    def numbers(self, *fields: str) -> list[int]:
        """Return fields as little-endian integers."""
        return [int.from_bytes(self._values[field], "little") for field in fields]
