"""How often members may make a node speak of what is wrong with them, in its log and to them.

A line in the log wakes the loop and pushes an older line out, an answer is sealed and sent. So
each member has a small allowance for both, and all lines together have one too: as many members
as there may be cannot empty the log either. What is not said is counted.
"""

from collections import Counter
from collections.abc import Callable

from p2pnode.membership.limits import Buckets, TokenBucket
from p2pnode.node.config import RemarkConfig
from p2pnode.sansio import NodeId


class Remarks:
    """Lets through what may be said."""

    def __init__(
        self,
        config: RemarkConfig,
        room: int,
        note: Callable[[str], None],
        counters: Counter[str],
    ) -> None:
        """``room`` is for how many members, those heard of last, the allowance is kept.

        ``note`` writes a line; ``counters`` take what is not said.
        """
        self._note = note
        self._counters = counters
        self._of_each = Buckets[NodeId](config.of_each, room)
        self._lines = TokenBucket(config.lines)

    def may_be_made(self, peer: NodeId, now: float) -> bool:
        """Whether one more mistake of ``peer`` may be reported; it is counted if not."""
        if self._of_each.of(peer).take(now):
            return True
        self._counters["mistake of a peer not reported: too many"] += 1
        return False

    def note(self, line: str, now: float) -> None:
        """Log a line that :meth:`may_be_made`, if there are not too many of all members."""
        if self._lines.take(now):
            self._note(line)
        else:
            self._counters["line about a peer's mistake left out: too many of all"] += 1
