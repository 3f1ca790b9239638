"""The calls of tools in one answer, told apart from its words as they come."""

from collections.abc import Iterable

from p2pnode.text.tool_calls.forced import parse_forced
from p2pnode.text.tool_calls.formats import ToolFormat, marks
from p2pnode.text.tool_calls.parser import parser_of
from p2pnode.text.tool_calls.pieces import Piece, Text, ToolCall


class Calls:
    """Finds calls in the text of an answer.

    Args:
        kind: How the model writes calls of its own accord; None if it was not taught to.
        is_forced: Whether the whole answer is one call, since a schema holds it to that.
    """

    def __init__(self, kind: ToolFormat | None, *, is_forced: bool) -> None:
        self._kind = kind
        self._parser = None if kind is None or is_forced else parser_of(kind)
        self._is_forced = is_forced
        self._held: list[str] = []

    @property
    def marks(self) -> frozenset[str]:
        """The control tokens that mark calls, which text alone would not show."""
        if self._kind is None or self._parser is None:
            return frozenset()
        return marks(self._kind)

    def push(self, text: str) -> Iterable[Piece]:
        """Take the next text of the answer; return what is certain now."""
        if self._is_forced:
            self._held.append(text)
            return ()
        return (Text(text),) if self._parser is None else self._parser.push(text)

    def finish(self) -> Iterable[Piece]:
        """Return the rest: the answer is over."""
        if self._is_forced:
            text = "".join(self._held)
            return parse_forced(text) or [Text(text)]
        return () if self._parser is None else self._parser.finish()


def call_body(number: int, call: ToolCall) -> dict[str, object]:
    """Return a call as JSON has it: which of the answer, whom, with what, as the text of JSON."""
    return {"index": number, "name": call.name, "arguments": call.arguments}
