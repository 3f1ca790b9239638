"""Where the words of an answer go: a terminal that shows Markdown, or wherever plain text goes."""

import os
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from p2pnode.interfaces.chat.markdown import Markdown, Piece, Style
from p2pnode.interfaces.cli.output import paint, say
from p2pnode.terminal import shown

_LOOKS: Final[Mapping[Style, Mapping[str, Any]]] = MappingProxyType(
    {
        Style.BOLD: {"bold": True},
        Style.ITALIC: {"italic": True},
        Style.CODE: {"fg": "cyan"},
        Style.HEADING: {"bold": True, "underline": True},
        Style.FAINT: {"dim": True},
    }
)


class Words(Protocol):
    """Takes the words of one answer as they come."""

    def write(self, text: str) -> None: ...

    def finish(self) -> None:
        """Show what was held back: nothing more comes."""


class PlainWords:
    """Writes what comes as it comes."""

    def write(self, text: str) -> None:
        say(text, end="")

    def finish(self) -> None: ...


class PaintedWords:
    """Paints what comes as Markdown."""

    def __init__(self) -> None:
        self._markdown = Markdown()

    def write(self, text: str) -> None:
        # What steers terminals goes first: a mark may not hide in the middle of a sign.
        self._paint(self._markdown.push(shown(text)))

    def finish(self) -> None:
        self._paint(self._markdown.finish())

    def _paint(self, pieces: Iterable[Piece]) -> None:
        for text, style in pieces:
            looks: dict[str, Any] = {}
            for one in style:
                looks |= _LOOKS[one]
            paint(text, **looks)


def has_colours(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether standard output is a terminal that shows styles, and nobody forbids them."""
    is_able = environ.get("TERM", "") not in {"", "dumb", "unknown"}
    return sys.stdout.isatty() and is_able and not environ.get("NO_COLOR")
