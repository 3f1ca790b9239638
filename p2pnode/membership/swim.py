"""SWIM with Lifeguard: who is in the swarm, and who is alive.

The core speaks of nodes by their ids; a transport below it has authenticated every sender. It
knows nothing of models (an ad is opaque bytes) and nothing of sockets.
"""

from collections import Counter
from collections.abc import Sequence

from p2pnode.errors import LocalProtocolError
from p2pnode.membership.claimants import IsHeard
from p2pnode.membership.claims import Claims
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.coordinates import Coordinate, Vivaldi
from p2pnode.membership.detector import FailureDetector, Send, Silent, Step
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.events import MembershipEvent
from p2pnode.membership.exchange import Exchange
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.health import Health
from p2pnode.membership.intake import Intake
from p2pnode.membership.limits import Buckets
from p2pnode.membership.members import Member, Members
from p2pnode.membership.messages import decode_packet_untrusted
from p2pnode.membership.news import NewsFilter
from p2pnode.membership.outgoing import Outbox, Outgoing
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.push_pull import PushPull
from p2pnode.membership.records import SWARM_TAG_SIZE, Record, Signer, Verify
from p2pnode.membership.renewal import Renewal
from p2pnode.membership.shared_keys import SharedKeys
from p2pnode.membership.timers import (
    AnnounceDue,
    AttemptOver,
    ChallengeDue,
    GossipDue,
    OutdoDue,
    ProbeDue,
    ReconnectDue,
    RefuteDue,
    RelayOver,
    SuspicionOver,
    SweepDue,
    SyncDue,
    Timer,
    Timers,
)
from p2pnode.sansio import Address, NodeId, Rng

SWEEPS_PER_RETENTION = 10


class Swim:
    """One node's view of the swarm.

    In: commands, :meth:`receive_datagram`, :meth:`handle_timeout`. Out: :meth:`datagrams_to_send`
    (to be delivered to the node named, dialled at its record's addresses if need be),
    :meth:`take_events`, :meth:`next_timeout`.

    Args:
        is_heard: Tells whether our own session with a peer was acknowledged lately. Nobody who is
            heard is declared dead here, whatever others say.

    Attributes:
        counters: What was refused or done in silence, by reason; cumulative.
        unsent: What :meth:`datagrams_to_send` would return: asked with every datagram of a node.
        events: What :meth:`take_events` would return.
    """

    def __init__(
        self,
        config: MembershipConfig,
        signer: Signer,
        verify: Verify,
        swarm_tag: bytes,
        boot_epoch: int,
        addresses: tuple[Address, ...],
        ad: bytes,
        rng: Rng,
        now: float,
        *,
        is_heard: IsHeard = lambda peer, now: False,
    ) -> None:
        if len(swarm_tag) != SWARM_TAG_SIZE:
            raise LocalProtocolError("a swarm's tag is 8 bytes")
        self._config = config
        self._rng = rng
        self.counters: Counter[str] = Counter()
        first = Record(signer.node_id, 0, boot_epoch, addresses, ad)
        self._own = OwnRecord(signer, swarm_tag, first)
        self._members = Members(config.max_members)
        self._timers = Timers()
        self._detector = FailureDetector(config, rng, self._timers)
        self._broadcasts = Broadcasts(config.max_broadcasts, self.counters)
        self._vivaldi = Vivaldi(rng)
        self._outbox = Outbox(config, self._own, self._members, self._broadcasts, self._vivaldi)
        self.unsent: Sequence[Outgoing] = self._outbox.waiting
        self._events: list[MembershipEvent] = []
        self.events: Sequence[MembershipEvent] = self._events
        self._gossiper = Gossiper(
            config, self._members, self._broadcasts, self._outbox, self._timers, rng
        )
        self._push_pull = PushPull(
            config, self._own, self._members, self._outbox, self._timers, rng
        )
        self._renewal = Renewal(
            config,
            self._own,
            self._detector,
            self._outbox,
            self._gossiper,
            self._timers,
            self._events,
            self.counters,
            now,
        )
        self._joins = Buckets[NodeId](config.limits.joins_per_peer, config.max_members)
        self._claims = self._compose_claims(is_heard)
        self._news = self._compose_news(verify, swarm_tag)
        self._intake = self._compose_intake(is_heard)
        self._exchange = self._compose_exchange()
        self._start(now)

    # What there is to know

    @property
    def node_id(self) -> NodeId:
        return self._own.record.node_id

    @property
    def record(self) -> Record:
        """Our own record, as told to others."""
        return self._own.record

    def members(self) -> list[Member]:
        """Return every other node known, the dead and departed included."""
        return self._members.view()

    def member(self, node_id: NodeId) -> Member | None:
        """Return another node's line of the table; None if it is not in it."""
        return self._members.member(node_id)

    @property
    def members_version(self) -> int:
        """Grows with every change of a member's record or health."""
        return self._members.version

    def members_changed_since(self, version: int) -> list[NodeId] | None:
        """Return who changed, joined or was forgotten since :attr:`members_version` was that.

        Each once, to be read by :meth:`member`; None means too long ago: read :meth:`members`.
        """
        return self._members.changed_since(version)

    def measured_rtt(self, peer: NodeId) -> float | None:
        """Return the round trip of the latest probes of ``peer``, in seconds; None before them."""
        return self._vivaldi.measured(peer)

    def place_of(self, node: NodeId) -> Coordinate | None:
        """Return where a node, ours included, lies in the space of round trips, if it is known."""
        return self._vivaldi.own if node == self.node_id else self._vivaldi.place_of(node)

    # Commands

    def join(self, peer: NodeId, now: float) -> None:
        """Push and pull with ``peer``, a node of the swarm that the transport is connected to."""
        self._push_pull.soon(now)
        if self._joins.of(peer).take(now):
            self._push_pull.begin_with(peer)
        else:
            self.counters["push/pull put off: it connects again and again"] += 1

    def update_ad(self, ad: bytes, now: float) -> None:
        """Offer something else from now on; at most 512 bytes."""
        self._renewal.want_ad(ad, now)

    def update_addresses(self, addresses: tuple[Address, ...], now: float) -> None:
        """Be reachable elsewhere from now on."""
        self._renewal.want_addresses(addresses, now)

    def leave(self, now: float, *, told: Sequence[NodeId] = ()) -> None:
        """Announce our departure, to those ``told`` reliably; nothing is probed any more.

        Keep the core running for a second, so that the word spreads.
        """
        if self.record.left:
            return
        for timer in (ProbeDue(), AnnounceDue(), SyncDue(), ReconnectDue()):
            self._timers.stop(timer)
        self._renewal.leave(now, told)

    def report_unresponsive(self, peer: NodeId, now: float) -> None:
        """Take the transport's word that ``peer`` acknowledges nothing: probe it, impatiently."""
        entry = self._members.entry(peer)
        if entry is not None and entry.health is Health.ALIVE and not self.record.left:
            self._perform(self._detector.probe(peer, now, urgent=True), now)

    def report_responsive(self, peer: NodeId, now: float) -> None:
        """Take the transport's word that ``peer`` acknowledges what we send."""
        self._detector.answered(peer)
        self._claims.responds(peer, now)

    # Inputs

    def receive_datagram(self, data: bytes, source: NodeId, now: float) -> None:
        """Take one message that the transport received from ``source``.

        Raises:
            RemoteProtocolError: It was malformed, or news in it was forged; nothing changed.
        """
        packet = decode_packet_untrusted(data)
        admitted = self._news.admit_untrusted(packet.news, source, now)
        if self._members.hear(source):
            self._detector.heard(source)
        for news in admitted:
            if self._news.is_news(news, source, now):  # the same message may have brought it twice
                self._perform(self._intake.take(news, packet, source, now), now)
        if packet.coordinate is not None and source in self._members:
            self._vivaldi.note(source, packet.coordinate)
        self._perform(self._exchange.answer(packet, source, now), now)
        self._exchange.set_straight(packet, source, now)

    def handle_timeout(self, now: float) -> None:
        """Fire, in order of time, every timer due by ``now``."""
        while (timer := self._timers.pop_due(now)) is not None:
            self._fire(timer, now)

    # Outputs

    def next_timeout(self) -> float | None:
        return self._timers.next_due()

    def datagrams_to_send(self) -> list[Outgoing]:
        return self._outbox.take()

    def take_events(self) -> list[MembershipEvent]:
        taken = self._events.copy()
        self._events.clear()
        return taken

    # Time

    def _fire(self, timer: Timer, now: float) -> None:
        match timer:
            case ProbeDue():
                pause = self._detector.awareness.stretch(self._config.probe_interval)
                self._timers.start(timer, now + pause)
                self._perform(self._detector.probe_next(now), now)
            case AttemptOver():
                self._perform(self._detector.attempt_over(timer, now), now)
            case RelayOver():
                self._perform(self._detector.relay_over(timer, now), now)
            case SuspicionOver():
                self._perform(self._claims.suspicion_over(timer, now), now)
            case ChallengeDue():
                self._perform(self._claims.challenge(timer, now), now)
            case OutdoDue():
                self._renewal.outdo(now)
            case RefuteDue():
                self._renewal.refute_late(timer, now)
            case GossipDue():
                self._gossiper.tell_some(now)
            case SyncDue():
                self._push_pull.with_someone(now)
            case ReconnectDue():
                self._reconnect(now)
            case SweepDue():
                self._sweep(now)
            case AnnounceDue():
                self._renewal.announce(now)

    def _perform(self, steps: Sequence[Step], now: float) -> None:
        for step in steps:
            match step:
                case Send(destination, message):
                    self._outbox.send(destination, message)
                case Silent(target, reason):
                    self._perform(self._claims.found_silent(target, reason, now), now)

    # Those who are gone

    def _reconnect(self, now: float) -> None:
        """Call on one of the dead: if it lives, our accusation makes it refute."""
        self._timers.start(ReconnectDue(), now + self._config.reconnect_interval)
        dead = self._members.dead
        if dead:
            self._perform(self._detector.ping_once(self._rng.choice(dead), now), now)

    def _sweep(self, now: float) -> None:
        sweep = self._config.dead_retention / SWEEPS_PER_RETENTION
        self._timers.start(SweepDue(), now + sweep)
        self._members.forget_before(now - self._config.dead_retention)
        self._vivaldi.forget_all_but(self._members)

    # Composition

    def _start(self, now: float) -> None:
        # Nodes started together must not probe in step.
        self._timers.start(ProbeDue(), now + self._rng.uniform(0, self._config.probe_interval))
        self._push_pull.soon(now)
        self._timers.start(ReconnectDue(), now + self._config.reconnect_interval)
        sweep = self._config.dead_retention / SWEEPS_PER_RETENTION
        self._timers.start(SweepDue(), now + sweep)

    def _compose_claims(self, is_heard: IsHeard) -> Claims:
        return Claims(
            self._config,
            self._own,
            self._members,
            self._detector,
            self._outbox,
            self._gossiper,
            self._timers,
            self._events,
            self.counters,
            is_heard,
            self._rng,
        )

    def _compose_news(self, verify: Verify, swarm_tag: bytes) -> NewsFilter:
        return NewsFilter(
            self._config,
            verify,
            swarm_tag,
            self._own,
            self._members,
            self._claims,
            self.counters,
        )

    def _compose_intake(self, is_heard: IsHeard) -> Intake:
        shared_keys = SharedKeys(self._config, is_heard, self._events, self.counters)
        return Intake(
            self._own,
            self._members,
            self._claims,
            self._detector,
            self._outbox,
            self._gossiper,
            self._push_pull,
            self._renewal,
            shared_keys,
            self._events,
            self.counters,
        )

    def _compose_exchange(self) -> Exchange:
        return Exchange(
            self._own,
            self._members,
            self._claims,
            self._detector,
            self._outbox,
            self._push_pull,
            self._renewal,
            self._vivaldi,
            self.counters,
            self._config,
        )
