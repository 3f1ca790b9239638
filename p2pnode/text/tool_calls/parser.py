"""Calls of tools found in an answer as it comes."""

from collections.abc import Iterator

from p2pnode.text.tool_calls.formats import GRAMMARS, ToolFormat
from p2pnode.text.tool_calls.pieces import Piece, Text
from p2pnode.text.tool_calls.source import Source


class ToolCallParser:
    """Tells the calls in an answer from its text.

    However the answer is cut, the pieces are the same but for where text is cut. Nothing is lost
    but the marks of calls and the white space beside them: what is no call after all is text, in
    its place. Nothing raises. Text is held back only while it may be part of a call, or is white
    space that may stand beside one.

    Args:
        kind: How the model writes calls.
    """

    def __init__(self, kind: ToolFormat) -> None:
        self._source = Source()
        self._steps: Iterator[Piece | None] = GRAMMARS[kind](self._source)

    def push(self, piece: str) -> list[Piece]:
        """Take the next piece of an answer; return what is certain now, texts joined."""
        if not piece:
            return []
        self._source.push(piece)
        return self._certain()

    def finish(self) -> list[Piece]:
        """Return the rest: the answer is over."""
        self._source.ended = True
        return self._certain()

    def _certain(self) -> list[Piece]:
        pieces: list[Piece] = []
        texts: list[str] = []
        for step in self._steps:
            if isinstance(step, Text):
                texts.append(step.text)
                continue
            if texts:
                pieces.append(Text("".join(texts)))
                texts.clear()
            if step is None:
                return pieces
            pieces.append(step)
        return [*pieces, Text("".join(texts))] if texts else pieces


def parser_of(kind: ToolFormat) -> ToolCallParser:
    """Return a parser for one answer."""
    return ToolCallParser(kind)
