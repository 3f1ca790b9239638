"""Stop strings: an answer ends before the first of them, however its text is cut into pieces."""

from collections.abc import Iterable
from typing import Final

from p2pnode.errors import UserError
from p2pnode.text.overlap import overlap

MOST_STOPS: Final = 16
"""Stop strings of an answer; OpenAI's API takes 4, others up to 16."""
LONGEST_STOP: Final = 256
"""Characters of one; as much of an answer may be held back."""


class StopStrings:
    """Shows an answer up to its first stop string.

    The first is the one that begins earliest; of those that begin together, the shortest. No part
    of it is ever shown, and nothing after it. What is held back is only what may still become part
    of a stop string, or stands behind such a thing. Work a piece is O(len(piece) + len(stop)) for
    each stop string.

    Args:
        stops: The stop strings; one that is given twice counts once.

    Attributes:
        matched: The stop string that ended the answer, or None.

    Raises:
        UserError: They are too many, or one is empty or too long.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = checked_stops(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, piece: str) -> str:
        """Take the next piece of an answer; return what may be shown now.

        Once a stop string has matched this is nothing, ever.
        """
        if self.matched is not None or not piece:
            return ""
        text = self._held + piece
        begun = min((len(text) - overlap(text, stop) for stop in self._stops), default=len(text))
        start, stop = self._first(text)
        if stop is None or begun < start:  # one that begins earlier may still become whole
            self._held = text[begun:]
            return text[:begun]
        return self._end(text, start, stop)

    def finish(self) -> str:
        """Return what was held back, now that the answer has ended by itself."""
        return self.interrupt()

    def interrupt(self) -> str:
        """Return what was held back, now that what comes next does not adjoin it."""
        start, stop = self._first(self._held)
        return self._end(self._held, start, stop)

    def _end(self, text: str, start: int, stop: str | None) -> str:
        self.matched = self.matched or stop
        self._held = ""
        return text[:start]

    def _first(self, text: str) -> tuple[int, str | None]:
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if not found:
            return len(text), None
        return min(found, key=lambda one: (one[0], len(one[1])))


def checked_stops(stops: Iterable[str]) -> tuple[str, ...]:
    """Return ``stops``, each once.

    Raises:
        UserError: They are too many, or one is empty or too long.
    """
    checked = tuple(dict.fromkeys(stops))
    if len(checked) > MOST_STOPS:
        raise UserError(
            f"there are {len(checked)} stop strings, and {MOST_STOPS} are the most",
            hint="leave out those that contain another: that one ends the answer anyway",
        )
    for stop in checked:
        if not 0 < len(stop) <= LONGEST_STOP:
            said = "is empty" if not stop else f"has {len(stop)} characters"
            raise UserError(
                f"a stop string {said}", hint=f"it may have 1 to {LONGEST_STOP} characters"
            )
    return checked
