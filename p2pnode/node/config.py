"""A node's settings: one frozen value, composed of those of its layers.

Each refuses with a ConfigError what contradicts itself; NodeConfig also what two layers say of each
other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from p2pnode.errors import ConfigError
from p2pnode.inference.config import InferenceConfig
from p2pnode.membership.config import (
    MembershipConfig,
    lan as membership_lan,
    wan as membership_wan,
)
from p2pnode.membership.limits import Rate
from p2pnode.node.resting import RestConfig
from p2pnode.node.traffic_class import Budgets
from p2pnode.scheduler.offences import TrustConfig
from p2pnode.transport.config import TransportConfig
from p2pnode.wire.vframe import MAX_FRAME


@dataclass(frozen=True, slots=True)
class HoldingsConfig:
    """How a node decides which layers to hold.

    Attributes:
        layers: A fixed run; None to let the node choose.
        max_layers: Most layers to choose; None for all that memory allows.
        settle: Seconds to listen before choosing, so that the swarm's ads have arrived. At least a
            discovery and a push/pull. A guess; a node on one machine needs 0.4.
        jitter: Up to this many seconds more, drawn at random, so that nodes started by one switch
            do not choose at one moment.
        confirm: Seconds between claiming a run and loading it: rival claims must have arrived, so
            at least two gossip rounds.
        review: Seconds between two looks at whether the swarm needs us elsewhere.
        most_moves: How often a claim gives way to others' before it is loaded all the same, or a
            member that copies each claim of ours would keep us from ever serving. Together with
            ``confirm`` it bounds how long a node claims: 5.4 s. Of 370 honest newcomers in
            simulations, up to thirty at one moment, 95 % gave way twice at the most and none more
            than six times.
        unheard_moves: How often it gives way to members that no session of ours has heard, at
            most ``most_moves``: anybody may invent those. Where thirty start at once, honest ones
            are among them; four times was enough for 99 %.
        claim_lasts: Seconds that claims of others may keep a hole open; then it counts as one,
            however often they change. Longer than loading takes; a guess: 30 GB off a slow disk.
        resize_margin: Part of a model's layers by which there must be room for more of them before
            a serving node loads anew: each time, answers there go on elsewhere. A guess.
        divide: Seconds between two looks at how the memory is divided among several models. A
            guess; demand fades in minutes.
    """

    layers: range | None = None
    max_layers: int | None = None
    settle: float = 0.8
    jitter: float = 0.4
    confirm: float = 0.6
    review: float = 5.0
    most_moves: int = 8
    unheard_moves: int = 4
    claim_lasts: float = 300.0
    resize_margin: float = 0.1
    divide: float = 30.0

    def __post_init__(self) -> None:
        _require(
            "holdings",
            {
                "settle and jitter are not negative": min(self.settle, self.jitter) >= 0,
                "confirm and review are positive": min(self.confirm, self.review) > 0,
                "max_layers is positive": self.max_layers is None or self.max_layers > 0,
                "unheard_moves is at least 0 and at most most_moves": 0
                <= self.unheard_moves
                <= self.most_moves,
                "claim_lasts is positive": self.claim_lasts > 0,
                "resize_margin is at least 0 and divide positive": self.resize_margin >= 0
                and self.divide > 0,
            },
        )


@dataclass(frozen=True, slots=True)
class DialerConfig:
    """How a node calls those it was told of; times in seconds.

    An address given by hand is called every ``redial``, however long it takes. The rest bounds
    hints: what strangers announce on the local network, and peers remembered of earlier starts.

    Attributes:
        redial: Between two calls of an address given by hand, and after the first call of a hint;
            at least a few round trips. A guess.
        backoff_most: The pause doubles with each call of a hint that is not answered, up to this.
            A guess: a machine that was off for a night is found within five minutes.
        backoff_met: The same for an announced node that was met since this start. A guess.
        most_in_flight: Hints called at once, without an outcome yet.
        rate: Hints called a second in the long run, together; above 0. Each costs 0.1 ms.
        burst: Hints that may be called at one moment; machines switched on together meet at once.
        outcome_seconds: A call without an outcome for so long has none; more than the transport's
            ``dial_timeout``.
        stagger: Between the calls of two addresses of one name that a person gave: both families
            at once would be two handshakes with one node. RFC 8305 says 0.25.
        addresses_each: Addresses of one announcement that are called; those on our own subnets.
        remembered_tries: First messages sent to a remembered address in one call.
        most_fixed: Addresses given by hand, those that names stand for included.
        most_sightings: Announced nodes kept.
        most_credit: Bytes of announcements that count for later calls of one node.
        most_pauses: Addresses whose pause is kept.
    """

    redial: float = 3.0
    backoff_most: float = 300.0
    backoff_met: float = 60.0
    most_in_flight: int = 16
    rate: float = 4.0
    burst: int = 8
    outcome_seconds: float = 6.0
    stagger: float = 0.25
    addresses_each: int = 2
    remembered_tries: int = 3
    most_fixed: int = 64
    most_sightings: int = 256
    most_credit: int = 1024
    most_pauses: int = 512

    def __post_init__(self) -> None:
        _require(
            "dialer",
            {
                "redial is positive": self.redial > 0,
                "backoff_met and backoff_most are at least redial": self.redial
                <= min(self.backoff_met, self.backoff_most),
                "rate and outcome_seconds are positive": min(self.rate, self.outcome_seconds) > 0,
                "counts are positive": min(
                    self.most_in_flight,
                    self.burst,
                    self.addresses_each,
                    self.remembered_tries,
                    self.most_fixed,
                    self.most_sightings,
                    self.most_pauses,
                )
                >= 1,
                "most_credit is not negative": self.most_credit >= 0,
            },
        )

    def pause(self, failures: int, *, met: bool = False) -> float:
        """Return how long a hint rests that was called in vain ``failures`` times."""
        most = self.backoff_met if met else self.backoff_most
        return min(most, self.redial * 2.0 ** min(failures - 1, 16))


@dataclass(frozen=True, slots=True)
class RecordDialsConfig:
    """How gossip calls members on the word of their records; times in seconds.

    A call sends ``tries`` packets of 177 bytes, so all of them together send a stranger whom
    invented records name some 1 kB/s: ``most_in_flight`` calls in ``outcome_seconds``.

    Attributes:
        addresses_each: Addresses of a member never met that are called at once; one of each
            family.
        tries: First messages sent to such an address in one call: one may be lost.
        most_in_flight: Such calls without an outcome yet.
        rate: Such calls a second in the long run; above 0. A guess: a member that joins a hundred
            others has sessions with them all in ten seconds, for they call it too.
        burst: Such calls at one moment.
        outcome_seconds: A call without an outcome for so long has none; more than the transport's
            ``dial_timeout``.
        redial: An address rests so long after the first call in vain; each further one doubles it.
        backoff_most: The most of that. A guess: one who was away is found within a minute.
        most_pauses: Addresses whose rest is kept.
        most_met: Members kept of whom it is known where they were met.
    """

    addresses_each: int = 2
    tries: int = 2
    most_in_flight: int = 16
    rate: float = 8.0
    burst: int = 16
    outcome_seconds: float = 6.0
    redial: float = 3.0
    backoff_most: float = 60.0
    most_pauses: int = 512
    most_met: int = 1024

    def pause(self, failures: int, *, met: bool = False) -> float:
        """Return how long an address rests that was called in vain ``failures`` times."""
        del met
        return min(self.backoff_most, self.redial * 2.0 ** min(failures - 1, 16))


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """What may wait for peers that are being called.

    Attributes:
        waiting_bytes: Bytes of frames for one peer; at least one frame, 65536. What opens a chain
            and a first window of what was computed, a guess.
        waiting_total_bytes: Bytes for all of them. A few peers' worth, a guess.
        most_waiting: Frames for one peer.
        waiting_seconds: How long they wait; longer than a dial takes to fail (``dial_timeout``), so
            that nobody waits for a dial that nobody made.
        records: How gossip calls whom it is for.
        budgets: What may wait for peers that have a session, by class of traffic.
    """

    waiting_bytes: int = 4 << 20
    waiting_total_bytes: int = 16 << 20
    most_waiting: int = 64
    waiting_seconds: float = 12.0
    records: RecordDialsConfig = RecordDialsConfig()
    budgets: Budgets = field(default_factory=Budgets)

    def __post_init__(self) -> None:
        _require(
            "outbox",
            {
                f"waiting_bytes hold a frame, {MAX_FRAME}": self.waiting_bytes >= MAX_FRAME,
                "waiting_total_bytes are at least waiting_bytes": self.waiting_bytes
                <= self.waiting_total_bytes,
                "most_waiting is positive": self.most_waiting >= 1,
            },
        )


@dataclass(frozen=True, slots=True)
class ProgramFramesConfig:
    """What programs may send each other through their nodes. Guesses all.

    Attributes:
        most_each: Frames of one peer that wait for our program.
        bytes_each: Bytes of them; more than a frame may inflate to, 1 MiB.
        bytes_total: Bytes of all that wait; at least ``bytes_each``.
        under_way_bytes: Bytes under way to a peer, a program's or not, beyond which our program's
            next frame to it is refused; well below the transport's ``mute_queue_bytes``.
    """

    most_each: int = 64
    bytes_each: int = 2 << 20
    bytes_total: int = 16 << 20
    under_way_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class SpeedConfig:
    """When a node measures itself again. A measurement takes the engine half a second.

    Attributes:
        idle: Seconds without work after which a speed that work has changed is measured anew, so
            that a busy moment does not stick. Long enough that an answer is over. A guess.
        confirm: Seconds without work after which the calibration at loading is measured anew: a
            machine that was just started is busy.
        longest: The most seconds between two measurements that do not agree; each pause is twice
            the last.
    """

    idle: float = 15.0
    confirm: float = 60.0
    longest: float = 600.0

    def __post_init__(self) -> None:
        ordered = 0 < self.idle <= self.confirm <= self.longest
        _require("speed", {"0 < idle <= confirm <= longest": ordered})


@dataclass(frozen=True, slots=True)
class RemarkConfig:
    """How often the mistakes of members are reported, in the log and to them.

    Attributes:
        of_each: For one member: a few at once tell what is wrong, and one in ten seconds that it
            goes on. A guess.
        lines: Lines for all members together. With one in five seconds the 200 lines of the log
            last a quarter of an hour, whoever would empty it. A guess.
        about_each: Lines about one member that comes, goes or asks. A life from its session to its
            death is six lines; then one in ten seconds. A guess.
        about_all: The same for all members together: a swarm of thirty that starts at once; then
            one in four seconds, with which the log lasts as long. A guess.
    """

    of_each: Rate = field(default_factory=partial(Rate, 4, 0.1))
    lines: Rate = field(default_factory=partial(Rate, 16, 0.2))
    about_each: Rate = field(default_factory=partial(Rate, 8, 0.1))
    about_all: Rate = field(default_factory=partial(Rate, 64, 0.25))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The whole node.

    Attributes:
        name: What the owner calls it; at most 32 bytes of UTF-8.
        device: What it computes on, for people.
        software: The version of p2pnode that others are told; at most 24 bytes. Empty tells
            nothing, as in simulations, whose traffic must not change with a release.
        kv_bytes: Memory offered for KV caches and retained activations.
        max_memory: The most bytes of the main memory for weights and ``kv_bytes`` together, at
            least the latter; None for all that is free.
        announce_every: Seconds between two re-advertisements of changed speed or memory at the
            most, so that ads do not flood the gossip.
        old_ads: Seconds for which ads stay of version 1 once nobody is left who reads no other.
            Well above a restart; also bounds how often a member can make all say theirs anew.
        drain: Seconds that a leaving node lets the sessions of others go on; those that remain
            are failed by name, so that their requesters repair at once. 0 ends them at once. A
            guess: what a person who pressed Ctrl-C will wait.
        farewell: Seconds that a leaving node waits for its farewell to be acknowledged before it
            closes its sessions. At least the longest round trip and an acknowledgement's delay.
        farewells: Peers that are told reliably; gossip tells the rest. Bounds what leaving costs.
        key_shared_shown: Seconds for which a key in use twice is shown after it was told last; at
            least twice the time between two tellings. Those are of membership, every
            ``key_shared_told_every``; of the transport, whenever the copy calls, which it does at
            least every ``backoff_most``; of peers that hear those.
    """

    name: str
    device: str = "cpu"
    software: str = ""
    kv_bytes: int = 512 << 20
    max_memory: int | None = None
    announce_every: float = 2.0
    old_ads: float = 120.0
    drain: float = 10.0
    farewell: float = 1.0
    farewells: int = 32
    key_shared_shown: float = 600.0
    dialer: DialerConfig = field(default_factory=DialerConfig)
    transport: TransportConfig = field(default_factory=TransportConfig.lan)
    membership: MembershipConfig = field(default_factory=membership_lan)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    holdings: HoldingsConfig = field(default_factory=HoldingsConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    remarks: RemarkConfig = field(default_factory=RemarkConfig)
    rest: RestConfig = field(default_factory=RestConfig)
    programs: ProgramFramesConfig = field(default_factory=ProgramFramesConfig)

    def __post_init__(self) -> None:
        transport, membership, dialer = self.transport, self.membership, self.dialer
        round_trip = transport.initial_rtt + transport.ack_patience
        _require(
            "node",
            {
                "kv_bytes, drain and farewells are not negative": min(
                    self.kv_bytes, self.drain, self.farewells
                )
                >= 0,
                "max_memory is at least kv_bytes": self.max_memory is None
                or self.max_memory >= self.kv_bytes,
                "announce_every is positive": self.announce_every > 0,
                "old_ads is at least announce_every": self.old_ads >= self.announce_every,
                "farewell is at least a round trip and ack_patience": self.farewell >= round_trip,
                "redial is at least three round trips": dialer.redial >= 3 * transport.initial_rtt,
                "outcome_seconds is more than dial_timeout": dialer.outcome_seconds
                > transport.dial_timeout,
                "waiting_seconds is more than dial_timeout": self.outbox.waiting_seconds
                > transport.dial_timeout,
                "confirm is at least two gossip rounds": self.holdings.confirm
                >= 2 * membership.gossip_interval,
                "key_shared_shown is at least twice key_shared_told_every and backoff_most": (
                    self.key_shared_shown
                    >= 2 * max(membership.key_shared_told_every, dialer.backoff_most)
                ),
            },
        )

    @classmethod
    def wan(cls, name: str) -> "NodeConfig":
        """For machines anywhere: the patience of every layer, and what it asks of the others."""
        return cls(
            name,
            farewell=3.0,
            dialer=DialerConfig(redial=6.0, outcome_seconds=12.0),
            transport=TransportConfig.wan(),
            membership=membership_wan(),
            holdings=HoldingsConfig(settle=3.0, confirm=3.0),
            outbox=OutboxConfig(waiting_seconds=24.0),
        )


def _require(layer: str, rules: Mapping[str, bool]) -> None:
    """Refuse settings that break a rule.

    Raises:
        ConfigError: It says which.
    """
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise ConfigError(f"{layer} settings: {'; '.join(broken)}")
