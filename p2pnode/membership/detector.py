"""The failure detector: pings, indirect pings, nacks, and how far to trust ourselves.

SWIM's probe (section 3.1) with Lifeguard's health score. It decides and others act: every input
returns the steps to take, and it neither knows what members are nor signs anything.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.messages import Ack, Message, Nack, Ping, PingRequest
from p2pnode.membership.probe_round import ProbeRound
from p2pnode.membership.timers import AttemptOver, RelayOver, Timers
from p2pnode.phrases import plural
from p2pnode.sansio import NodeId, Rng


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message."""

    destination: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Silent:
    """The end of a probe: this member did not answer, in as many ways as we asked."""

    target: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A ping of ours was acknowledged.

    Attributes:
        target: Who was asked about.
        rtt: Seconds from ping to ack, if the target itself gave it; None for a helper's word.
    """

    target: NodeId
    rtt: float | None


Step: TypeAlias = Send | Silent

URGENT_ATTEMPTS = 2  # one would conclude before a helper's nack can be here
RELAY_ATTEMPTS = 2
LATE_PINGS = 256  # remembered; with one each ack_timeout, those of thirty suspects for a second
RELAY_SHARE = 0.4  # of the ack timeout, for each: so the nack is there within one


class Awareness:
    """Lifeguard's local health multiplier: how likely it is that we are the slow one."""

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self.score = 0

    def change(self, by: int) -> None:
        """Raise the score for what speaks against us, lower it for what speaks for us."""
        self.score = min(max(self.score + by, 0), self._levels - 1)

    def stretch(self, duration: float) -> float:
        return duration * (1 + self.score)


@dataclass(slots=True)
class _Probe:
    identity: int
    target: NodeId
    attempts: int
    attempt: int = 0
    due: float = 0.0
    overslept: bool = False
    helpers: int = 0
    nacked: set[NodeId] = field(default_factory=set)
    numbers: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Question:
    """A number we wait for, from whom, about whom."""

    target: NodeId
    answerer: NodeId
    asked_at: float


@dataclass(slots=True)
class _Relay:
    requester: NodeId
    their_number: int
    target: NodeId
    attempts_left: int


class FailureDetector:
    """Asks members whether they are there, and says which are not."""

    def __init__(self, config: MembershipConfig, rng: Rng, timers: Timers) -> None:
        self._config = config
        self._timers = timers
        self._heard = ProbeRound(rng)
        self._told_of = ProbeRound(rng)
        self._turn = 0.0
        self._probes: dict[NodeId, _Probe] = {}
        self._questions: dict[int, _Question] = {}
        self._late: dict[int, _Question] = {}
        self._relays: dict[int, _Relay] = {}
        self._numbers = rng.randrange(0, 1 << 32)
        self._identities = 0
        self.awareness = Awareness(config.awareness_max)

    # Whom to look at

    # Members that never spoke to us have a round of their own, with half of the probes at most: who
    # invents members must not make us look at the real ones once in ten minutes.

    def add(self, peer: NodeId, *, heard: bool = True) -> None:
        if peer not in self._heard and peer not in self._told_of:
            (self._heard if heard else self._told_of).add(peer)

    def heard(self, peer: NodeId) -> None:
        """Take it that ``peer`` spoke to us itself."""
        self._heard.take_over(peer, self._told_of)

    def remove(self, peer: NodeId) -> None:
        self._heard.remove(peer)
        self._told_of.remove(peer)
        self._end(peer)

    # Our own probes

    def probe_next(self, now: float) -> list[Step]:
        """Probe the next member whose turn it is."""
        everyone = len(self._heard) + len(self._told_of)
        self._turn += min(0.5, len(self._told_of) / max(1, everyone)) if self._heard else 1.0
        if self._turn >= 1.0 and self._told_of:
            self._turn -= 1.0
            target = self._told_of.advance()
        else:
            self._turn = min(self._turn, 1.0)
            target = self._heard.advance()
        return [] if target is None else self.probe(target, now)

    def probe(self, target: NodeId, now: float, *, urgent: bool = False) -> list[Step]:
        """Probe ``target``; when ``urgent``, ask the helpers at once too and conclude sooner."""
        before = self._probes.get(target)
        if before is not None:
            if not urgent:
                return []
            self._remember_pings(before)
            self._end(target)
        self._identities += 1
        attempts = URGENT_ATTEMPTS if urgent else self._config.probe_attempts
        probe = _Probe(self._identities, target, attempts)
        self._probes[target] = probe
        helpers = self._ask_helpers(probe, now) if urgent else []
        return [self._ping(probe, now), *helpers]

    def attempt_over(self, timer: AttemptOver, now: float) -> list[Step]:
        """Go on with a probe that was not answered in time."""
        probe = self._probes.get(timer.target)
        if probe is None or probe.identity != timer.probe:
            return []
        if now > probe.due + self._config.ack_timeout and not probe.overslept:
            # We slept through it, so the ack may lie unread in our socket.
            probe.overslept = True
            probe.attempt -= 1
        if probe.attempt >= probe.attempts:
            return [self._conclude(probe)]
        helpers = [] if probe.helpers else self._ask_helpers(probe, now)
        return [self._ping(probe, now), *helpers]

    def is_probing(self, target: NodeId) -> bool:
        return target in self._probes

    def acknowledge(self, number: int, source: NodeId, now: float) -> Answer | None:
        """Take an ack; return what it answers, if anything of ours."""
        question = self._questions.get(number)
        if question is not None and question.answerer == source:
            self.awareness.change(-1)
        else:
            question = self._late.pop(number, None)
            if question is None or question.answerer != source:
                return None
        self._end(question.target)
        rtt = now - question.asked_at if source == question.target else None
        return Answer(question.target, rtt)

    def nack(self, number: int, source: NodeId) -> None:
        """Take a helper's word that it is there, though the target does not answer."""
        question = self._questions.get(number)
        if question is not None and question.answerer == source != question.target:
            self._probes[question.target].nacked.add(source)

    def answered(self, peer: NodeId) -> None:
        """Take it from elsewhere that ``peer`` answers."""
        self._end(peer)

    def ping_once(self, target: NodeId, now: float) -> list[Step]:
        """Ping once, and conclude nothing from silence: an accusation goes with it."""
        number = self._new_number()
        self._remember(number, _Question(target, target, now))
        return [Send(target, Ping(number))]

    # Probes on behalf of others

    def relay(self, request: PingRequest, source: NodeId, now: float) -> list[Step]:
        """Ping on behalf of ``source``, if the target is known and we are not too busy."""
        is_known = request.target in self._heard or request.target in self._told_of
        if not is_known or len(self._relays) >= self._config.max_relays:
            return [Send(source, Nack(request.number))]
        number = self._new_number()
        self._relays[number] = _Relay(source, request.number, request.target, RELAY_ATTEMPTS)
        return self._ping_for(number, now)

    def relay_over(self, timer: RelayOver, now: float) -> list[Step]:
        """Go on with a ping on another's behalf that was not answered in time."""
        relay = self._relays.get(timer.number)
        if relay is None:
            return []
        if relay.attempts_left:
            return self._ping_for(timer.number, now)
        del self._relays[timer.number]
        return [Send(relay.requester, Nack(relay.their_number))]

    def pass_on(self, number: int, source: NodeId) -> list[Step]:
        """Hand an ack on, if it answers a ping we sent for another."""
        relay = self._relays.get(number)
        if relay is None or relay.target != source:
            return []
        del self._relays[number]
        self._timers.stop(RelayOver(number))
        return [Send(relay.requester, Ack(relay.their_number))]

    # Parts of a probe

    def _ping(self, probe: _Probe, now: float) -> Step:
        probe.attempt += 1
        number = self._expect(probe, probe.target, now)
        probe.due = now + self.awareness.stretch(self._config.ack_timeout)
        self._timers.start(AttemptOver(probe.target, probe.identity), probe.due)
        return Send(probe.target, Ping(number))

    def _ask_helpers(self, probe: _Probe, now: float) -> list[Step]:
        wanted = self._config.indirect_probes
        helpers = self._heard.sample(wanted, without=probe.target)
        helpers += self._told_of.sample(wanted - len(helpers), without=probe.target)
        probe.helpers = len(helpers)
        return [
            Send(helper, PingRequest(self._expect(probe, helper, now), probe.target))
            for helper in helpers
        ]

    def _expect(self, probe: _Probe, answerer: NodeId, now: float) -> int:
        number = self._new_number()
        probe.numbers.append(number)
        self._questions[number] = _Question(probe.target, answerer, now)
        return number

    def _conclude(self, probe: _Probe) -> Step:
        """End an unanswered probe. Helpers that did not even nack speak against us (Lifeguard)."""
        self._remember_pings(probe)
        self._end(probe.target)
        missing = probe.helpers - len(probe.nacked)
        self.awareness.change(missing if probe.helpers else 1)
        helped = f", nor to {plural(probe.helpers, 'helper')}" if probe.helpers else ""
        return Silent(probe.target, f"no answer to {plural(probe.attempt, 'ping')}{helped}")

    def _remember_pings(self, probe: _Probe) -> None:
        """Take acks of a probe that is about to end unanswered: late is better than dead."""
        for number in probe.numbers:
            question = self._questions[number]
            if question.answerer == probe.target:
                self._remember(number, question)

    def _remember(self, number: int, question: _Question) -> None:
        """Take an ack of this ping all the same, though no probe waits for it."""
        self._late[number] = question
        if len(self._late) > LATE_PINGS:
            del self._late[next(iter(self._late))]

    def _end(self, target: NodeId) -> None:
        probe = self._probes.pop(target, None)
        if probe is None:
            return
        self._timers.stop(AttemptOver(probe.target, probe.identity))
        for number in probe.numbers:
            del self._questions[number]

    def _ping_for(self, number: int, now: float) -> list[Step]:
        relay = self._relays[number]
        relay.attempts_left -= 1
        self._timers.start(RelayOver(number), now + self._config.ack_timeout * RELAY_SHARE)
        return [Send(relay.target, Ping(number))]

    def _new_number(self) -> int:
        self._numbers = (self._numbers + 1) % (1 << 32)
        return self._numbers
