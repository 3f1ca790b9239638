"""Large pastes stand in the line by a name, so that the line stays one to look at and to edit."""

import re
from typing import Final

from p2pnode.phrases import plural

MOST_SHOWN: Final = 2_000  # characters of a paste that stands in the line as it is
MOST_LINES: Final = 40  # and lines
MOST_HELD: Final = 8 * 1024 * 1024
"""Characters of all pastes of a line: twice what a node reads."""


class Pastes:
    """The large pastes of the line that is edited, by the names that stand for them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._held = 0

    def take(self, text: str) -> str:
        """Return what is to stand in the line for ``text``: itself, or a name.

        Of what is beyond :data:`MOST_HELD` a word stands there that says so.
        """
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if len(text) <= MOST_SHOWN and text.count("\n") < MOST_LINES:
            return text
        if self._held + len(text) > MOST_HELD:
            return f"[a paste of {len(text):,} letters was left out: too long]"
        self._held += len(text)
        lines = plural(text.rstrip("\n").count("\n") + 1, "line")
        name = f"[paste {len(self._texts) + 1}: {lines}, {plural(len(text), 'letter')}]"
        self._texts[name] = text
        return name

    def expanded(self, line: str) -> str:
        """Return a line with each name that still stands there replaced by its text."""
        if not self._texts:
            return line
        names = re.compile("|".join(map(re.escape, self._texts)))
        return names.sub(lambda found: self._texts[found.group()], line)

    def clear(self) -> None:
        self._texts.clear()
        self._held = 0
