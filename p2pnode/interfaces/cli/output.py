"""What the command line prints: facts on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from p2pnode.errors import UserError
from p2pnode.terminal import label, shown, to_json


def say(line: str = "", *, end: str = "\n", mark: str = "", colour: str | None = None) -> None:
    """Write to standard output at once, behind a ``mark`` in ``colour``; nothing steers a terminal.

    What is said may come from models and peers, so it is filtered here, where nobody can forget.
    """
    head = click.style(shown(mark), fg=colour) if mark else ""
    click.echo(head + _encodable(shown(line)) + end, nl=False)
    sys.stdout.flush()


def _encodable(text: str) -> str:
    """Return ``text`` with ``?`` for what the encoding of standard output does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def paint(text: str, **style: Any) -> None:
    """Write to standard output at once, with no line's end, in the ``style`` that click knows.

    What is painted is filtered as what is said.
    """
    click.echo(click.style(_encodable(shown(text)), **style), nl=False)
    sys.stdout.flush()


def note(line: str) -> None:
    """Tell the person something that is not the result."""
    click.echo(click.style(shown(line), dim=True), err=True)


def say_json(value: object) -> None:
    """Write one JSON document to standard output; it steers no terminal either."""
    text = to_json(value)
    say(text if _encodable(text) == text else json.dumps(value))


def complain(error: UserError) -> int:
    """Say what went wrong and what to do about it; return the exit status."""
    click.echo(f"p2pnode: {shown(str(error))}", err=True)
    if error.hint:
        click.echo(f"  try: {shown(error.hint)}", err=True)
    return 1


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Lay out rows under headings; ``right`` has an ``r`` for each column to align right."""
    everything = [list(headings), *([label(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(headings))]
    sides = right.ljust(len(headings))
    lines = [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in everything
    ]
    return "\n".join(lines)


@contextmanager
def progress(what: str, *, show: bool = True) -> Iterator["Bar"]:
    """Show a progress bar on standard error while the work lasts."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as display:
        yield Bar(display, label(what))


class Bar:
    """A bar that is told which part of the work is done, from 0 to 1."""

    def __init__(self, shown: "object", label: str) -> None:
        from rich.progress import Progress

        if not isinstance(shown, Progress):
            raise TypeError("a bar needs a progress display")
        self._shown = shown
        self._task = shown.add_task(label, total=1.0)

    def __call__(self, part: float) -> None:
        self._shown.update(self._task, completed=part)
