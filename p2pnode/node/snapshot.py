"""One frozen picture of a node: the only thing that faces read.

The TUI, the CLI and any HTTP face show this same picture. It holds numbers and texts alone, so it
travels as JSON: :mod:`p2pnode.node.snapshot_json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from p2pnode.node.peer_snapshot import CalledView, PeerView, TrustView


@dataclass(frozen=True, slots=True)
class TrafficView:
    """Totals since start of one kind of traffic.

    Attributes:
        kind: ``think``, ``cache``, ``ask``, ``sync``, ``critique`` (V-Frames), ``gossip``
            (membership), or ``transport`` (handshakes, acknowledgements, parity, probes).
        frames_in: Frames (for ``transport``: datagrams) received.
        frames_out: Frames sent.
        bytes_in: Bytes received.
        bytes_out: Bytes sent.
    """

    kind: str
    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class GenerationView:
    """One answer this node asked for.

    Attributes:
        generation: Its number on this node.
        state: ``opening``, ``running``, ``repairing``, ``finished``, ``failed``, ``cancelled``.
        prompt_tokens: Tokens in the prompt.
        tokens: Tokens produced so far.
        epoch: How often the chain was opened anew: after a loss, or to ask how far a late one is.
        chain: The stages in order, e.g. ``kitchen [0, 10)``.
        tokens_per_s: Over the tokens so far; 0 before the second.
        reason: Why it failed or is being repaired; empty otherwise.
        activations: How its hidden states may travel: ``f32``, another coding, or ``auto``.
        codings: Those in which they did so far, where they may be coded; else empty.
        lost: Whose place is not taken yet, e.g. ``kitchen [10, 20)``.
        awaits: Runs of layers that it waits for, since nobody serves them.
        awaits_s: Seconds until it fails for want of them.
        numerics_changed: Why it is no longer bit-reproducible, since whoever took over from a lost
            stage computes otherwise; empty while it is.
        reused: Positions of the prompt that every stage held from an earlier answer.
    """

    generation: int
    state: str
    prompt_tokens: int
    tokens: int
    epoch: int
    chain: tuple[str, ...]
    tokens_per_s: float
    reason: str
    activations: str = "f32"
    codings: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    awaits: tuple[tuple[int, int], ...] = ()
    awaits_s: float = 0.0
    numerics_changed: str = ""
    reused: int = 0


@dataclass(frozen=True, slots=True)
class StageView:
    """One session this node runs layers for, on behalf of a requester.

    Attributes:
        requester: Name or hex prefix of the node that asked.
        layers: First layer, and one past the last.
        positions: Tokens in its KV cache.
        epoch: The chain's epoch it works in.
        kv_bytes: Memory reserved for it.
        tokens_per_s: Positions a second since it was admitted, those of the prompt included.
    """

    requester: str
    layers: tuple[int, int]
    positions: int
    epoch: int
    kv_bytes: int
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model of this node.

    Attributes:
        name: What it is called, with its root where another here has the same name.
        root: The root over its tensors, in hex.
        space_hash32: Its embedding space.
        n_layers: Layers the whole model has.
        layers: The run held here, (0, 0) for none.
        state: ``serving``, ``listening``, ``claiming``, ``loading``, ``idle`` (none is held, for
            the reason given) or ``unloading``.
        reason: Why it is in that state.
        decode_us: Microseconds a token takes through the layers held, measured.
        numerics: How it is computed; empty while no layers are held.
        sessions: Sessions of others that it serves here.
        answers: Answers of it under way that were asked for here.
        missing_layers: Runs of its layers that no live peer serves.
    """

    name: str
    root: str
    space_hash32: int
    n_layers: int
    layers: tuple[int, int]
    state: str
    reason: str
    decode_us: int = 0
    numerics: str = ""
    sessions: int = 0
    answers: int = 0
    missing_layers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineView:
    """How this node's engine is kept busy; the means are of the newest 64 steps.

    Attributes:
        waiting: Sessions that have something for it, and wait.
        steps: What it computed at once, so many times; cumulative.
        mean_sessions: Sessions in a step.
        mean_rows: Rows in a step: a token has one, a batch of a prompt has many.
        queued_ms: Milliseconds from a session's input to the beginning of its step.
        longest_queued_ms: The longest of those.
    """

    waiting: int = 0
    steps: int = 0
    mean_sessions: float = 0.0
    mean_rows: float = 0.0
    queued_ms: float = 0.0
    longest_queued_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The whole picture.

    Attributes:
        node_id: This node's key in hex.
        name: This node's name.
        state: ``joining``, ``loading``, ``serving``, ``idle`` (no layers), ``draining``, or
            ``resting``: it steps back for its owner, and computes for nobody else.
        reason: Why it is in that state.
        uptime_s: Seconds since it started.
        listening: Where its socket is bound, ``host:port``.
        swarm_tag: A hash that names the swarm and reveals nothing of its secret.
        model: Its model's name; empty without one.
        space_hash32: The model's embedding space, 0 for none.
        n_layers: Layers the whole model has.
        layers: The run of layers held here, (0, 0) for none.
        device: What it computes on.
        decode_us: Microseconds a token takes through the layers held, measured.
        kv_used_bytes: KV memory reserved by sessions.
        kv_total_bytes: KV memory this node offers.
        kept_bytes: KV memory of sessions that are over, kept for those that begin alike; it gives
            way to live ones, and is none of ``kv_used_bytes``.
        kept_caches: How many such sessions.
        missing_layers: Runs of layers that no live peer serves.
        peers: Every other node known.
        traffic: Totals by kind.
        generations: Answers asked for here, newest last; the finished ones fade out.
        stages: Sessions served here.
        counters: Everything dropped, refused, retried or repaired, by reason; cumulative.
        loop_late_ms: Lateness of the event loop's timer over the last minute: p50, p99.
        receive_buffer_bytes: What the operating system granted the socket.
        log: The newest noteworthy lines, oldest first.
        log_times: When each of them was noted, ``hh:mm:ss`` of the node's local time.
        called: Addresses and names given by hand at which nobody was reached.
        reachable: Where others can reach this node, the likeliest first.
        mdns_problem: What of mDNS does not work; empty while all of it does.
        trust: The ledger: whom we distrust, for what, how long; the most distrusted first.
        strangers_believed_in_s: Seconds until the promises of strangers count again, at least.
        strangers_believed_in_tokens: Tokens computed for this node before that; both are 0 if they
            count.
        pid: Its process on its machine; 0 if that is unknown.
        numerics: How it computes: engine, version, kernels, type of the KV cache; empty while it
            holds no layers.
        software: The version of p2pnode that it runs; empty from an older node.
        cores: ``compiled`` or ``pure``, and why where they fell back; empty from an older node.
        owners_cpu: Share of all cores, 0 to 1, that the owner's programs use; None where nobody
            looks, since the node was not told to step back for them.
        limits: What its owner said that it may take, each in words: ``memory 4.0 GB``.
        engine: How its engine is kept busy; zeros from an older node.
        models: All its models; what this picture says of "the model" is of the first. Empty from an
            older node.
    """

    node_id: str
    name: str
    state: str
    reason: str
    uptime_s: float
    listening: tuple[str, ...]
    swarm_tag: str
    model: str
    space_hash32: int
    n_layers: int
    layers: tuple[int, int]
    device: str
    decode_us: int
    kv_used_bytes: int
    kv_total_bytes: int
    missing_layers: tuple[tuple[int, int], ...]
    peers: tuple[PeerView, ...]
    traffic: tuple[TrafficView, ...]
    generations: tuple[GenerationView, ...]
    stages: tuple[StageView, ...]
    counters: Mapping[str, int]
    loop_late_ms: tuple[float, float]
    receive_buffer_bytes: int
    log: tuple[str, ...]
    called: tuple[CalledView, ...] = ()
    reachable: tuple[str, ...] = ()
    mdns_problem: str = ""
    trust: tuple[TrustView, ...] = ()
    strangers_believed_in_s: float = 0.0
    strangers_believed_in_tokens: int = 0
    pid: int = 0
    log_times: tuple[str, ...] = ()
    numerics: str = ""
    cores: str = ""
    owners_cpu: float | None = None
    limits: tuple[str, ...] = ()
    software: str = ""
    engine: EngineView = EngineView()
    models: tuple[ModelView, ...] = ()
    kept_bytes: int = 0
    kept_caches: int = 0


def ways(picture: NodeSnapshot) -> dict[str, tuple[str, ...]]:
    """Return the names of those who serve the node's model, by how they compute."""
    found: dict[str, tuple[str, ...]] = {}
    if picture.numerics and picture.layers[1]:
        found[picture.numerics] = (picture.name,)
    for peer in picture.peers:
        serves = peer.state == "serving" and peer.layers[1] > peer.layers[0]
        if serves and peer.space_hash32 == picture.space_hash32:
            found[peer.numerics] = (*found.get(peer.numerics, ()), peer.name)
    return found


def lacking(picture: NodeSnapshot) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    """Return the node's models of which nobody alive serves some layers: each, and which."""
    if not picture.models:  # an older node, or one without a model
        return [(picture.model, picture.missing_layers)] if picture.missing_layers else []
    return [(one.name, one.missing_layers) for one in picture.models if one.missing_layers]


def other_versions(picture: NodeSnapshot) -> dict[str, tuple[str, ...]]:
    """Return the names of the members that do not say that they run this node's version.

    They are listed by the version that they say; those that say none are under an empty one.
    """
    found: dict[str, tuple[str, ...]] = {}
    for peer in picture.peers:
        is_member = not peer.is_gone and peer.state != "seen"
        if picture.software and is_member and peer.software != picture.software:
            found[peer.software] = (*found.get(peer.software, ()), peer.name)
    return found
