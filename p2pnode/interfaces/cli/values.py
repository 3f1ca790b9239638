"""Kinds of values that options take."""

import os
from pathlib import Path
from typing import IO, Any

import click

from p2pnode.errors import UserError
from p2pnode.node.places import expanded


class HomePath(click.Path):
    """A path, made absolute, in which ``~`` stands for the home directory."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 -- as click has it
        return super().convert(_expanded(self, value, param, ctx), param, ctx)


class HomeFile(click.File):
    """A file to open, or ``-``; ``~`` stands for the home directory."""

    def convert(
        self,
        value: str | os.PathLike[str] | IO[Any],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> IO[Any]:
        if isinstance(value, str) and value.startswith("~"):
            value = _expanded(self, value, param, ctx)
        return super().convert(value, param, ctx)


def _expanded(
    kind: click.Path | click.File,
    value: str | os.PathLike[str],
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> str:
    text = os.fspath(value)
    if not text or "\0" in text:
        kind.fail("an empty path names nothing" if not text else "no path holds a zero", param, ctx)
    try:
        return str(expanded(Path(text)))
    except UserError as error:
        kind.fail(f"{error} ({error.hint})", param, ctx)
