"""When push/pulls happen and what they send; see :mod:`p2pnode.membership.anti_entropy`."""

from p2pnode.membership.anti_entropy import Comparison, compare, digests
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.members import Members
from p2pnode.membership.messages import Digest, digest_room
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.timers import SyncDue, Timers
from p2pnode.sansio import NodeId, Rng


class PushPull:
    """Compares tables with others: often while there are strangers to meet, then seldom."""

    def __init__(
        self,
        config: MembershipConfig,
        own: OwnRecord,
        members: Members,
        outbox: Outbox,
        timers: Timers,
        rng: Rng,
    ) -> None:
        self._config = config
        self._own = own
        self._members = members
        self._outbox = outbox
        self._timers = timers
        self._rng = rng
        self._wait = config.sync_interval_first

    def soon(self, now: float) -> None:
        """Begin again with short intervals."""
        self._wait = self._config.sync_interval_first
        self._timers.start_earlier(SyncDue(), now + self._next_wait())

    def with_someone(self, now: float) -> None:
        """Compare with a random live member, and set the next time."""
        self._timers.start(SyncDue(), now + self._next_wait())
        live = self._members.live
        if live:
            self.begin_with(self._rng.choice(live))

    def begin_with(self, peer: NodeId) -> None:
        """Begin a push/pull; our own record goes ahead, so a newcomer is known at once."""
        own = self._own.signed
        room = digest_room(self._config.max_bulk, len(own.encoded))
        for digest in digests(self._members, own, answer_wanted=True, room=room):
            self._outbox.send_bulk(peer, digest, own.encoded if digest.first == 0 else b"")

    def answer(self, digest: Digest, source: NodeId) -> Comparison:
        """Send what the peer lacks, and our own digest if it wants that; return the differences."""
        own = self._own.signed
        comparison = compare(digest, self._members, own)
        self._outbox.send_records(source, comparison.lacking)
        if digest.answer_wanted:
            room = digest_room(self._config.max_bulk, 0)
            first, last = digest.first, digest.last
            for ours in digests(
                self._members, own, answer_wanted=False, room=room, first=first, last=last
            ):
                self._outbox.send_bulk(source, ours)
        return comparison

    def _next_wait(self) -> float:
        wait = self._wait
        self._wait = min(2 * wait, self._config.sync_interval)
        return wait * self._rng.uniform(0.8, 1.2)  # or the swarm would do it in step
