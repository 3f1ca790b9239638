"""Lines of the log whose rate members decide: who comes and goes, and what is done for others.

Whoever has the swarm's secret can draw a thousand keys and let them come and go, or ask for one
token after the other. So the lines about one peer have an allowance, and all of them together have
one too: neither can push everything else out of the log. What is left out is counted, and said.
"""

from collections import Counter
from collections.abc import Callable

from p2pnode.membership.limits import Buckets, TokenBucket
from p2pnode.node.config import RemarkConfig
from p2pnode.phrases import plural
from p2pnode.sansio import NodeId

_CALM = 8.0  # lines that may be said again before it is told how many were not: a rush is over


class PeerLines:
    """Lets through what may be said about peers."""

    def __init__(
        self,
        config: RemarkConfig,
        room: int,
        note: Callable[..., None],
        counters: Counter[str],
    ) -> None:
        """``room`` is for how many peers, those spoken of last, the allowance is kept.

        ``note`` takes a line and ``is_notice``; ``counters`` take what is not said.
        """
        self._note = note
        self._counters = counters
        self._of_each = Buckets[NodeId](config.about_each, room)
        self._of_all = TokenBucket(config.about_all)
        self._left_out = 0

    def say(self, peer: NodeId | None, line: str, now: float, *, is_notice: bool = True) -> None:
        """Log a line about ``peer``, None where it is not known, if there are not too many."""
        if peer is not None and not self._of_each.of(peer).take(now):
            self._leave_out("line about a peer left out: too many of it")
        elif not self._of_all.take(now):
            self._leave_out("line about a peer left out: too many of all")
        else:
            self._note(line, is_notice=is_notice)

    def tell_left_out(self, now: float) -> None:
        """Say how many lines are missing, once a rush is over."""
        if self._left_out and self._of_all.has(now, _CALM) and self._of_all.take(now):
            count, self._left_out = self._left_out, 0
            self._note(f"{plural(count, 'line')} left out: peers came, went or asked too often")

    def _leave_out(self, why: str) -> None:
        self._counters[why] += 1
        self._left_out += 1
