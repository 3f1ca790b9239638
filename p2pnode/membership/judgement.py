"""Who is suspected, by whom, and until when: claims, and what comes of them."""

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.detector import FailureDetector, Step
from p2pnode.membership.events import MemberDied, MembershipEvent, MemberSuspected
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.health import LIVE, Health
from p2pnode.membership.members import Members
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.records import Accusation, Claim, SignedClaim
from p2pnode.membership.suspicion import Suspicion
from p2pnode.membership.timers import ChallengeDue, SuspicionOver, Timers
from p2pnode.sansio import NodeId, Rng


class Judge:
    """Weighs claims about members, ours and others', and signs ours.

    Methods return the probes that ought to follow.
    """

    def __init__(
        self,
        config: MembershipConfig,
        own: OwnRecord,
        members: Members,
        detector: FailureDetector,
        gossiper: Gossiper,
        timers: Timers,
        events: list[MembershipEvent],
        rng: Rng,
    ) -> None:
        self._config = config
        self._own = own
        self._members = members
        self._detector = detector
        self._gossiper = gossiper
        self._timers = timers
        self._events = events
        self._rng = rng
        self._suspicions: dict[NodeId, Suspicion] = {}

    def is_news(self, claim: Claim) -> bool:
        """Return whether a claim of another about a third would change anything."""
        entry = self._members.entry(claim.subject)
        if entry is None or entry.version != claim.version or claim.claimant == claim.subject:
            return False
        if claim.claimant not in self._members:
            return False
        if entry.health is Health.SUSPECT and claim.accusation is Accusation.SUSPECT:
            return self._suspicions[claim.subject].wants(claim.claimant)
        return entry.health in LIVE

    def accuse(self, subject: NodeId, what: Accusation, reason: str, now: float) -> list[Step]:
        """Sign and weigh a claim of our own, if the subject is still thought alive."""
        entry = self._members.entry(subject)
        if entry is None or entry.health not in LIVE or self._own.record.left:
            return []
        claim = Claim(what, self._own.record.node_id, subject, entry.version)
        steps = self.weigh(self._own.sign_claim(claim), reason, now)
        if what is Accusation.SUSPECT:
            self._timers.start_once(ChallengeDue(subject, entry.version), now)
        return steps

    def weigh(self, signed: SignedClaim, reason: str, now: float) -> list[Step]:
        """Take a genuine claim about a live member: it begins, confirms or ends a suspicion."""
        subject = signed.claim.subject
        if not self._members.accuse(signed, now, reason):
            self._confirm(signed, now)
            return []
        self._gossiper.tell_claim(signed, now)
        if subject not in self._suspicions:
            self._events.append(MemberSuspected(subject, reason))
            return self._suspect(signed.claim, now)
        self.acquit(subject)  # nothing hangs over the dead
        self._detector.unwatch(subject)
        self._events.append(MemberDied(subject, reason))
        return []

    def sentence(self, timer: SuspicionOver, now: float) -> list[Step]:
        """End a suspicion that was not refuted in time."""
        entry = self._members.entry(timer.subject)
        suspicion = self._suspicions.get(timer.subject)
        if entry is None or suspicion is None or suspicion.version != timer.version:
            return []
        if now > suspicion.deadline + self._config.ack_timeout:
            # We slept through it, so the refutation may lie unread before our door.
            self._detector.awareness.change(1)
            suspicion.deadline = now + self._config.ack_timeout
            self._timers.start(timer, suspicion.deadline)
            return []
        reason = f"{entry.reason}; did not refute it"
        return self.accuse(timer.subject, Accusation.DEAD, reason, now)

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
        return self._detector.knock(timer.subject)

    def acquit(self, subject: NodeId) -> None:
        """Drop what hangs over a member, if anything does."""
        suspicion = self._suspicions.pop(subject, None)
        if suspicion is not None:
            self._timers.stop(SuspicionOver(subject, suspicion.version))
            self._timers.stop(ChallengeDue(subject, suspicion.version))

    def _suspect(self, claim: Claim, now: float) -> list[Step]:
        size = len(self._members.live) + 1
        suspicion = Suspicion(claim.version, claim.claimant, size, self._config, now)
        self._suspicions[claim.subject] = suspicion
        self._timers.start(SuspicionOver(claim.subject, claim.version), suspicion.deadline)
        if claim.claimant == self._own.record.node_id:
            return []
        # Some of those who hear of it look for themselves, so that it is soon confirmed or
        # refuted: about twice as many as it takes, and not a whole swarm at once.
        wanted = self._config.confirmations_wanted(size)
        looks = self._rng.random() * (size - 2) < 2 * wanted
        return self._detector.probe(claim.subject, now) if looks else []

    def _confirm(self, signed: SignedClaim, now: float) -> None:
        claim = signed.claim
        suspicion = self._suspicions[claim.subject]
        if suspicion.confirm(claim.claimant):
            self._timers.start(SuspicionOver(claim.subject, claim.version), suspicion.deadline)
            self._gossiper.tell_claim(signed, now)
