"""When a requester stops waiting: deadlines that only tokens and shown progress move.

What the chain owes is known in positions: a token is one position of every leg, a replay all that
a leg lacks. What a position should take is known from the plan (each stage's promise), and from
what this chain has shown. So a deadline is a time that the work should take, with caution, and not
a number of seconds. When it passes, the chain is *looked at*: re-opened in place, so that every leg
tells how far it got. Progress since the last look moves the deadline; twice none means a laggard.

Invariants, by phase. PLANNING: ``deadline`` is the next look for peers, at most ``cover_by``.
OPENING: it is ``open_timeout`` after the chain was opened. RUNNING: the next look at the chain, and
only one after ``_due`` counts against anybody. ENDED: None. While it is not ENDED, ``deadline`` is
at most :attr:`limit`, at which the answer fails, and only a token or progress moves that one, never
a repair.
"""

from p2pnode.inference.config import InferenceConfig

_MOST_GRACE = 600.0


class Patience:
    """The deadlines of one answer.

    Attributes:
        deadline: When to act next.
        limit: When the answer fails unless something moves before.
        cover_by: When an answer without peers fails.
        broken_at: When a stage was lost, until the chain runs again; None while it runs.
        last_resort_at: From when on peers that failed this answer are better than none.
        opened_at: When the chain was last asked to open.
        fed_at: When the chain last got something to do.
        moved_at: When a token came last, or progress was shown.
        longest: Most seconds until the next look.
        looks: Looks in a row that showed no progress.
    """

    def __init__(
        self, config: InferenceConfig, wait: float, now: float, lost_wait: float | None = None
    ) -> None:
        """``wait`` is in seconds, and ``lost_wait`` the same for layers lost later."""
        self._config = config
        self._wait = wait
        self._lost_wait = max(config.cover_wait, wait) if lost_wait is None else lost_wait
        self._grace = config.give_up
        self.moved_at = now
        self._finish_by: float | None = None
        self._work = 0.0
        self._due = now
        self.deadline: float | None = now
        self.cover_by = now + wait
        self.broken_at: float | None = None
        self.last_resort_at = now
        self.opened_at = now
        self.fed_at = now
        self.longest = config.first_look
        self.looks = 0

    @property
    def limit(self) -> float:
        stuck = self._stuck_at
        return stuck if self._finish_by is None else min(stuck, self._finish_by)

    @property
    def _stuck_at(self) -> float:
        return self.moved_at + max(self._grace, self._wait, self._lost_wait)

    def overdue(self, now: float) -> str:
        """Return which limit was reached, for people; empty before :attr:`limit`."""
        if now < self.limit:
            return ""
        if now >= self._stuck_at:
            return f"nothing moved for {now - self.moved_at:.0f} s"
        took = now - self.fed_at
        return f"what should take {self._work:.1f} s moved on, but was not done in {took:.0f} s"

    def is_due(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    # Planning and opening

    def planning(self) -> None:
        """Peers are being looked for elsewhere."""
        self.deadline = self.limit

    def uncovered(self, now: float) -> None:
        """No peers were found: look again soon."""
        self.deadline = min(now + self._config.cover_retry, self.cover_by, self.limit)

    def opening(self, now: float) -> None:
        self.opened_at = now
        self.deadline = min(now + self._config.open_timeout, self.limit)

    def opened(self, now: float) -> float | None:
        """The chain is open; return how long it was broken, if it was."""
        seconds = None if self.broken_at is None else now - self.broken_at
        self.broken_at = None
        return seconds

    def broken(self, now: float, *, is_hopeful: bool) -> None:
        """A stage was lost; ``is_hopeful`` where it may be back in a moment."""
        if self.broken_at is None:
            self.broken_at = now
            self.cover_by = now + self._lost_wait
        patience = 0.0 if is_hopeful else self._config.last_resort
        self.last_resort_at = min(now + patience, max(now, self.cover_by))
        self.looks = 0

    # Running

    def fed(self, work: float, now: float) -> None:
        """A chain with a leg that is new begins what should take ``work`` seconds."""
        config = self._config
        self.fed_at, self._work = now, work
        self._grace = max(config.give_up, min(2 * work, _MOST_GRACE))
        self._finish_by = now + self._grace + config.replay_factor * work
        self.waits(work, now)

    def waits(self, work: float, now: float) -> None:
        """Look again when ``work`` seconds of work should long be done, and now and then before."""
        config = self._config
        ample = config.stall_after + config.caution * work
        self._due = now + min(ample, max(config.stall_after, 0.75 * self._grace))
        self.deadline = min(self._due, now + self.longest, self.limit)

    def look_at(self, moment: float) -> None:
        """Look earlier than the work should take."""
        if self.deadline is not None:
            self.deadline = min(self.deadline, moment)

    def looked(self, work: float, now: float, flowed: float, *, moved: bool, is_news: bool) -> None:
        """The chain was looked at; some leg ``moved`` on since, or none.

        ``work`` is what is left, in seconds. Before what there was should have been done, that
        nobody moved says nothing: a stage tells of a job only when it is done. Bytes on the way
        explain ``flowed`` seconds of the wait: the work has so much longer. Unless it ``is_news``,
        what moved was there before: this chain is waited for, and :attr:`limit` stays.
        """
        if flowed and self._finish_by is not None:
            self._finish_by += flowed
        if moved or flowed:
            self.moved_at = now if is_news else self.moved_at
            self.looks = 0
            self.waits(work, now)
            return
        self.looks += now >= self._due
        wait = self._config.stall_after / 2 if self.looks else max(0.0, self._due - now)
        self.deadline = min(now + min(wait, self.longest), self.limit)

    @property
    def is_stalled(self) -> bool:
        """Whether nothing moved for too long, and somebody must go."""
        return self.looks > 1

    def answered(self, trip: float, now: float) -> None:
        """A token came, and the next one should take about as long as ``trip`` seconds."""
        config = self._config
        self.moved_at = self.fed_at = now
        self._grace = config.give_up
        self._finish_by = None
        self.looks = 0
        self.longest = config.longest_look
        self._due = now + config.stall_after + config.caution * trip
        self.deadline = min(self._due, now + self.longest)

    def over(self) -> None:
        self.deadline = None
