"""SWIM with Lifeguard: who is in the swarm, and who is alive.

The core speaks of nodes by their ids; a transport below it has authenticated every sender. It
knows nothing of models (an ad is opaque bytes) and nothing of sockets.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.membership.anti_entropy import compare, digests, prefix_of
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.coordinates import Vivaldi
from p2pnode.membership.detector import FailureDetector, Send, Silent, Step
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.events import MemberDied, MembershipEvent, MemberSuspected
from p2pnode.membership.health import LIVE, Health
from p2pnode.membership.members import Member, Members
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
    digest_room,
)
from p2pnode.membership.outgoing import Outbox, Outgoing
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.records import (
    SWARM_TAG_SIZE,
    Accusation,
    Claim,
    News,
    Record,
    SignedClaim,
    SignedRecord,
    Signer,
    Verify,
    Version,
    is_genuine,
    sign_claim,
)
from p2pnode.membership.suspicion import Suspicion
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
        self._signer = signer
        self._verify = verify
        self._swarm_tag = swarm_tag
        self._rng = rng
        first = Record(signer.node_id, 0, boot_epoch, addresses, ad)
        self._own = OwnRecord(signer, swarm_tag, first)
        self._wanted = (addresses, ad)
        self._announced_at = now - config.announce_interval
        self._gossiped_at = now - config.gossip_interval
        self._sync_wait = config.sync_interval_first
        self._members = Members(config.max_members)
        self._timers = Timers()
        self._detector = FailureDetector(config, rng, self._timers)
        self._suspicions: dict[NodeId, Suspicion] = {}
        self._broadcasts = Broadcasts()
        self._vivaldi = Vivaldi(rng)
        self._outbox = Outbox(config, self._own, self._members, self._broadcasts, self._vivaldi)
        self._events: list[MembershipEvent] = []
        self.counters: Counter[str] = Counter()
        # Nodes started together must not probe in step.
        self._timers.start(ProbeDue(), now + rng.uniform(0, config.probe_interval))
        self._timers.start(SyncDue(), now + self._next_sync_wait())

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

    def estimate_rtt(self, a: NodeId, b: NodeId) -> float | None:
        """Return the estimated round trip between two nodes, in seconds; None when unknown."""
        if a == b:
            return 0.0
        places = [
            self._vivaldi.own if node == self.node_id else self._vivaldi.place_of(node)
            for node in (a, b)
        ]
        return None if places[0] is None or places[1] is None else places[0].distance(places[1])

    # Commands

    def join(self, peer: NodeId, now: float) -> None:
        """Push and pull with ``peer``, a node of the swarm that the transport is connected to."""
        self._sync_soon(now)
        self._sync_with(peer)

    def update_ad(self, ad: bytes, now: float) -> None:
        """Offer something else from now on; at most 512 bytes."""
        self._want((self._wanted[0], ad), now)

    def update_addresses(self, addresses: tuple[Address, ...], now: float) -> None:
        """Be reachable elsewhere from now on."""
        self._want((addresses, self._wanted[1]), now)

    def leave(self, now: float) -> None:
        """Say goodbye; nothing is probed any more.

        Keep the core running while :attr:`has_news`, a second at most, so that the word spreads.
        """
        if self.record.left:
            return
        self._own.leave()
        for timer in (ProbeDue(), AnnounceDue(), SyncDue(), ReconnectDue()):
            self._timers.stop(timer)
        self._tell_record(self._own.signed, now)

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
        for news in self._vet(packet.news):
            self._learn(news, packet, source, now)
        if packet.coordinate is not None:
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
        taken, self._events = self._events, []
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
            case SuspicionOver(subject, version):
                self._condemn(subject, version, now)
            case ChallengeDue(subject, version):
                self._challenge(subject, version, now)
            case GossipDue():
                self._gossip(now)
            case SyncDue():
                self._timers.start(timer, now + self._next_sync_wait())
                for peer in self._sample(self._members.live(), 1):
                    self._sync_with(peer)
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
                    self._accuse(target, Accusation.SUSPECT, reason, now)

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

    def _vet(self, news: Sequence[News]) -> list[News]:
        """Return what is news to us, its signatures checked.

        Whoever relays has checked it too, so one forgery condemns the whole message.
        """
        fresh = [item for item in news if self._is_news(item)]
        for item in fresh[: self._config.max_verifications]:
            if not is_genuine(item, self._verify, self._swarm_tag):
                raise RemoteProtocolError(f"forged news of {short(item.author)}")
        return fresh[: self._config.max_verifications]

    def _is_news(self, item: News) -> bool:
        match item:
            case SignedRecord(record) if record.node_id == self.node_id:
                return self._surpasses_us(record)
            case SignedRecord(record):
                return self._members.is_news(record)
            case SignedClaim(claim) if claim.subject == self.node_id:
                return claim.version == self._own.version and not self.record.left
            case SignedClaim(claim):
                return self._is_news_claim(claim)

    def _surpasses_us(self, record: Record) -> bool:
        if self.record.left:
            return False
        return record.version > self._own.version or (
            record.left and record.version == self._own.version
        )

    def _is_news_claim(self, claim: Claim) -> bool:
        entry = self._members.entry(claim.subject)
        if entry is None or entry.version != claim.version or claim.claimant == claim.subject:
            return False
        if claim.claimant not in self._members:
            return False
        if entry.health is Health.SUSPECT and claim.accusation is Accusation.SUSPECT:
            return self._suspicions[claim.subject].wants(claim.claimant)
        return entry.health in LIVE

    def _learn(self, news: News, packet: Packet, source: NodeId, now: float) -> None:
        if not self._is_news(news):
            return  # the same message brought it twice
        match news:
            case SignedRecord(record) if record.node_id == self.node_id:
                self.counters["own record of a former life"] += 1
                self._own.outdo(record)
                self._tell_record(self._own.signed, now)
            case SignedRecord(record):
                told = isinstance(packet.message, Records) and record.node_id != source
                self._accept(news, now, by_sync=told)
            case SignedClaim(claim) if claim.subject == self.node_id:
                self._refute(source, now)
            case SignedClaim(claim):
                verb = "found dead" if claim.accusation is Accusation.DEAD else "suspected"
                self._weigh_claim(news, f"{verb} by {short(claim.claimant)}", now)

    def _accept(self, signed: SignedRecord, now: float, *, by_sync: bool) -> None:
        node_id = signed.record.node_id
        entry = self._members.entry(node_id)
        before = entry.health if entry is not None else None
        self._events += self._members.accept(signed, now)
        self._drop_suspicion(node_id)
        if signed.record.left:
            self._gone(node_id, now)
        else:
            self._detector.watch(node_id)
        if before is None and by_sync:
            # Those who told us know it already, and to gossip a whole table would cost much: a
            # push/pull with somebody else soon is enough, and spreads as fast.
            self._sync_soon(now)
        else:
            self._tell_record(signed, now)
        if before is Health.DEAD and not signed.record.left:
            self._sync_with(node_id)  # it was cut off, and others with it

    # Claims

    def _accuse(self, subject: NodeId, what: Accusation, reason: str, now: float) -> None:
        """Sign a claim of our own about a member that we believe alive."""
        entry = self._members.entry(subject)
        if entry is None or entry.health not in LIVE or self.record.left:
            return
        claim = Claim(what, self.node_id, subject, entry.version)
        self._weigh_claim(sign_claim(claim, self._signer, self._swarm_tag), reason, now)
        if what is Accusation.SUSPECT:
            self._timers.start_once(ChallengeDue(subject, entry.version), now)

    def _weigh_claim(self, signed: SignedClaim, reason: str, now: float) -> None:
        """Believe a claim about a live member: it begins, confirms or ends a suspicion."""
        claim = signed.claim
        if not self._members.accuse(signed, now, reason):
            self._confirm(signed, now)
            return
        self._broadcasts.put_claim(signed)
        self._gossip_soon(now)
        if claim.subject in self._suspicions:
            self._drop_suspicion(claim.subject)
            self._gone(claim.subject, now)
            self._events.append(MemberDied(claim.subject, reason))
        else:
            self._events.append(MemberSuspected(claim.subject, reason))
            self._suspect(claim, now)

    def _suspect(self, claim: Claim, now: float) -> None:
        size = self._size()
        suspicion = Suspicion(claim.version, claim.claimant, size, self._config, now)
        self._suspicions[claim.subject] = suspicion
        self._timers.start(SuspicionOver(claim.subject, claim.version), suspicion.deadline)
        wanted = self._config.confirmations_wanted(size)
        # Some of those who hear of it look for themselves, so that a suspicion is soon confirmed
        # or refuted: twice as many as are wanted, not all at once.
        if claim.claimant != self.node_id and self._rng.random() * (size - 2) < 2 * wanted:
            self._perform(self._detector.probe(claim.subject, now), now)

    def _confirm(self, signed: SignedClaim, now: float) -> None:
        claim = signed.claim
        suspicion = self._suspicions[claim.subject]
        if suspicion.confirm(claim.claimant):
            self._timers.start(SuspicionOver(claim.subject, claim.version), suspicion.deadline)
            self._broadcasts.put_claim(signed)
            self._gossip_soon(now)

    def _condemn(self, subject: NodeId, version: Version, now: float) -> None:
        entry = self._members.entry(subject)
        if entry is not None and entry.version == version:
            self._accuse(subject, Accusation.DEAD, f"{entry.reason}; did not refute it", now)

    def _challenge(self, subject: NodeId, version: Version, now: float) -> None:
        entry = self._members.entry(subject)
        if entry is None or entry.version != version or entry.health is not Health.SUSPECT:
            return
        self._perform(self._detector.knock(subject), now)
        timer = ChallengeDue(subject, version)
        self._timers.start(timer, now + self._config.ack_timeout)

    def _drop_suspicion(self, subject: NodeId) -> None:
        suspicion = self._suspicions.pop(subject, None)
        if suspicion is not None:
            self._timers.stop(SuspicionOver(subject, suspicion.version))
            self._timers.stop(ChallengeDue(subject, suspicion.version))

    def _refute(self, source: NodeId, now: float) -> None:
        """Say that we live. To be suspected at all speaks against our own pace (Lifeguard)."""
        self._detector.awareness.change(1)
        self._own.renew()
        self._outbox.send_records(source, [self._own.signed.encoded])
        self._tell_record(self._own.signed, now)

    def _gone(self, node_id: NodeId, now: float) -> None:
        self._detector.unwatch(node_id)
        sweep = self._config.dead_retention / SWEEPS_PER_RETENTION
        self._timers.start_once(SweepDue(), now + sweep)
        self._timers.start_once(ReconnectDue(), now + self._config.reconnect_interval)

    # Spreading

    def _tell_record(self, signed: SignedRecord, now: float) -> None:
        self._broadcasts.put_record(signed)
        self._gossip_soon(now)

    def _gossip_soon(self, now: float) -> None:
        due = max(now, self._gossiped_at + self._config.gossip_interval)
        self._timers.start_once(GossipDue(), due)

    def _gossip(self, now: float) -> None:
        self._gossiped_at = now
        targets = self._sample(self._members.live(), self._config.gossip_fanout)
        for target in targets:
            self._outbox.gossip_to(target)
        if targets and self._broadcasts:
            self._gossip_soon(now)

    def _want(self, wanted: tuple[tuple[Address, ...], bytes], now: float) -> None:
        addresses, ad = wanted
        replace(self.record, addresses=addresses, ad=ad)  # refuses what no record may say
        self._wanted = wanted
        if not self.record.left:
            self._timers.start(
                AnnounceDue(), max(now, self._announced_at + self._config.announce_interval)
            )

    def _announce(self, now: float) -> None:
        addresses, ad = self._wanted
        if (self.record.addresses, self.record.ad) != self._wanted:
            self._announced_at = now
            self._own.change(addresses, ad)
            self._tell_record(self._own.signed, now)

    # Push/pull

    def _sync_soon(self, now: float) -> None:
        self._sync_wait = self._config.sync_interval_first
        self._timers.start_earlier(SyncDue(), now + self._next_sync_wait())

    def _next_sync_wait(self) -> float:
        wait = self._sync_wait
        self._sync_wait = min(2 * wait, self._config.sync_interval)
        return wait * self._rng.uniform(0.8, 1.2)

    def _sync_with(self, peer: NodeId) -> None:
        """Begin a push/pull; our own record goes ahead, so a newcomer is known at once."""
        own = self._own.signed
        room = digest_room(self._config.max_bulk, len(own.encoded))
        for digest in digests(self._members, own, answer_wanted=True, room=room):
            self._outbox.send_bulk(peer, digest, own.encoded if digest.first == 0 else b"")

    def _compare(self, digest: Digest, source: NodeId, now: float) -> None:
        own = self._own.signed
        comparison = compare(digest, self._members, own)
        self._outbox.send_records(source, comparison.lacking)
        if digest.answer_wanted:
            room = digest_room(self._config.max_bulk, 0)
            for answer in digests(
                self._members,
                own,
                answer_wanted=False,
                room=room,
                first=digest.first,
                last=digest.last,
            ):
                self._outbox.send_bulk(source, answer)
        for subject in comparison.contested:
            self._accuse(subject, Accusation.SUSPECT, f"held dead by {short(source)}", now)
        if comparison.own_death and not self.record.left:
            self._refute(source, now)

    # Those who are gone

    def _reconnect(self, now: float) -> None:
        """Call on one of the dead: if it lives, our accusation makes it refute."""
        dead = self._members.with_health(Health.DEAD)
        for peer in self._sample(dead, 1):
            self._perform(self._detector.knock(peer), now)
        if dead:
            self._timers.start(ReconnectDue(), now + self._config.reconnect_interval)

    def _sweep(self, now: float) -> None:
        for node_id in self._members.forget_before(now - self._config.dead_retention):
            self._vivaldi.forget(node_id)
        if self._members.with_health(Health.DEAD, Health.LEFT):
            sweep = self._config.dead_retention / SWEEPS_PER_RETENTION
            self._timers.start(SweepDue(), now + sweep)

    def _size(self) -> int:
        """Return how many live nodes the swarm has, ourselves included."""
        return len(self._members.live()) + 1

    def _sample(self, peers: Sequence[NodeId], count: int) -> list[NodeId]:
        return self._rng.sample(peers, min(count, len(peers)))


def short(node_id: NodeId) -> str:
    """Return the start of a node's id, as people see it."""
    return node_id.hex()[:8]
