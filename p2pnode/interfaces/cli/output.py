"""How the command line speaks: facts on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from p2pnode.errors import UserError


def say(line: str = "", *, end: str = "\n") -> None:
    """Write to standard output at once."""
    click.echo(line + end, nl=False)
    sys.stdout.flush()


def note(line: str) -> None:
    """Tell the person something that is not the result."""
    click.echo(click.style(printable(line), dim=True), err=True)


def say_json(value: object) -> None:
    """Write one JSON document to standard output."""
    say(json.dumps(value, ensure_ascii=False))


def complain(error: UserError) -> int:
    """Say what went wrong and what to do about it; return the exit status."""
    click.echo(f"p2pnode: {printable(str(error))}", err=True)
    if error.hint:
        click.echo(f"  try: {printable(error.hint)}", err=True)
    return 1


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Lay out rows under headings; ``right`` has an ``r`` for each column to align right."""
    everything = [list(headings), *(list(row) for row in rows)]
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


def plural(count: int, noun: str) -> str:
    """Return ``1 peer`` or ``2 peers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """Return ``text`` without control characters: a model may not steer the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


@contextmanager
def progress(label: str, *, show: bool = True) -> Iterator["Bar"]:
    """Show a progress bar on standard error while the work lasts."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as shown:
        yield Bar(shown, label)


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
