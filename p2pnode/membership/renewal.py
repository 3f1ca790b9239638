"""When this node's own record changes: what it offers, where it is, refutations, its departure."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.detector import FailureDetector
from p2pnode.membership.events import MembershipEvent, OwnKeyUsedElsewhere
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.limits import Buckets, TokenBucket
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.records import Claim, Record
from p2pnode.membership.timers import AnnounceDue, OutdoDue, RefuteDue, Timers
from p2pnode.sansio import Address, NodeId

OUTDONE_REMEMBERED = 64  # times; more than fit into the pauses between them


class Renewal:
    """Signs new versions of our own record, and has them told."""

    def __init__(
        self,
        config: MembershipConfig,
        own: OwnRecord,
        detector: FailureDetector,
        outbox: Outbox,
        gossiper: Gossiper,
        timers: Timers,
        events: list[MembershipEvent],
        counters: Counter[str],
        now: float,
    ) -> None:
        self._config = config
        self._own = own
        self._detector = detector
        self._outbox = outbox
        self._gossiper = gossiper
        self._timers = timers
        self._events = events
        self._counters = counters
        limits, room = config.limits, config.max_members
        self._renewals = TokenBucket(limits.renewals)
        self._accusers = Buckets[NodeId](limits.renewals_per_accuser, room)
        self._outdone: deque[float] = deque(maxlen=OUTDONE_REMEMBERED)
        self._digests = Buckets[NodeId](limits.renewals_per_digest, room)
        self._wanted = (own.record.addresses, own.record.ad)
        self._announce_not_before = now
        self._reported_at = now  # that our key is used elsewhere

    def want_ad(self, ad: bytes, now: float) -> None:
        """Offer something else from now on."""
        self._want((self._wanted[0], ad), now)

    def want_addresses(self, addresses: tuple[Address, ...], now: float) -> None:
        """Be reachable elsewhere from now on."""
        self._want((addresses, self._wanted[1]), now)

    def announce(self, now: float) -> None:
        """Tell what changed since the last announcement, if anything did."""
        if (self._own.record.addresses, self._own.record.ad) != self._wanted:
            self._announce_not_before = now + self._config.announce_interval
            self._own.change(*self._wanted)
            self._gossiper.tell_record(self._own.signed, now)

    def accused(self, claim: Claim, source: NodeId, now: float) -> None:
        """Refute a genuine claim about our present version that ``source`` brought.

        What comes faster than we sign is answered together, a little later: until then nobody who
        asks us for an ack declares us dead.
        """
        accuser = self._accusers.of(claim.claimant)
        wait = max(accuser.wait(now), self._renewals.wait(now))
        if wait > 0:
            self._counters["accused beyond the rate of refutations"] += 1
            self._timers.start_once(RefuteDue(self._own.version), now + wait)
            return
        accuser.take(now)
        self._renewals.take(now)
        self._refute(now)
        self._outbox.send_records(source, [self._own.signed.encoded])

    def accused_by_digest(self, source: NodeId, now: float) -> None:
        """Refute an unsigned digest of ``source`` that calls our present version gone."""
        if self._digests.of(source).has(now) and self._renewals.take(now):
            self._digests.of(source).take(now)
            self._refute(now)
            self._outbox.send_records(source, [self._own.signed.encoded])
        else:
            self._counters["accused by digests beyond the rate of refutations"] += 1

    def refute_late(self, timer: RefuteDue, now: float) -> None:
        """Refute what was said sooner than we would sign again."""
        if timer.version != self._own.version or self._own.record.left:
            return
        if self._renewals.take(now):
            self._refute(now)
        else:
            self._timers.start(timer, now + self._renewals.wait(now))

    def _refute(self, now: float) -> None:
        self._detector.awareness.change(1)  # to be suspected speaks against our pace (Lifeguard)
        self._own.renew()
        self._gossiper.tell_record(self._own.signed, now)

    def surpassed(self, rival: Record, now: float) -> None:
        """Go beyond a genuine record of ours that we do not remember signing.

        At once if it may be of a former life; if it happens again and again, somebody else signs
        with our key, and surpassing each other for ever would help nobody: ever more slowly then.
        """
        self._own.rival = rival
        if OutdoDue() in self._timers:
            return
        while self._outdone and now - self._outdone[0] > self._config.key_shared_within:
            self._outdone.popleft()
        excess = len(self._outdone) - self._config.outdo_at_once
        if excess < 0:
            self.outdo(now)
            return
        if excess == 0 or now >= self._reported_at + self._config.key_shared_told_every:
            self._events.append(OwnKeyUsedElsewhere(rival.addresses))
            self._reported_at = now
        pause = min(self._config.outdo_first * 2.0**excess, self._config.outdo_longest)
        self._counters["own record surpassed by another with our key"] += 1
        self._timers.start(OutdoDue(), now + pause)

    def outdo(self, now: float) -> None:
        """Go beyond the rival of our record, if there still is one."""
        rival = self._own.rival
        if rival is None or self._own.record.left:
            return
        self._outdone.append(now)
        if self._own.outdo(rival):
            self._gossiper.tell_record(self._own.signed, now)
        else:
            self._counters["own record is of the last version there is"] += 1

    def leave(self, now: float, told: Sequence[NodeId]) -> None:
        """Announce our departure, to those ``told`` reliably."""
        self._own.leave()
        for peer in told:
            self._outbox.send_records(peer, [self._own.signed.encoded])
        self._gossiper.tell_record(self._own.signed, now)

    def _want(self, wanted: tuple[tuple[Address, ...], bytes], now: float) -> None:
        addresses, ad = wanted
        replace(self._own.record, addresses=addresses, ad=ad)  # refuses what no record may say
        self._wanted = wanted
        if not self._own.record.left:
            self._timers.start(AnnounceDue(), max(now, self._announce_not_before))
