"""On which line of a TOML file a key stands: the standard library's reader does not say."""

import re
import tomllib
from collections.abc import Iterator
from functools import cached_property

_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""+'
    r"|'''.*?'''+"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[A-Za-z0-9_-]+"
    r"|.",
    re.DOTALL,
)
_OPENING, _CLOSING = "[{", "]}"


class KeyLines:
    """Finds lines by the paths that complaints use: ``link.mtu``, ``weather[1].bursts.p``."""

    def __init__(self, text: str) -> None:
        """``text`` is TOML that the reader has accepted; of other text the answers mean little."""
        self._text = text

    def line_of(self, path: str) -> int | None:
        """Return the line of a key, counted from 1, or of the nearest table around it."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None

    @cached_property
    def _lines(self) -> dict[str, int]:
        lines: dict[str, int] = {}
        arrays: dict[str, int] = {}
        table = ""
        for line, head in _statements(self._text):
            parts = [_bare(part) for part in head if part not in {".", *_OPENING, *_CLOSING}]
            path = "" if head[0] == "[" else table
            for number, part in enumerate(parts):
                path = f"{path}.{part}" if path else part
                lines.setdefault(path, line)
                if head[:2] == ["[", "["] and number == len(parts) - 1:
                    arrays[path] = arrays.get(path, 0) + 1
                if path in arrays:
                    path = f"{path}[{arrays[path] - 1}]"
                    lines.setdefault(path, line)
            if head[0] == "[":
                table = path
        return lines


def _bare(part: str) -> str:
    """Return a part of a key as the reader understands it: without quotes, escapes resolved."""
    if part[0] not in "\"'":
        return part
    try:
        return next(iter(tomllib.loads(f"{part} = 0")))
    except tomllib.TOMLDecodeError:  # of a text that the reader has not accepted
        return part.strip("\"'")


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each statement's line, and its pieces up to the sign that ends a key."""
    line, began, depth = 1, 1, 0
    head: list[str] = []
    is_value = False
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece == "\n" and depth == 0:
            if head:
                yield began, head
            head, is_value = [], False
        elif piece == "=" and depth == 0:
            is_value = True
        elif not piece.isspace() and not piece.startswith("#"):
            depth += (piece in _OPENING) - (piece in _CLOSING)
            if not is_value:
                began = began if head else line
                head.append(piece)
        line += piece.count("\n")
    if head:
        yield began, head
