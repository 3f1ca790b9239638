"""Everything about the transport that someone may want to turn, and in which direction."""

from dataclasses import dataclass, replace

from p2pnode.errors import ConfigError

BASE_DATAGRAM = 1200
"""UDP payload that every path carries: RFC 9000, section 14.1."""

MAX_DATAGRAM = 65507
"""The largest UDP payload over IPv4."""


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """How one endpoint behaves; times are in seconds, sizes in bytes.

    Take a preset (:meth:`lan`, :meth:`wan`, :meth:`simulation`) and :func:`dataclasses.replace`
    what differs. The two ends of a connection need not agree on anything here.
    """

    max_datagram: int = 16384
    """Largest UDP payload to try and to receive, found by probing upward from 1200.

    At least 1200, at most 65507. The socket must forbid IP fragmentation and its receive buffer
    must hold many of these. 16384 (loopback) is a guess between fewer system calls and the share
    of a receive buffer that one datagram takes.
    """

    fec: bool = True
    """Whether latency messages carry parity when loss is measured. False only to compare."""

    fast_path: bool = True
    """Whether messages of up to four shards take the fast path where nothing is lost and nothing
    waits. False only to compare: what is sent and told is the same, byte for byte."""

    fec_max_overhead: float = 1.0
    """Most parity shards per data shard, 0 to 4; at least 2 are allowed. A guess: beyond 1.0
    retransmission is cheaper."""

    fec_least_loss: float = 0.003
    """Measured loss below which no parity is sent at all. A guess: loss-free LANs stay there, so
    FEC costs them nothing."""

    initial_rtt: float = 0.05
    """Round trip assumed before the handshake has measured one. RFC 9002 takes 0.333."""

    max_ack_delay: float = 0.005
    """Longest wait for something to carry an acknowledgement along, at most a quarter of
    ``silence``. RFC 9000 takes 0.025; a chain of stages answers faster."""

    ack_patience: float = 0.025
    """How late an acknowledgement may be on a path that lost nothing for long, at least
    ``max_ack_delay`` and at most a quarter of ``silence``. There a message asks for none at once,
    so that a stage which has got its work need not answer before it begins; a packet lost all the
    same is repaired that much later. RFC 9000's max_ack_delay, 0.025."""

    ack_every: int = 8
    """Packets after which an acknowledgement no longer waits. RFC 9000 takes 2; fewer
    acknowledgements cost Python less, and the first window is wider than this."""

    reorder_tolerance: float = 0.001
    """Least time by which a packet may be overtaken before it is taken for lost. RFC 9002's
    timer granularity, 0.001."""

    pto_max: float = 0.25
    """Longest pause between retransmissions into silence; a fraction of ``silence``, so several
    are tried before the peer is called unresponsive. A guess."""

    silence: float = 1.0
    """In-flight data unacknowledged for so long makes the peer unresponsive. Several ``pto_max``,
    below ``idle_timeout``."""

    idle_timeout: float = 10.0
    """A peer unheard, or unacknowledging, for so long is disconnected."""

    keepalive: float = 5.0
    """A peer unheard for so long is pinged (for 1.2 times as long, by the side that was dialled);
    1.2 times this and ``silence`` are below ``idle_timeout``."""

    dial_timeout: float = 5.0
    """A handshake unfinished for so long has failed. WireGuard: 5 s a try."""

    dial_retry: float = 0.25
    """First pause before a handshake message is repeated; each further pause is twice as long."""

    handshake_rate: int = 50
    """Handshakes a second answered without a cookie. One costs the responder about 0.3 ms, so
    50 are 1.5 % of a core. A guess."""

    max_half_open: int = 256
    """Handshakes we answered that may wait to be finished at once. A guess."""

    max_peers: int = 1024
    """Connections at once; a handshake beyond them gets silence."""

    initial_window: int = 64 * 1024
    """First congestion window: one whole message. RFC 9002 takes 14,720."""

    minimum_window: int = 24 * 1024
    """The congestion window never falls below this. On a lossy Wi-Fi, where loss says little about
    queues, it lets a message of 8 KiB and its parity leave at once; 2 ms of 100 Mb/s."""

    background_delay: float = 0.01
    """How long a queue on the way BACKGROUND messages may fill, above 0: so much later is a token
    beside them. RFC 6817 allows 0.1; a guess between a busy peer's jitter, a few milliseconds, and
    what is felt."""

    pacing_burst: int = 64 * 1024
    """Bytes that may leave back to back. Timers are 1 ms grained, so pacing is in batches."""

    max_unproven: int = 256
    """Connections at once with keys that never did anything yet; a quarter of ``max_peers``. More
    than that start at one moment only in simulations. A guess."""

    max_unproven_per_address: int = 64
    """Of them, from one IPv4 address or IPv6 /64: a machine with many nodes, a house behind one
    router. A guess."""

    newcomers_per_second: float = 10.0
    """New connections a second with such keys, after a burst of ``max_unproven``. A guess; 43 a
    second filled tables in an attack."""

    newcomers_per_second_per_address: float = 2.0
    """Of them, from one address, after a burst of ``max_unproven_per_address``. A guess."""

    rival_patience: float = 0.25
    """How long a connection is given to show that it lives, when its key comes from another process
    too; at least three round trips, and ``ack_patience`` more. So much later a node that was killed
    and started anew at another address is taken. A guess."""

    proven_after: float = 10.0
    """Age from which a connection whose peer acknowledged a message proves its key; at least
    ``keepalive``, for that is how often it is looked at. A guess: long enough that keys cannot be
    proved by the hundred, short enough for a machine that has just joined."""

    reassembly_bytes: int = 16 * 1024 * 1024
    """Memory one peer's unfinished messages may take here; at least one message, 128 KiB."""

    reassembly_total_bytes: int = 80 * 1024 * 1024
    """Memory those of all proven peers may take. Nobody gets more than a quarter of what is still
    free of it, so five times ``reassembly_bytes`` lets one peer have that."""

    partial_idle: float = 60.0
    """An unfinished message of which nothing came for so long is forgotten. Many times ``pto_max``,
    since a sender repeats what is missing; behind much that is more urgent it may pause."""

    send_queue_bytes: int = 48 * 1024 * 1024
    """Memory that messages to one peer may take until it acknowledges them; see
    ``Endpoint.room``."""

    send_queue_total_bytes: int = 240 * 1024 * 1024
    """Memory those to all proven peers may take, divided as ``reassembly_total_bytes`` is."""

    mute_queue_bytes: int = 4 * 1024 * 1024
    """As ``send_queue_bytes``, for a peer that acknowledged no message yet, or none for
    ``silence``. A guess: what a stage is fed before its first acknowledgement can be back."""

    unproven_bytes: int = 16 * 1024 * 1024
    """Memory that messages to all unproven peers may take, and as much again for unfinished ones of
    theirs, divided likewise. A guess: ten that take all they can leave 1.7 MiB for the next."""

    rekey_seconds: float = 120.0
    """Age at which a sending key is replaced. WireGuard: 120."""

    rekey_packets: int = 1 << 24
    """Packets after which a sending key is replaced; far below any limit of the cipher, at
    least 1024 so that the peer cannot miss a whole key."""

    path_raise: float = 600.0
    """Pause before a larger datagram is tried again. RFC 8899, section 5.1.1: 600."""

    def __post_init__(self) -> None:
        rules = {
            "max_datagram lies in 1200..65507": BASE_DATAGRAM <= self.max_datagram <= MAX_DATAGRAM,
            "fec_max_overhead lies in 0..4": 0 <= self.fec_max_overhead <= 4,
            "pto_max is at most silence": 0 < self.pto_max <= self.silence,
            "max_ack_delay is at most a quarter of silence": 0
            <= self.max_ack_delay
            <= self.silence / 4,
            "1.2 keepalive + silence is below idle_timeout": 1.2 * self.keepalive + self.silence
            < self.idle_timeout,
            "ack_patience lies between max_ack_delay and a quarter of silence": self.max_ack_delay
            <= self.ack_patience
            <= self.silence / 4,
            "rekey_packets is at least 1024": self.rekey_packets >= 1024,
            "windows hold ten base datagrams": 10 * BASE_DATAGRAM
            <= self.minimum_window
            <= self.initial_window,
            "reassembly_bytes, send_queue_bytes and mute_queue_bytes hold a message": min(
                self.reassembly_bytes, self.send_queue_bytes, self.mute_queue_bytes
            )
            >= 128 * 1024,
            "totals hold ten messages": min(
                self.reassembly_total_bytes, self.send_queue_total_bytes, self.unproven_bytes
            )
            >= 1280 * 1024,
            "proven_after is at least keepalive": self.proven_after >= self.keepalive,
            "counts are positive": min(
                self.ack_every,
                self.handshake_rate,
                self.max_half_open,
                self.max_peers,
                self.max_unproven,
                self.max_unproven_per_address,
            )
            >= 1,
            "times are positive": min(
                self.initial_rtt,
                self.dial_timeout,
                self.dial_retry,
                self.rekey_seconds,
                self.partial_idle,
                self.background_delay,
                self.rival_patience,
                self.newcomers_per_second,
                self.newcomers_per_second_per_address,
            )
            > 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError(f"transport settings: {'; '.join(broken)}")

    @classmethod
    def lan(cls) -> "TransportConfig":
        """For machines in one house: quick to notice, quick to repair."""
        return cls()

    @classmethod
    def wan(cls) -> "TransportConfig":
        """For machines anywhere: patient, and gentle on queues."""
        return cls(
            max_datagram=1472,
            initial_rtt=0.2,
            max_ack_delay=0.01,
            ack_patience=0.05,
            pto_max=1.0,
            silence=3.0,
            idle_timeout=30.0,
            keepalive=10.0,
            dial_timeout=10.0,
            dial_retry=0.5,
            initial_window=24 * 1024,
            minimum_window=12 * 1024,
            pacing_burst=24 * 1024,
        )

    @classmethod
    def simulation(cls) -> "TransportConfig":
        """As :meth:`lan`, with an Ethernet's datagrams."""
        return replace(cls.lan(), max_datagram=1472)
