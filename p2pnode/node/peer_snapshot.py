"""The other nodes in a node's picture: what they offer, how they are reached, who is trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from p2pnode.phrases import plural

_COARSER = ("i8", "q4", "q2")

GONE = ("dead", "left")
"""States of peers that were there and are no longer."""


@dataclass(frozen=True, slots=True)
class EdgeView:
    """How hidden states leave this node for one peer.

    Attributes:
        layer: The layer that they enter there.
        kind: ``prompt`` (batches of several positions) or ``token`` (single ones).
        coding: What the newest batch was sent as: ``f16``, ``i8``, ``q4`` or ``q2``.
        reason: Why that coding is in use.
        kl: Nats of KL divergence that the newest batch's coding cost, by estimate.
        bytes_saved: Bytes that f16 would have taken more; cumulative.
        steps_down: Steps to a coarser coding, by reason; cumulative.
        steps_up: Steps to a finer one, by reason; cumulative.
    """

    layer: int
    kind: str
    coding: str
    reason: str
    kl: float
    bytes_saved: int
    steps_down: Mapping[str, int]
    steps_up: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OfferView:
    """What a peer offers of one model.

    Attributes:
        model: Its name, as the peer says it.
        space_hash32: Its embedding space.
        n_layers: Layers the whole model has.
        layers: First layer held, and one past the last; (0, 0) when it holds none.
        decode_us: Microseconds that it says one token takes through them.
    """

    model: str
    space_hash32: int
    n_layers: int
    layers: tuple[int, int]
    decode_us: int = 0


@dataclass(frozen=True, slots=True)
class PeerView:
    """What this node knows of one other node.

    Attributes:
        node_id: Its ed25519 key, in hex.
        name: The name its owner gave it; not unique.
        state: ``serving``, ``joining``, ``draining``, ``idle`` (a member without layers),
            ``resting`` (computes for nobody else, for its owner's sake),
            ``suspect``, ``dead``, ``left``, or ``seen`` (announced, but no handshake succeeded).
        reason: Why it is in that state, in a few words; for a peer that does no work, why not.
        addresses: Where it says it can be reached, ``host:port``.
        connected: Whether a session of the transport is up.
        model: The model it serves; empty when it has none.
        space_hash32: The embedding space of that model, 0 for none.
        layers: First layer held, and one past the last; (0, 0) when it holds none.
        decode_us: Microseconds it says one token takes through all its layers.
        kv_free_bytes: Memory it has left for KV caches.
        device: What it computes on.
        rtt_ms: Smoothed round trip, milliseconds; None before the first measurement.
        loss: Share of our datagrams to it that were lost, 0 to 1, over the recent past.
        bytes_in: Bytes received from it, datagram payloads.
        bytes_out: Bytes sent to it.
        last_heard_s: Seconds since anything authenticated came from it; None for never.
        goodput: Bytes a second that our large messages to it reach; None before enough were sent.
        edges: How hidden states leave for it, where answers allow coarser than f16.
        gone_s: Seconds since it was found dead or left; None while it is there.
        numerics: How it computes: engine, version, kernels, type of the KV cache; empty if it does
            not say.
        kv_bytes_per_token_layer: What a position takes there in a layer; 0 if it does not say.
        is_older: Whether its p2pnode reads no ads but those of version 1, so that all write those.
        software: The version of p2pnode that it says it runs; empty if it does not say, as one of
            before it could, or one whose ad is of version 1.
        queued: Bytes that wait here to be sent to it, and are not on their way yet, by class:
            ``think``, ``sync``, ``prompt``, ``replay``, ``gossip``, ``ask``, ``cache``,
            ``weights``; of what is empty nothing.
        offers: Of each of its models; the one that ``model`` and ``layers`` are of comes first.
    """

    node_id: str
    name: str
    state: str
    reason: str
    addresses: tuple[str, ...]
    connected: bool
    model: str
    space_hash32: int
    layers: tuple[int, int]
    decode_us: int
    kv_free_bytes: int
    device: str
    rtt_ms: float | None
    loss: float
    bytes_in: int
    bytes_out: int
    last_heard_s: float | None
    goodput: float | None = None
    edges: tuple[EdgeView, ...] = ()
    gone_s: float | None = None
    numerics: str = ""
    kv_bytes_per_token_layer: int = 0
    is_older: bool = False
    software: str = ""
    queued: Mapping[str, int] = field(default_factory=dict)
    offers: tuple[OfferView, ...] = ()

    @property
    def is_gone(self) -> bool:
        """Whether it died or left: it is shown for a while, and not counted."""
        return self.state in GONE

    @property
    def sends(self) -> str:
        """The coarsest coding that hidden states leave for it in now; empty for f16 and f32."""
        coarse = [edge.coding for edge in self.edges if edge.coding in _COARSER]
        return max(coarse, key=_COARSER.index, default="")


@dataclass(frozen=True, slots=True)
class CalledView:
    """An address or a host name given by hand at which nobody of the swarm was reached.

    Attributes:
        address: As a person gave it, ``host:port``; of a name that could be looked up, each of its
            addresses.
        reason: Why nobody was reached.
    """

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrustView:
    """What the ledger of trust holds of one peer that has worked for us, or failed to.

    Attributes:
        peer: Its ed25519 key, in hex.
        name: Its name, or the head of its key.
        kind: What weighs most against it: ``dead``, ``slow``, ``lying``; empty for nothing.
        offences: How often it did what.
        evidence: What was seen of the latest, newest first.
        avoided_s: Seconds until it is planned again; 0 if it may be.
        reason: Why it is avoided, as a clause; empty if it is not.
        factor: What its price is multiplied by for what it did.
        proven: Whether it has computed enough of our tokens to be believed at its word.
        layer_us: Its observed speed, microseconds a token and layer; None if none is known.
    """

    peer: str
    name: str
    kind: str
    offences: Mapping[str, int]
    evidence: tuple[str, ...]
    avoided_s: float
    reason: str
    factor: float
    proven: bool
    layer_us: float | None


def counted(peers: Sequence[PeerView]) -> str:
    """Return how many peers there are, e.g. ``3 peers, 1 gone``: who is gone is not counted."""
    gone = sum(peer.is_gone for peer in peers)
    seen = sum(peer.state == "seen" for peer in peers)
    here = len(peers) - gone - seen
    parts = [plural(here, "peer")]
    parts += [f"{count} {word}" for count, word in ((gone, "gone"), (seen, "only seen")) if count]
    return ", ".join(parts)
