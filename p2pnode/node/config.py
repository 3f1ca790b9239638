"""A node's settings: one frozen value, composed of those of its layers."""

from dataclasses import dataclass, field

from p2pnode.errors import ConfigError
from p2pnode.inference.config import InferenceConfig
from p2pnode.membership.config import MembershipConfig, lan as membership_lan
from p2pnode.scheduler.offences import TrustConfig
from p2pnode.transport.config import TransportConfig


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
    """

    layers: range | None = None
    max_layers: int | None = None
    settle: float = 0.8
    jitter: float = 0.4
    confirm: float = 0.6
    review: float = 5.0


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
        if not 0 < self.idle <= self.confirm <= self.longest:
            raise ConfigError("idle, confirm and longest are positive, and none is below the last")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The whole node.

    Attributes:
        name: What the owner calls it; at most 32 bytes of UTF-8.
        device: What it computes on, for people.
        kv_bytes: Memory offered for KV caches and retained activations.
        announce_every: Seconds between two re-advertisements of changed speed or memory at the
            most, so that ads do not flood the gossip.
        redial: Seconds between two attempts to reach an announced or remembered peer.
        drain: Seconds that a leaving node lets the sessions of others go on; those that remain
            are failed by name, so that their requesters repair at once. 0 ends them at once. A
            guess: what a person who pressed Ctrl-C will wait.
        farewell: Seconds that a leaving node waits for its farewell to be acknowledged before it
            closes its sessions. At least the longest round trip and an acknowledgement's delay.
        farewells: Peers that are told reliably; gossip tells the rest. Bounds what leaving costs.
    """

    name: str
    device: str = "cpu"
    kv_bytes: int = 512 << 20
    announce_every: float = 2.0
    redial: float = 3.0
    drain: float = 10.0
    farewell: float = 1.0
    farewells: int = 32
    transport: TransportConfig = field(default_factory=TransportConfig.lan)
    membership: MembershipConfig = field(default_factory=membership_lan)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    holdings: HoldingsConfig = field(default_factory=HoldingsConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
