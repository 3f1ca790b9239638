"""Who waits at the socket: the loop, the engine thread, or, for the length of a brief job, nobody.

This is a phase machine, so an illegal move is refused loudly: it is our own bug.

What holds in each phase (see :class:`p2pnode.net.reactor.Reactor` for the fields):

=======  =================  ==========================================  ==========================
phase    reads the socket   fires the timers                            the engine thread
=======  =================  ==========================================  ==========================
LOOP     the loop           the loop                                    computes for long, or has
                                                                        not begun
THREAD   the thread         the thread those from ``kept_from`` on,     waits, or fires and sends
                            the loop sooner ones, and late those too
NOBODY   nobody, until the  as in THREAD, but the thread only once the  computes a brief job
         job ends           job has ended
=======  =================  ==========================================  ==========================

The loop may read the socket in any phase when it fires a timer: whoever waits may be late, and
nobody is to be found silent who was not.
"""

import enum
from collections.abc import Mapping

from p2pnode.errors import LocalProtocolError


class Waiter(enum.IntEnum):
    """Who waits at the socket: an int, for each hop moves it twice, and its hash is at hand."""

    LOOP = enum.auto()
    THREAD = enum.auto()
    NOBODY = enum.auto()


class Turn(enum.IntEnum):
    """What makes it change hands."""

    IDLE = enum.auto()
    """The engine thread has nothing to compute."""

    BRIEF = enum.auto()
    """It begins a job that ends before anybody is missed."""

    LONG = enum.auto()
    """It begins one that does not, or the loop has something to do meanwhile."""

    OVERDUE = enum.auto()
    """The loop finds that a brief job is none."""


TRANSITIONS: Mapping[tuple[Waiter, Turn], Waiter] = {
    (Waiter.LOOP, Turn.IDLE): Waiter.THREAD,
    (Waiter.LOOP, Turn.BRIEF): Waiter.LOOP,  # to take it back first would cost more than the job
    (Waiter.LOOP, Turn.LONG): Waiter.LOOP,
    (Waiter.THREAD, Turn.BRIEF): Waiter.NOBODY,
    (Waiter.THREAD, Turn.LONG): Waiter.LOOP,
    (Waiter.NOBODY, Turn.IDLE): Waiter.THREAD,
    (Waiter.NOBODY, Turn.BRIEF): Waiter.NOBODY,
    (Waiter.NOBODY, Turn.LONG): Waiter.LOOP,
    (Waiter.NOBODY, Turn.OVERDUE): Waiter.LOOP,
}
"""The whole machine. A pair that is not here cannot happen."""


def next_waiter(waiter: Waiter, turn: Turn) -> Waiter:
    """Return who waits after ``turn``.

    Raises:
        LocalProtocolError: It cannot happen while ``waiter`` waits.
    """
    try:
        return TRANSITIONS[waiter, turn]
    except KeyError:
        raise LocalProtocolError(f"{turn.name} cannot happen while {waiter.name} waits") from None
