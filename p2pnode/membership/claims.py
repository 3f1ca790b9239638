"""Who is suspected, by whom, and until when: claims, and what comes of them.

An accusation alone kills nobody. A claim of another begins a suspicion here at most, and makes some
of those who hear of it probe the accused at once. When the suspicion ends, this node declares the
accused dead only if a probe of its own went unanswered and no session of its own is acknowledged.
docs/decisions/0017-an-accusation-alone-kills-nobody.md says why.
"""

from collections import Counter

from p2pnode.membership.claimants import Claimants, IsHeard
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.detector import FailureDetector, Step
from p2pnode.membership.events import MemberDied, MemberRefuted, MembershipEvent, MemberSuspected
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.health import LIVE, Evidence, Health
from p2pnode.membership.limits import Buckets, TokenBucket
from p2pnode.membership.members import Entry, Members
from p2pnode.membership.messages import Gossip
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.records import Accusation, Claim, SignedClaim, Version, short
from p2pnode.membership.suspicion import Suspicion
from p2pnode.membership.timers import ChallengeDue, SuspicionOver, Timers
from p2pnode.sansio import NodeId, Rng


class Claims:
    """Weighs claims about members, ours and others', and signs ours.

    Methods return the probes that ought to follow.
    """

    # Invariants: whoever is SUSPECT in the table, and nobody else, has a suspicion here, of the
    # version held, with its SuspicionOver timer running. A look is under way for a member exactly
    # while the detector probes it because of others' words.

    def __init__(
        self,
        config: MembershipConfig,
        own: OwnRecord,
        members: Members,
        detector: FailureDetector,
        outbox: Outbox,
        gossiper: Gossiper,
        timers: Timers,
        events: list[MembershipEvent],
        counters: Counter[str],
        is_heard: IsHeard,
        rng: Rng,
    ) -> None:
        self._config = config
        self._own = own
        self._members = members
        self._detector = detector
        self._outbox = outbox
        self._gossiper = gossiper
        self._timers = timers
        self._events = events
        self._counters = counters
        self._is_heard = is_heard
        self._rng = rng
        self.claimants = Claimants(config, members, is_heard, counters)
        self._suspicions: dict[NodeId, Suspicion] = {}
        self._looks: dict[NodeId, dict[NodeId, None]] = {}
        self._dropped: dict[NodeId, tuple[Version, float]] = {}
        self._look_bucket = TokenBucket(config.limits.probes_of_accused)
        self._challenge_bucket = TokenBucket(config.limits.challenges)
        self._hints = Buckets[NodeId](config.limits.hints_per_source, config.max_members)

    # Others' words

    def is_news(self, claim: Claim, source: NodeId, now: float) -> bool:
        """Return whether a claim of another about a third, by ``source``, would change anything."""
        entry = self._members.entry(claim.subject)
        if entry is None or entry.version != claim.version or claim.claimant == claim.subject:
            return False
        if claim.claimant not in self._members:
            return False
        suspicion = self._suspicions.get(claim.subject)
        if suspicion is None:
            return entry.health is Health.ALIVE
        if claim.accusation is Accusation.DEAD:
            return suspicion.death is None
        return suspicion.wants(self.claimants.voice(claim.claimant, source, now))

    def weigh(self, signed: SignedClaim, source: NodeId, now: float) -> list[Step]:
        """Take a genuine claim of another that is news and that ``source`` brought."""
        claim = signed.claim
        voice = self.claimants.voice(claim.claimant, source, now)
        suspicion = self._suspicions.get(claim.subject)
        if not self.claimants.counts(voice, now) or (
            suspicion is None and self._was_dropped(claim, now)
        ):
            return self.hint(claim.subject, voice, now)
        dead = claim.accusation is Accusation.DEAD
        if voice == claim.claimant:
            self._gossiper.tell_claim(signed, now)
        else:  # who never heard it either would take it for our word
            self._counters["claim of a member we never heard"] += 1
        if suspicion is None:
            reason = f"{'found dead' if dead else 'suspected'} by {short(claim.claimant)}"
            suspicion = self._suspect(signed, voice, reason, now)
            looks = dead or self._is_among_those_who_look()
        else:
            suspicion.confirm(voice)
            looks = dead
        if dead:
            suspicion.called_dead(signed)
        self._time(claim.subject, suspicion, now)
        return self._look(claim.subject, voice, now) if looks else []

    def hint(self, subject: NodeId, source: NodeId, now: float) -> list[Step]:
        """Look, for a word of ``source`` that does not count, e.g. of an unsigned digest."""
        if not self._hints.of(source).take(now):
            self._counters["accusation that does not count, beyond its limit"] += 1
            return []
        return self._look(subject, source, now)

    # Our own evidence

    def found_silent(self, subject: NodeId, reason: str, now: float) -> list[Step]:
        """Take the end of a probe that ``subject`` did not answer: accuse it."""
        self._looks.pop(subject, None)
        entry = self._members.entry(subject)
        if entry is None or entry.health not in LIVE or self._own.record.left:
            return []
        suspicion = self._suspicions.get(subject)
        if suspicion is None or suspicion.wants(self._own.record.node_id):
            claim = Claim(Accusation.SUSPECT, self._own.record.node_id, subject, entry.version)
            signed = self._own.sign_claim(claim)
            self._gossiper.tell_claim(signed, now)
            if suspicion is None:
                suspicion = self._suspect(signed, claim.claimant, reason, now)
            suspicion.confirm(claim.claimant)
            self._time(subject, suspicion, now)
        suspicion.found_silent = True
        if suspicion.overdue:
            return self._conclude(subject, entry, suspicion, now)
        self._timers.start_once(ChallengeDue(subject, entry.version), now)
        return []

    def answered(self, subject: NodeId, now: float) -> None:
        """Take an ack of ``subject`` itself: whoever accused it to us was wrong."""
        for claimant in self._looks.pop(subject, ()):
            self.claimants.accused_falsely(claimant, now)
        if subject in self._suspicions:
            self._drop(subject, "suspicion dropped: it answered our ping", now)

    def responds(self, subject: NodeId, now: float) -> None:
        """Take the transport's word that the session with ``subject`` is acknowledged again."""
        self._looks.pop(subject, None)
        if subject in self._suspicions:
            self._drop(subject, "suspicion dropped: its session answers", now)

    def vouched_for(self, subject: NodeId, now: float) -> None:
        """Take a helper's word that ``subject`` answers it."""
        self._looks.pop(subject, None)
        suspicion = self._suspicions.get(subject)
        if suspicion is not None and suspicion.overdue:
            self._drop(subject, "suspicion dropped: it answered a helper", now)

    # Time

    def suspicion_over(self, timer: SuspicionOver, now: float) -> list[Step]:
        """End a suspicion that was not refuted in time."""
        entry = self._members.entry(timer.subject)
        suspicion = self._suspicions.get(timer.subject)
        if entry is None or suspicion is None or suspicion.version != timer.version:
            return []
        if now > suspicion.deadline + self._config.ack_timeout and not suspicion.overdue:
            # We slept through it, so the refutation may lie unread in our socket.
            self._detector.awareness.change(1)
            suspicion.deadline = now + self._config.ack_timeout
            self._timers.start(timer, suspicion.deadline)
            return []
        if self._own.record.left:
            return []
        if suspicion.found_silent or self._is_heard(timer.subject, now):
            return self._conclude(timer.subject, entry, suspicion, now)
        suspicion.overdue = True
        # Looking ends in found_silent, answered or vouched_for. This comes again, because it may
        # be that too many are looked at now.
        self._timers.start(timer, now + self._config.probe_interval * self._rng.uniform(1, 2))
        return self._look(timer.subject, None, now, urgent=True)

    def challenge(self, timer: ChallengeDue, now: float) -> list[Step]:
        """Ask a member that we accused once more, with the accusation in hand."""
        entry = self._members.entry(timer.subject)
        if (
            entry is None
            or entry.health is not Health.SUSPECT
            or entry.version != timer.version
            or self._own.record.left
        ):
            return []
        self._timers.start(timer, now + self._config.ack_timeout)
        if not self._challenge_bucket.take(now):
            return []
        return self._detector.ping_once(timer.subject, now)

    def clear(self, subject: NodeId) -> None:
        """Forget what was said of a member: it signed something newer, or is gone."""
        self._looks.pop(subject, None)
        self._dropped.pop(subject, None)
        suspicion = self._suspicions.pop(subject, None)
        if suspicion is not None:
            self.claimants.ended(suspicion.accuser)
            self._timers.stop(SuspicionOver(subject, suspicion.version))
            self._timers.stop(ChallengeDue(subject, suspicion.version))

    # Parts

    def _suspect(self, signed: SignedClaim, voice: NodeId, reason: str, now: float) -> Suspicion:
        claim = signed.claim
        size = len(self._members.heard) + 1  # or inventing members would slow us down
        suspicion = Suspicion(claim.version, voice, size, self._config, now)
        self._suspicions[claim.subject] = suspicion
        self.claimants.began(voice)
        self._members.suspect(signed, now, reason)
        self._events.append(MemberSuspected(claim.subject, reason))
        return suspicion

    def _time(self, subject: NodeId, suspicion: Suspicion, now: float) -> None:
        """Set the timer of a suspicion whose deadline is new or came nearer."""
        suspicion.deadline = max(suspicion.deadline, now)
        if not suspicion.overdue:
            self._timers.start(SuspicionOver(subject, suspicion.version), suspicion.deadline)

    def _conclude(
        self, subject: NodeId, entry: Entry, suspicion: Suspicion, now: float
    ) -> list[Step]:
        """End a suspicion by our own evidence: it is dead, unless its session answers."""
        if self._is_heard(subject, now):
            self._drop(subject, "suspicion dropped: its session answers", now)
            return []
        reason = f"{entry.reason}; did not refute it"
        signed = suspicion.death
        if signed is None:
            own_id = self._own.record.node_id
            claim = Claim(Accusation.DEAD, own_id, subject, entry.version)
            signed = self._own.sign_claim(claim)
            self._gossiper.tell_claim(signed, now)
        self._members.declare_dead(signed, now, reason)
        self.clear(subject)  # the dead are suspected no longer
        self._detector.remove(subject)
        self._events.append(MemberDied(subject, reason))
        return []

    def _drop(self, subject: NodeId, why: str, now: float) -> None:
        """Believe a suspect alive after all, and for a while no words about this version."""
        self._counters[why] += 1
        self._outbox.send(subject, Gossip())  # with the accusation: others want it refuted
        version = self._suspicions[subject].version
        self.clear(subject)
        self._members.believe(subject, Evidence.ANSWER, now)
        _, longest = self._config.suspicion_bounds(len(self._members.heard) + 1)
        self._dropped[subject] = version, now + longest
        self._events.append(MemberRefuted(subject))

    def _was_dropped(self, claim: Claim, now: float) -> bool:
        """Return whether we found, not long ago, that this version of the subject answers."""
        version, until = self._dropped.get(claim.subject, (None, now))
        return version == claim.version and now < until

    def _is_among_those_who_look(self) -> bool:
        """Draw whether to look at once: a few of a large swarm do, and all of a small one."""
        others = len(self._members.heard) - 1  # without the subject; the claimant has looked
        return self._rng.random() * others < self._config.lookers

    def _look(
        self, subject: NodeId, claimant: NodeId | None, now: float, *, urgent: bool = False
    ) -> list[Step]:
        """Probe an accused, unless that is under way or would be too many at once."""
        steps: list[Step] = []
        if not self._detector.is_probing(subject):
            if self._own.record.left:
                return []
            if not self._look_bucket.take(now):
                self._counters["accused not probed: too many at once"] += 1
                return []
            self._looks[subject] = {}
            steps = self._detector.probe(subject, now, urgent=urgent)
        if claimant is not None:
            self._looks.setdefault(subject, {})[claimant] = None
        return steps
