"""When the layers of an engine that failed are loaded anew."""

from typing import Final

FIRST_RETRY: Final = 10.0
"""Seconds before the layers of an engine that failed are loaded anew: a driver starts again in a
few. A guess."""

LAST_RETRY: Final = 600.0
"""Seconds between two tries at the most: each takes the machine's attention, for nothing so far."""

STEADY: Final = 600.0
"""Seconds that an engine must have worked for its failures to be forgotten."""


class Retries:
    """When to load layers again after an engine failed; each pause is twice the last.

    Attributes:
        due: When; None where nothing failed.
    """

    def __init__(self) -> None:
        self.due: float | None = None
        self._pause = FIRST_RETRY
        self._since: float | None = None  # when the engine was loaded after a failure

    @property
    def has_failed(self) -> bool:
        """Whether an engine failed that has not worked for long since."""
        return self._pause > FIRST_RETRY

    def failed(self, now: float) -> float:
        """Return the seconds to wait for another try."""
        if self._since is not None and now - self._since >= STEADY:
            self._pause = FIRST_RETRY
        pause, self._pause = self._pause, min(2 * self._pause, LAST_RETRY)
        self.due, self._since = now + pause, None
        return pause

    def loaded(self, now: float) -> None:
        self.due, self._since = None, now

    def forget(self) -> None:
        """Nothing is to be tried again: the model is another, or this node leaves."""
        self.due = None

    def is_due(self, now: float) -> bool:
        """Whether it is time, once."""
        if self.due is None or now < self.due:
            return False
        self.due = None
        return True
