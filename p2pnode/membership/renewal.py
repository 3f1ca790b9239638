"""When this node's own record changes: what it offers, where it is, refutations, its farewell."""

from collections.abc import Sequence
from dataclasses import replace

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.detector import FailureDetector
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.records import Record
from p2pnode.membership.timers import AnnounceDue, Timers
from p2pnode.sansio import Address, NodeId


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
        now: float,
    ) -> None:
        self._config = config
        self._own = own
        self._detector = detector
        self._outbox = outbox
        self._gossiper = gossiper
        self._timers = timers
        self._wanted = (own.record.addresses, own.record.ad)
        self._announce_not_before = now

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

    def refute(self, source: NodeId, now: float) -> None:
        """Say that we live, above all to ``source``, which brought the accusation."""
        self._detector.awareness.change(1)  # to be suspected speaks against our pace (Lifeguard)
        self._own.renew()
        self._outbox.send_records(source, [self._own.signed.encoded])
        self._gossiper.tell_record(self._own.signed, now)

    def outdo(self, former: Record, now: float) -> None:
        """Go beyond a record of ours that we do not remember signing."""
        self._own.outdo(former)
        self._gossiper.tell_record(self._own.signed, now)

    def leave(self, now: float, told: Sequence[NodeId]) -> None:
        """Say goodbye, to those ``told`` reliably."""
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
