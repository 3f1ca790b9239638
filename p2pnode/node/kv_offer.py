"""How much memory for KV caches is offered: all that was agreed, or less after it ran out.

What the owner set aside may not be there: other programs take memory, too. Whoever runs out of it
while it computes offers half of what it had free, so that planners choose others for what is large,
and takes half of the rest back with each pause in which all went well.
"""

from typing import Final

PAUSE: Final = 30.0
"""Seconds between two steps back up. A guess: longer than an answer, or the same would run out
again; four steps bring back all but a sixteenth."""

_PARTS: Final = 16  # of the whole: a gap below one is closed, since ads say no less


class KvOffer:
    """The bytes offered.

    Attributes:
        whole: What was agreed.
        total: What is offered now, at most ``whole``.
        due: When to take some back; None where nothing was withdrawn.
    """

    def __init__(self, whole: int) -> None:
        self.whole = whole
        self.total = whole
        self.due: float | None = None

    def ran_out(self, used: int, now: float) -> None:
        """Memory ran out while ``used`` bytes were promised to sessions."""
        self.total = min(used, self.total) + max(0, self.total - used) // 2
        self.due = now + PAUSE

    def recover(self, now: float) -> bool:
        """Take some back if it is time; return whether it was."""
        if self.due is None or now < self.due:
            return False
        gap = (self.whole - self.total) // 2
        is_closed = gap < max(1, self.whole // _PARTS)
        self.total = self.whole if is_closed else self.total + gap
        self.due = None if is_closed else now + PAUSE
        return True
