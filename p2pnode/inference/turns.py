"""Whose batches the engine computes next: requesters take turns, whatever each has waiting.

Invariants: a stage waits at most once, and never while a job of it is with the engine; no requester
is in the round without a stage that waits.
"""

from collections import deque
from typing import TypeAlias

from p2pnode.sansio import NodeId

StageKey: TypeAlias = tuple[NodeId, int, int]
"""Requester, session, leg."""


class Turns:
    """The stages that wait for the engine, and the jobs that it has.

    Attributes:
        waiting: The round: those that wait, by requester.
    """

    def __init__(self, ahead: int) -> None:
        """At most ``ahead`` jobs are with the engine at once."""
        self._ahead = ahead
        self.waiting: dict[NodeId, deque[StageKey]] = {}
        self._jobs: set[int] = set()

    @property
    def is_free(self) -> bool:
        """Whether the engine takes another job."""
        return len(self._jobs) < self._ahead

    @property
    def is_idle(self) -> bool:
        """Whether a job may begin at once: the engine takes one, and nobody waits."""
        return not self.waiting and len(self._jobs) < self._ahead

    def wait(self, key: StageKey) -> None:
        waiting = self.waiting.setdefault(key[0], deque())
        if key not in waiting:
            waiting.append(key)

    def next(self) -> StageKey | None:
        """Return whose turn it is, if the engine is free and anybody waits."""
        if not self.waiting or not self.is_free:
            return None
        requester = next(iter(self.waiting))
        waiting = self.waiting.pop(requester)
        key = waiting.popleft()
        if waiting:
            self.waiting[requester] = waiting  # at the end of the round
        return key

    def leave(self, key: StageKey) -> None:
        """A stage is gone."""
        waiting = self.waiting.get(key[0])
        if waiting is not None and key in waiting:
            waiting.remove(key)
            if not waiting:
                del self.waiting[key[0]]

    def began(self, job: int) -> None:
        self._jobs.add(job)

    def ended(self, job: int) -> None:
        self._jobs.discard(job)
