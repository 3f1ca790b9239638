"""What an answer consists of when its model may call tools."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """Text to show."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one tool, whole. Whoever hands it on gives it an id.

    Attributes:
        name: Of the tool, as the model wrote it; whether it was offered is not known here.
        arguments: A JSON object without the space that means nothing; numbers and escapes are
            spelled as the model spelled them.
    """

    name: str
    arguments: str


Piece: TypeAlias = Text | ToolCall
"""More kinds may come, such as a part of a call's arguments: match, and let others pass."""
