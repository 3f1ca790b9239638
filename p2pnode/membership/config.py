"""Settings of the membership room; every time is in seconds of the core's clock."""

import math
from dataclasses import dataclass, field

from p2pnode.errors import ConfigError
from p2pnode.membership.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipConfig:
    """How often to look, how long to wait, how much to say.

    A member that dies unheard is declared dead, without loss and with all members healthy, after
    at most :meth:`detection_bound`: the wait for its turn to be probed, one probe, one suspicion.

    Raises:
        ConfigError: Two settings contradict each other, or one is out of its bounds.
    """

    probe_interval: float = 0.4
    """Between two probes, each of the next member in the round. More than zero; at least
    ``ack_timeout * probe_attempts``, so that probes follow one another. SWIM and memberlist take
    1; with 0.4 a killed node of three is declared dead in 1.79 s at worst. Each wake-up of an
    idle process costs about 0.5 ms of CPU, so 0.3 cost 1.3 % of a core where 0.45 cost 0.8 %."""

    ack_timeout: float = 0.13
    """What a ping waits for its ack before the next attempt. Above the round trip of nearly every
    link and above the lateness of a busy event loop (45 ms at p99, measured). memberlist: 0.5."""

    probe_attempts: int = 3
    """Pings to one member before silence is believed; the second and later ones go together with
    the indirect probes. At least 2. With 10 % loss a round trip fails 19 times in 100, three of
    them 7 times in 1000. memberlist tries UDP once and then TCP."""

    indirect_probes: int = 3
    """Members asked to ping on our behalf. 3, as in memberlist; 0 turns indirect probes off."""

    awareness_max: int = 8
    """Lifeguard's health score runs from 0 to one less; our timeouts stretch by 1 + score when our
    own slowness is the likelier cause. At least 1, which turns it off. 8, as in memberlist."""

    suspicion_multiplier: float = 1.5
    """The shortest suspicion is this, times ``max(1, log10(members))``, times
    ``probe_interval``: the time a live suspect has to refute. memberlist takes 4 with probes of
    1 s; a suspect here is asked anew every ``ack_timeout``, so 0.6 s is four to five chances."""

    suspicion_max_factor: float = 6.0
    """An unconfirmed suspicion lasts this many times the shortest one. At least 1. Lifeguard's
    beta, 6 in memberlist."""

    suspicion_confirmations: int = 2
    """Independent accusers that bring a suspicion from its longest to its shortest time; a swarm
    too small to have so many takes the shortest at once. memberlist: its multiplier less 2."""

    gossip_interval: float = 0.1
    """Between two rounds of gossip while there is news; silence costs nothing. memberlist: 0.2."""

    gossip_fanout: int = 3
    """Members told in one round. 3, as in memberlist."""

    retransmit_multiplier: int = 4
    """News is sent this, times ``ceil(log10(members + 1))``, times and then dropped. 4, as in
    memberlist."""

    max_broadcasts: int = 256
    """Pieces of news told at once; beyond, the most-told goes, and push/pull brings it to whoever
    missed it. 60 KB, or two seconds of full datagrams. A guess."""

    sync_interval: float = 30.0
    """Between two push/pulls with a random member, which mend whatever gossip lost. 30, as in
    memberlist; a push/pull between equals costs 21 bytes a member each way."""

    sync_interval_first: float = 1.0
    """The same just after joining or after a push/pull brought strangers; it doubles up to
    ``sync_interval``. A guess."""

    reconnect_interval: float = 5.0
    """Between two pings of a random dead member: how a healed partition is noticed. Serf: 30."""

    dead_retention: float = 3600.0
    """How long the dead and the departed are shown, and the dead called upon. Their last records
    are kept longer, as long as ``max_members`` allows, so that old gossip cannot raise them. A
    guess: longer than most absences that end by themselves."""

    announce_interval: float = 1.0
    """Between two changes of our own ad or addresses; quicker ones are put together. Every change
    costs the swarm a record a member, many times over. A guess."""

    max_members: int = 1024
    """Members held, and last versions kept of those forgotten. Beyond, the gone give way, then
    those only told of. Bounds memory against a member that invents others: 1.5 MB."""

    max_relays: int = 64
    """Pings under way on behalf of others; more requests are answered with a nack. A guess."""

    max_verifications: int = 72
    """Signatures checked for one datagram, about 60 us each. 72 is the most records that fit one
    push/pull message, so honest traffic never meets it."""

    key_shared_after: int = 2
    """Lives of one member that began where an earlier one had been, with another in between, before
    its key counts as used twice. At least 1. A laptop carried between two
    places returns a few times a day."""

    key_shared_within: float = 600.0
    """Seconds within which those count, and for which a key counts as used twice after the latest
    sign of it. Above ``outdo_longest``, or two patient nodes would never be noticed."""

    key_shared_told_every: float = 300.0
    """Between two tellings of one key that goes on being used twice, at least. So that whoever was
    told can forget it some time after the last: at most half of ``key_shared_within``."""

    outdo_at_once: int = 2
    """Own records of unknown lives that are surpassed at once: after a restart with a clock set
    back there is one. Beyond, within ``key_shared_within``, our key is in use elsewhere."""

    outdo_first: float = 2.0
    """Pause before the next is surpassed, doubled with each. A guess."""

    outdo_longest: float = 120.0
    """The longest such pause: how long our record may be the other's after the other is gone."""

    lookers: int = 8
    """Members that probe an accused at once when they hear of it, on average; in a swarm of ten
    that is everyone. The others look when a suspicion of theirs ends. Enough that one of them gets
    through at 30 % loss, few enough that an accusation moves no whole swarm. A guess."""

    max_accused_at_once: int = 64
    """Suspicions that one claimant may have begun here; its further claims only make us look. Above
    half of a swarm of 100, cut off at once."""

    false_claims_excused: float = 2.0
    """Accusations of members that answered our probe, forgiven to one claimant: a link may be bad
    between two members only. Beyond, its claims only make us look, for a while. A guess."""

    false_claim_half_life: float = 300.0
    """Seconds after which half of a claimant's false accusations are forgotten. A guess."""

    distrust_first: float = 15.0
    """Half of the seconds that the first false accusation beyond those excused costs; each further
    one doubles them, up to ``distrust_longest``. A guess."""

    distrust_longest: float = 600.0
    """The longest that a claimant's claims only make us look. A guess."""

    limits: Limits = field(default_factory=Limits)
    """What may be asked of this node a second, by one member and by all; see there."""

    max_datagram: int = 1100
    """Bytes of a message sent as one datagram, our headers included; below the base MTU of 1200
    less the transport's headers."""

    max_bulk: int = 8192
    """Bytes of one push/pull message. Small enough that verifying it (about 4 ms) does not hold
    up the event loop."""

    def __post_init__(self) -> None:
        positive = (self.probe_interval, self.ack_timeout, self.gossip_interval)
        if min(positive) <= 0 or min(self.sync_interval_first, self.reconnect_interval) <= 0:
            raise ConfigError("every interval must be longer than nothing")
        if self.probe_attempts < 2 or min(self.awareness_max, self.max_members) < 1:
            raise ConfigError("at least two attempts, one awareness level and one member")
        if self.max_broadcasts < 1:
            raise ConfigError("something must be told")
        if self.ack_timeout * self.probe_attempts > self.probe_interval + 1e-9:
            raise ConfigError("a probe must be over before the next begins")
        if self.suspicion_multiplier <= 0 or self.suspicion_max_factor < 1:
            raise ConfigError("a suspicion must last, and its longest is no less than its shortest")
        if self.key_shared_after < 1 or self.outdo_at_once < 1 or self.outdo_first <= 0:
            raise ConfigError("a clock set back must be forgiven once, and patience begin")
        if not self.outdo_first <= self.outdo_longest < self.key_shared_within:
            raise ConfigError("outdo_longest lies between outdo_first and key_shared_within")
        if not 0 < self.key_shared_told_every <= self.key_shared_within / 2:
            raise ConfigError("key_shared_told_every is at most half of key_shared_within")
        if self.lookers < 1 or self.max_accused_at_once < 1:
            raise ConfigError("at least one must look, and one be accused")
        if min(self.false_claim_half_life, self.distrust_first) <= 0:
            raise ConfigError("distrust must fade, and last")
        if self.max_datagram < 1000 or self.max_bulk < self.max_datagram:
            raise ConfigError("a datagram must hold the largest record, a push/pull a datagram")

    def suspicion_bounds(self, members: int) -> tuple[float, float]:
        """Return the shortest and the longest suspicion in a swarm of ``members``."""
        scale = max(1.0, math.log10(max(1, members)))
        shortest = self.suspicion_multiplier * scale * self.probe_interval
        return shortest, shortest * self.suspicion_max_factor

    def confirmations_wanted(self, members: int) -> int:
        """Return how many confirmations a swarm of ``members`` can be expected to give."""
        possible = members - 2  # neither the suspect nor the first accuser
        return self.suspicion_confirmations if possible >= self.suspicion_confirmations else 0

    def retransmits(self, members: int) -> int:
        """Return how often one piece of news is sent in a swarm of ``members``."""
        return self.retransmit_multiplier * math.ceil(math.log10(members + 1))

    def detection_bound(self, members: int) -> float:
        """Return the longest time to a death without loss, its longest suspicion included."""
        others = max(1, members - 1)
        gap = others + (others + 1) // 2 - 1  # probe_round.py says why
        shortest, longest = self.suspicion_bounds(members)
        suspicion = longest if self.confirmations_wanted(members) else shortest
        return gap * self.probe_interval + self.ack_timeout * self.probe_attempts + suspicion


def lan() -> MembershipConfig:
    """Return settings for one home or one rack, up to some hundred nodes."""
    return MembershipConfig()


def wan() -> MembershipConfig:
    """Return settings for round trips up to half a second; a death takes some ten seconds."""
    return MembershipConfig(
        probe_interval=2.0,
        ack_timeout=0.6,
        suspicion_multiplier=3.0,
        gossip_interval=0.5,
        sync_interval=60.0,
        sync_interval_first=3.0,
        reconnect_interval=30.0,
        announce_interval=5.0,
    )


def simulation() -> MembershipConfig:
    """Return what simulations run unless they say otherwise: the settings of :func:`lan`.

    Only forgetting is quicker, so that a scenario of some minutes sees it.
    """
    return MembershipConfig(dead_retention=300.0)
