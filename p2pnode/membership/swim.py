"""SWIM with Lifeguard: who is in the swarm, and who is alive.

The core speaks of nodes by their ids; a transport below it has authenticated every sender. It
knows nothing of models (an ad is opaque bytes) and nothing of sockets.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from p2pnode.errors import LocalProtocolError
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.coordinates import Coordinate, Vivaldi
from p2pnode.membership.detector import FailureDetector, Send, Silent, Step
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.events import MembershipEvent
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.health import Health
from p2pnode.membership.judgement import Judge
from p2pnode.membership.members import Member, Members, prefix_of
from p2pnode.membership.messages import (
    Ack,
    Digest,
    DigestEntry,
    Gossip,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Records,
    decode_packet_untrusted,
)
from p2pnode.membership.outgoing import Outbox, Outgoing
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.push_pull import PushPull
from p2pnode.membership.records import (
    SWARM_TAG_SIZE,
    Accusation,
    News,
    Record,
    SignedClaim,
    SignedRecord,
    Signer,
    Verify,
    Version,
    short,
)
from p2pnode.membership.timers import (
    AnnounceDue,
    AttemptOver,
    ChallengeDue,
    GossipDue,
    ProbeDue,
    ReconnectDue,
    RelayOver,
    SuspicionOver,
    SweepDue,
    SyncDue,
    Timer,
    Timers,
)
from p2pnode.membership.vetting import Vetting
from p2pnode.sansio import Address, NodeId, Rng

SWEEPS_PER_RETENTION = 10


class Swim:
    """One node's view of the swarm.

    In: commands, :meth:`receive_datagram`, :meth:`handle_timeout`. Out: :meth:`datagrams_to_send`
    (to be delivered to the node named, dialled at its record's addresses if need be),
    :meth:`take_events`, :meth:`next_timeout`.

    Attributes:
        counters: What was refused or done in silence, by reason; cumulative.
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
    ) -> None:
        if len(swarm_tag) != SWARM_TAG_SIZE:
            raise LocalProtocolError("a swarm's tag is 8 bytes")
        self._config = config
        self._rng = rng
        first = Record(signer.node_id, 0, boot_epoch, addresses, ad)
        self._own = OwnRecord(signer, swarm_tag, first)
        self._wanted = (addresses, ad)
        self._announce_not_before = now
        self._members = Members(config.max_members)
        self._timers = Timers()
        self._detector = FailureDetector(config, rng, self._timers)
        self._broadcasts = Broadcasts()
        self._vivaldi = Vivaldi(rng)
        self._outbox = Outbox(config, self._own, self._members, self._broadcasts, self._vivaldi)
        self._events: list[MembershipEvent] = []
        self._gossiper = Gossiper(
            config, self._members, self._broadcasts, self._outbox, self._timers, rng
        )
        self._push_pull = PushPull(
            config, self._own, self._members, self._outbox, self._timers, rng
        )
        self._judge = Judge(
            config,
            self._own,
            self._members,
            self._detector,
            self._gossiper,
            self._timers,
            self._events,
            rng,
        )
        self.counters: Counter[str] = Counter()
        self._vetting = Vetting(
            config, verify, swarm_tag, self._own, self._members, self._judge, self.counters
        )
        # Nodes started together must not probe in step.
        self._timers.start(ProbeDue(), now + rng.uniform(0, config.probe_interval))
        self._push_pull.soon(now)
        self._timers.start(ReconnectDue(), now + config.reconnect_interval)
        self._timers.start(SweepDue(), now + config.dead_retention / SWEEPS_PER_RETENTION)

    # What there is to know

    @property
    def node_id(self) -> NodeId:
        return self._own.record.node_id

    @property
    def record(self) -> Record:
        """Our own record, as told to others."""
        return self._own.record

    @property
    def awareness(self) -> int:
        """Lifeguard's health score: 0 is well, more means that we have been slow."""
        return self._detector.awareness.score

    @property
    def has_news(self) -> bool:
        """Whether something is still to be told: after :meth:`leave`, reason to wait a little."""
        return bool(self._broadcasts)

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

    def estimate_rtt(self, a: NodeId, b: NodeId) -> float | None:
        """Return the estimated round trip between two nodes, in seconds; None when unknown."""
        if a == b:
            return 0.0
        places = [self.place_of(node) for node in (a, b)]
        return None if places[0] is None or places[1] is None else places[0].distance(places[1])

    # Commands

    def join(self, peer: NodeId, now: float) -> None:
        """Push and pull with ``peer``, a node of the swarm that the transport is connected to."""
        self._push_pull.soon(now)
        self._push_pull.begin_with(peer)

    def update_ad(self, ad: bytes, now: float) -> None:
        """Offer something else from now on; at most 512 bytes."""
        self._want((self._wanted[0], ad), now)

    def update_addresses(self, addresses: tuple[Address, ...], now: float) -> None:
        """Be reachable elsewhere from now on."""
        self._want((addresses, self._wanted[1]), now)

    def leave(self, now: float, *, told: Sequence[NodeId] = ()) -> None:
        """Say goodbye, to those ``told`` reliably; nothing is probed any more.

        Keep the core running while :attr:`has_news`, a second at most, so that the word spreads.
        """
        if self.record.left:
            return
        self._own.leave()
        for peer in told:
            self._outbox.send_records(peer, [self._own.signed.encoded])
        for timer in (ProbeDue(), AnnounceDue(), SyncDue(), ReconnectDue()):
            self._timers.stop(timer)
        self._gossiper.tell_record(self._own.signed, now)

    def report_unresponsive(self, peer: NodeId, now: float) -> None:
        """Take the transport's word that ``peer`` acknowledges nothing: probe it, impatiently."""
        entry = self._members.entry(peer)
        if entry is not None and entry.health is Health.ALIVE and not self.record.left:
            self._perform(self._detector.probe(peer, now, urgent=True), now)

    def report_responsive(self, peer: NodeId, now: float) -> None:
        """Take the transport's word that ``peer`` acknowledges what we send."""
        self._detector.answered(peer)

    # Inputs

    def receive_datagram(self, data: bytes, source: NodeId, now: float) -> None:
        """Take one message that the transport received from ``source``.

        Raises:
            RemoteProtocolError: It was malformed, or news in it was forged; nothing changed.
        """
        packet = decode_packet_untrusted(data)
        for news in self._vetting.admit_untrusted(packet.news):
            self._learn(news, packet, source, now)
        if packet.coordinate is not None and source in self._members:
            self._vivaldi.note(source, packet.coordinate)
        self._answer(packet, source, now)
        self._set_straight(packet, source)

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
                self._perform(self._judge.sentence(timer, now), now)
            case ChallengeDue():
                self._perform(self._judge.challenge(timer, now), now)
            case GossipDue():
                self._gossiper.tell_some(now)
            case SyncDue():
                self._push_pull.with_someone(now)
            case ReconnectDue():
                self._reconnect(now)
            case SweepDue():
                self._sweep(now)
            case AnnounceDue():
                self._announce(now)

    def _perform(self, steps: Sequence[Step], now: float) -> None:
        for step in steps:
            match step:
                case Send(destination, message):
                    self._outbox.send(destination, message)
                case Silent(target, reason):
                    accusation = Accusation.SUSPECT
                    self._perform(self._judge.accuse(target, accusation, reason, now), now)

    # Messages

    def _answer(self, packet: Packet, source: NodeId, now: float) -> None:
        match packet.message:
            case Ping(number):
                self._outbox.send(source, Ack(number))
            case Ack(number):
                self._perform(self._detector.pass_on(number, source), now)
                rtt = self._detector.acknowledge(number, source, now)
                if rtt is not None and packet.coordinate is not None:
                    self._vivaldi.learn(source, packet.coordinate, rtt)
            case Nack(number):
                self._detector.nack(number, source)
            case PingRequest():
                self._perform(self._detector.relay(packet.message, source, now), now)
            case Digest():
                self._compare(packet.message, source, now)
            case Gossip() | Records():
                pass  # the news was all

    def _set_straight(self, packet: Packet, source: NodeId) -> None:
        """Mend what ``source`` and we believe of ``source`` itself, if we differ."""
        known = self._members.belief(source)
        if known is None or known.version < packet.version:
            self._ask_for(source, known.version if known else None)
        elif known.version > packet.version:
            self._outbox.send_records(source, [known.signed.encoded])
        elif known.health is Health.DEAD and not isinstance(packet.message, Ping):
            self._outbox.send(source, Gossip())  # with our accusation; a ping's ack bore it

    def _ask_for(self, source: NodeId, held: Version | None) -> None:
        prefix = prefix_of(source)
        entries = () if held is None else (DigestEntry(prefix, held, Health.ALIVE),)
        self._outbox.send(
            source, Digest(answer_wanted=False, first=prefix, last=prefix, entries=entries)
        )

    # News

    def _learn(self, news: News, packet: Packet, source: NodeId, now: float) -> None:
        if not self._vetting.is_news(news):
            return  # the same message brought it twice
        match news:
            case SignedRecord(record) if record.node_id == self.node_id:
                self.counters["own record of a former life"] += 1
                self._own.outdo(record)
                self._gossiper.tell_record(self._own.signed, now)
            case SignedRecord(record):
                told = isinstance(packet.message, Records) and record.node_id != source
                self._accept(news, now, by_sync=told)
            case SignedClaim(claim) if claim.subject == self.node_id:
                self._refute(source, now)
            case SignedClaim(claim):
                verb = "found dead" if claim.accusation is Accusation.DEAD else "suspected"
                reason = f"{verb} by {short(claim.claimant)}"
                self._perform(self._judge.weigh(news, reason, now), now)

    def _accept(self, signed: SignedRecord, now: float, *, by_sync: bool) -> None:
        node_id = signed.record.node_id
        entry = self._members.entry(node_id)
        before = entry.health if entry is not None else None
        self._events += self._members.accept(signed, now)
        self._judge.acquit(node_id)
        if signed.record.left:
            self._detector.unwatch(node_id)
        else:
            self._detector.watch(node_id)
        if before is None and by_sync:
            # Those who told us know it already, and to gossip a whole table would cost much: a
            # push/pull with somebody else soon is enough, and spreads as fast.
            self._push_pull.soon(now)
        else:
            self._gossiper.tell_record(signed, now)
        if before is Health.DEAD and not signed.record.left:
            self._push_pull.begin_with(node_id)  # it was cut off, and others with it

    def _refute(self, source: NodeId, now: float) -> None:
        """Say that we live. To be suspected at all speaks against our own pace (Lifeguard)."""
        self._detector.awareness.change(1)
        self._own.renew()
        self._outbox.send_records(source, [self._own.signed.encoded])
        self._gossiper.tell_record(self._own.signed, now)

    # Our own record

    def _want(self, wanted: tuple[tuple[Address, ...], bytes], now: float) -> None:
        addresses, ad = wanted
        replace(self.record, addresses=addresses, ad=ad)  # refuses what no record may say
        self._wanted = wanted
        if not self.record.left:
            self._timers.start(AnnounceDue(), max(now, self._announce_not_before))

    def _announce(self, now: float) -> None:
        if (self.record.addresses, self.record.ad) != self._wanted:
            self._announce_not_before = now + self._config.announce_interval
            self._own.change(*self._wanted)
            self._gossiper.tell_record(self._own.signed, now)

    # Push/pull

    def _compare(self, digest: Digest, source: NodeId, now: float) -> None:
        comparison = self._push_pull.answer(digest, source)
        for subject in comparison.contested:
            # A death learnt this way may be long refuted: it is a suspicion (as in memberlist).
            reason = f"held dead by {short(source)}"
            self._perform(self._judge.accuse(subject, Accusation.SUSPECT, reason, now), now)
        if comparison.own_death and not self.record.left:
            self._refute(source, now)

    # Those who are gone

    def _reconnect(self, now: float) -> None:
        """Call on one of the dead: if it lives, our accusation makes it refute."""
        self._timers.start(ReconnectDue(), now + self._config.reconnect_interval)
        dead = self._members.dead
        if dead:
            self._perform(self._detector.knock(self._rng.choice(dead)), now)

    def _sweep(self, now: float) -> None:
        sweep = self._config.dead_retention / SWEEPS_PER_RETENTION
        self._timers.start(SweepDue(), now + sweep)
        self._members.forget_before(now - self._config.dead_retention)
        self._vivaldi.forget_all_but(self._members)
