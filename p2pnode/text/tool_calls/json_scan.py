"""Where a JSON object ends, in text that comes piece by piece."""

import re
from typing import Final

MOST_CALL: Final = 262_144
"""Characters of one call's JSON."""
MOST_NESTED: Final = 64
"""Braces and brackets within each other, as in the schemas that are followed."""

SPACES: Final = " \t\r\n"
"""White space, as JSON has it."""

_CLOSING: Final = {"{": "}", "[": "]"}
# What may stand between strings and brackets. That nothing else may tells early what is no JSON,
# and keeps work linear where a text is looked at again: of two readings of one text that differ
# in what is within a string, one soon meets a letter that no JSON has.
_BETWEEN: Final = re.compile(r"[ \t\r\n,:0-9.+\-eEtrufalsn]*")
_STRING: Final = re.compile(r'[^"\\]*')


class JsonScan:
    """Follows strings and brackets from an object's ``{`` to its ``}``.

    What stands between is only looked at letter by letter: whoever has the whole decodes it.

    Attributes:
        failed: Whether this is no JSON object, or one too long or nested too deep.
    """

    def __init__(self) -> None:
        self._open = ""  # the brackets that would close what is open, the last first to come
        self._in_string = False
        self._escaped = False
        self._size = 0
        self.failed = False

    def push(self, text: str, start: int = 0) -> int | None:
        """Go on with ``text[start:]``; return where in ``text`` the object ends, if it does.

        Work is O(len(text) - start).
        """
        end = self._end(text, start)
        self._size += (len(text) if end is None else end) - start
        self.failed = self.failed or self._size > MOST_CALL
        return None if self.failed else end

    def _end(self, text: str, start: int) -> int | None:
        at = start
        if not self._size and text[at : at + 1] not in ("{", ""):
            self.failed = True
        while at < len(text) and not self.failed:
            if self._in_string:
                at = self._string(text, at)
            else:
                at = self._bracket(text, _between(text, at) if self._open else at)
                if not self._open:
                    return at
        return None

    def _string(self, text: str, at: int) -> int:
        """Go on within a string, up to its end or behind one escaped letter."""
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _STRING.match(text, at)
        at = at if found is None else found.end()
        letter = text[at : at + 1]
        self._escaped = letter == "\\"
        self._in_string = letter != '"'
        return at + 1

    def _bracket(self, text: str, at: int) -> int:
        letter = text[at : at + 1]
        if letter in _CLOSING:
            self._open = _CLOSING[letter] + self._open
            self.failed = len(self._open) > MOST_NESTED
        elif letter == '"':
            self._in_string = True
        elif letter and letter == self._open[:1]:
            self._open = self._open[1:]
        elif letter:
            self.failed = True
        return at + 1


def _between(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return at if found is None else found.end()
