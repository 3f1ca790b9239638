"""Which of the peer's packets arrived, and when it must be told."""

from p2pnode.transport.frames import MAX_RANGES, Ack, ack_of_run


class Arrivals:
    """The runs of packet numbers that arrived, newest first, and the acknowledgement owed.

    Attributes:
        due: When an acknowledgement must leave at the latest; None when none is owed.
    """

    __slots__ = ("_ack_every", "_max_delay", "_newest_at", "_owed", "_ranges", "due")

    def __init__(self, max_delay: float, ack_every: int) -> None:
        self._max_delay = max_delay
        self._ack_every = ack_every
        self._ranges: list[tuple[int, int]] = []
        self._owed = 0
        self._newest_at = 0.0
        self.due: float | None = None

    def record(
        self, number: int, now: float, *, wants_ack: bool, patience: float | None = None
    ) -> None:
        """Note a packet.

        Args:
            number: Its number.
            now: When it came.
            wants_ack: Whether it is to be acknowledged.
            patience: Seconds that its acknowledgement may wait for company; None for the usual.
                A hole, or a filled one, is told at once.
        """
        ranges = self._ranges
        if ranges and number == ranges[0][1] + 1:  # the rule
            ranges[0] = (ranges[0][0], number)
            self._newest_at = now
            in_order = True
        else:
            in_order = self._insert(number)
            if ranges[0][1] == number:
                self._newest_at = now
        if not wants_ack:
            return
        self._owed += 1
        delay = self._max_delay if patience is None else patience
        if not in_order or self._owed >= self._ack_every:
            delay = 0.0
        if self.due is None or now + delay < self.due:
            self.due = now + delay

    def take(self, now: float) -> Ack | None:
        """Return the acknowledgement owed, as sent now; None when none is."""
        if self.due is None:
            return None
        self.due = None
        self._owed = 0
        return Ack(tuple(self._ranges), now - self._newest_at)

    def take_frame(self, now: float) -> tuple[bytes, int] | None:
        """As :meth:`take`, as bytes and the highest number in them; None where it is no one run."""
        if len(self._ranges) != 1:
            return None
        low, high = self._ranges[0]
        self.due = None
        self._owed = 0
        return ack_of_run(low, high, now - self._newest_at), high

    def forget_below(self, number: int) -> None:
        """The peer knows of everything up to ``number``: no need to tell again."""
        ranges = self._ranges
        while len(ranges) > 1 and ranges[-1][1] <= number:
            ranges.pop()

    def _insert(self, number: int) -> bool:
        """Add a number, and say whether it came right after the highest."""
        ranges = self._ranges
        if not ranges:
            ranges.append((number, number))
            return True
        at = 0
        while at < len(ranges) and ranges[at][0] > number:
            at += 1
        # ranges[at] is now the first that begins at or below the number
        if at == len(ranges) or ranges[at][1] < number:
            ranges.insert(at, (number, number))
            self._join(at)
            self._join(at - 1)
            del ranges[MAX_RANGES:]
        return False

    def _join(self, at: int) -> None:
        """Make one of the runs ``at`` and ``at + 1`` if they touch."""
        ranges = self._ranges
        if 0 <= at < len(ranges) - 1 and ranges[at + 1][1] + 1 >= ranges[at][0]:
            ranges[at : at + 2] = [(ranges[at + 1][0], ranges[at][1])]
