"""When a requester stops waiting."""

from p2pnode.inference.config import InferenceConfig


class Patience:
    """The deadlines of one answer.

    Invariants, by phase. PLANNING: ``deadline`` is the next look for peers, and never later than
    ``cover_by``. OPENING: it is ``open_timeout`` after the chain was opened. RUNNING: it is when
    the chain is looked at unless a token comes before. ENDED: None.

    Attributes:
        deadline: When to act next.
        cover_by: When an answer without peers fails.
        broken_at: When a stage was lost, until the chain runs again; None while it runs.
        last_resort_at: From when on peers that failed this answer are better than none.
        stalls: Deadlines passed in a row while RUNNING.
    """

    def __init__(self, config: InferenceConfig, wait: float, now: float) -> None:
        self._config = config
        self._wait = wait
        self.deadline: float | None = now
        self.cover_by = now + wait
        self.broken_at: float | None = None
        self.last_resort_at = now
        self.stalls = 0

    def is_due(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def uncovered(self, now: float) -> None:
        """No peers were found: look again soon."""
        self.deadline = min(now + self._config.cover_retry, self.cover_by)

    def opening(self, now: float) -> None:
        self.deadline = now + self._config.open_timeout

    def fed(self, unanswered: int, now: float) -> None:
        """The chain got something to do; ``unanswered`` positions of it a whole prompt."""
        patience = self._config.stall_after + unanswered * self._config.stall_per_prompt_token
        self.deadline = now + patience

    def broken(self, now: float) -> None:
        if self.broken_at is None:
            self.broken_at = now
            self.cover_by = now + max(self._config.cover_wait, self._wait)

    def distrusted(self, now: float) -> None:
        self.last_resort_at = now + self._config.last_resort

    def running(self, now: float) -> float | None:
        """The chain is open; return how long it was broken."""
        seconds = None if self.broken_at is None else now - self.broken_at
        self.broken_at = None
        return seconds

    def over(self) -> None:
        self.deadline = None
