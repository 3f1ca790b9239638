"""One key, two processes: told apart, a machine started anew and a copy of a live one.

Both look the same when the second one's handshake completes: the same key, another instance. A
process that was killed answers nothing any more, a copy's original does. So the newcomer is held
back while the connection that exists is asked for a sign of life. An acknowledgement of something
sent after the newcomer came proves two live processes: the newcomer is refused, and the fact is
told. Silence proves nothing but is all that a dead process can give: then the newcomer takes its
place.
"""

from dataclasses import dataclass

from p2pnode.sansio import Address, NodeId
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.connection import Connection
from p2pnode.transport.half_open import HalfOpen
from p2pnode.transport.handshake import Established

_MOST_HELD = 4  # handshakes of one peer: both ends may have dialled, on several addresses
_MOST_CONTESTS = 64
_LONGEST = 2.0  # seconds; a dialler gives up after ``dial_timeout``
_ASKED = 3  # times; one datagram may be lost
_TOLD_AGAIN = 60.0
_MOST_TOLD = 256


@dataclass(slots=True)
class Contest:
    """A newcomer that must wait for what the one before has to say.

    Attributes:
        existing: The connection there is.
        challenged: The number of the first packet that was sent to it after the newcomer came.
        held: The newcomer's handshakes.
        ask_at: When it is asked again.
        pause: Seconds between two questions.
        decide_at: When its silence counts.
    """

    existing: Connection
    challenged: int
    held: list[tuple[HalfOpen, Established]]
    ask_at: float
    pause: float
    decide_at: float


class Rivals:
    """The contests under way.

    Attributes:
        contests: By peer; empty nearly always.
    """

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self.contests: dict[NodeId, Contest] = {}
        self._told: dict[tuple[NodeId, Address], float] = {}

    def is_needed(self, existing: Connection, made: Established) -> bool:
        """Whether the peer of ``existing`` might be another living process than ``made``'s.

        Two processes cannot have one address, and one that does not acknowledge is not asked again.
        """
        return (
            existing.instance != made.hello.instance
            and existing.address != made.address
            and existing.is_responsive
        )

    def hold(
        self, existing: Connection, half_open: HalfOpen, made: Established, now: float
    ) -> bool:
        """Keep a newcomer waiting, and challenge ``existing``; False when too many wait."""
        contest = self.contests.get(existing.peer)
        if contest is None and len(self.contests) >= _MOST_CONTESTS:
            return False
        if contest is None:
            patience = max(3 * existing.rtt, self._config.rival_patience)
            patience = min(patience + self._config.ack_patience, _LONGEST)
            pause = patience / _ASKED
            contest = self.contests[existing.peer] = Contest(
                existing, existing.next_number, [], now + pause, pause, now + patience
            )
            existing.ping(now)
        if len(contest.held) >= _MOST_HELD:
            return False
        contest.held.append((half_open, made))
        return True

    def survived(self, connection: Connection) -> Contest | None:
        """Return, and end, the contest that ``connection`` has just won, if it did."""
        contest = self.contests.get(connection.peer)
        if contest is None or contest.existing is not connection:
            return None
        if connection.largest_acked < contest.challenged:
            return None
        return self.contests.pop(connection.peer)

    def ended(self, connection: Connection) -> Contest | None:
        """Return, and end, the contest about a connection that is no more."""
        contest = self.contests.get(connection.peer)
        if contest is None or contest.existing is not connection:
            return None
        return self.contests.pop(connection.peer)

    def is_worth_telling(self, peer: NodeId, address: Address, now: float) -> bool:
        """Whether nobody was told of this pair lately; from now on somebody was."""
        told = self._told.get((peer, address))
        if told is not None and now - told < _TOLD_AGAIN:
            return False
        self._told.pop((peer, address), None)
        self._told[peer, address] = now
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        return True

    # Time

    def next_timeout(self, otherwise: float) -> float:
        """Return when something is due, or ``otherwise`` if that is sooner."""
        for contest in self.contests.values():
            otherwise = min(otherwise, contest.ask_at, contest.decide_at)
        return otherwise

    def to_ask(self, now: float) -> list[Connection]:
        """Return the connections to be asked once more."""
        asked: list[Connection] = []
        for contest in self.contests.values():
            if contest.ask_at <= now < contest.decide_at:
                contest.ask_at += contest.pause
                asked.append(contest.existing)
        return asked

    def lost(self, now: float) -> list[Contest]:
        """Return, and end, the contests whose existing connection stayed silent."""
        over = [peer for peer, contest in self.contests.items() if contest.decide_at <= now]
        return [self.contests.pop(peer) for peer in over]
