"""A made-up swarm, to look at the screen without a node: for the docs' picture and the tests."""

from collections.abc import Iterator
from random import Random
from typing import TypeAlias

from p2pnode.node.peer_snapshot import GONE, PeerView
from p2pnode.node.snapshot import GenerationView, NodeSnapshot, StageView, TrafficView

MODEL, SPACE, N_LAYERS = "SmolLM2-135M-Instruct Q4_K_M", 0x6B1F09C2, 30
MIB = 1 << 20

_Row: TypeAlias = tuple[
    str, str, str, tuple[int, int], float, float | None, float, str, float | None
]

_HOUSE: tuple[_Row, ...] = (
    ("attic", "serving", "", (10, 20), 14.2, 0.8, 0.0, "cpu x4", 0.2),
    ("cellar", "serving", "", (20, 30), 9.6, 1.9, 0.004, "cpu x8", 0.1),
    ("garden-shed", "serving", "", (0, 15), 31.5, 12.4, 0.061, "cpu x2", 0.4),
    ("library", "draining", "its owner stops it", (15, 22), 8.8, 3.1, 0.0, "cpu x16", 0.3),
    ("tower", "joining", "loading layers: 62%", (22, 30), 0.0, 4.0, 0.0, "cpu x4", 0.6),
    (
        "porch",
        "suspect",
        "no answer to a probe for 1.2 s",
        (0, 10),
        12.9,
        48.0,
        0.31,
        "cpu x2",
        1.9,
    ),
    ("guest-laptop", "idle", "4 layers of memory, 6 needed", (0, 0), 0.0, 7.7, 0.0, "cpu x2", 0.9),
    (
        "boathouse",
        "dead",
        "suspected by attic, not refuted",
        (5, 12),
        20.0,
        None,
        1.0,
        "cpu x4",
        97.0,
    ),
    ("", "seen", "announced, but no handshake succeeded", (0, 0), 0.0, None, 0.0, "", None),
)
_SHARES = {
    # kind: frames a second in and out, bytes a frame
    "think": (14.0, 14.0, 1240),
    "cache": (0.4, 0.3, 22_000),
    "ask": (0.2, 0.3, 310),
    "sync": (0.5, 0.5, 420),
    "critique": (0.0, 0.0, 0),
    "gossip": (6.0, 6.5, 210),
    "transport": (31.0, 29.0, 64),
}


def minute(seed: int = 7, *, step: float = 0.5) -> Iterator[NodeSnapshot]:
    """Yield the snapshots of one minute of a swarm that answers prompts together."""
    rng = Random(seed)
    totals = {kind: [9000.0, 8700.0] for kind in _SHARES}
    steps = round(62 / step)
    for index in range(steps + 1):
        busy = 0.15 if index * step % 23 < 5 else rng.uniform(0.7, 1.3)
        for kind, (frames_in, frames_out, _) in _SHARES.items():
            pace = busy if kind in ("think", "transport", "cache") else rng.uniform(0.5, 1.5)
            totals[kind][0] += frames_in * pace * step
            totals[kind][1] += frames_out * pace * step
        yield _node(11_400 + index * step, (steps - index) * step, totals)


def crowd(size: int, seed: int = 7) -> NodeSnapshot:
    """Return a node that knows ``size`` peers of every state, each with three layers or none."""
    rng = Random(seed)
    rows = tuple(_stranger(number, rng) for number in range(size))
    return _node(500.0, 0.0, {kind: [100.0, 100.0] for kind in _SHARES}, rows)


def lonely() -> NodeSnapshot:
    """Return a node that was just started: no model, no peers, nothing done."""
    return NodeSnapshot(
        node_id="3f9a1c2e" * 8,
        name="kitchen",
        state="idle",
        reason="no model was given",
        uptime_s=1.0,
        listening=("0.0.0.0:4433",),
        swarm_tag="c4e1aa07",
        model="",
        space_hash32=0,
        n_layers=0,
        layers=(0, 0),
        device="cpu x4",
        decode_us=0,
        kv_used_bytes=0,
        kv_total_bytes=0,
        missing_layers=(),
        peers=(),
        traffic=(),
        generations=(),
        stages=(),
        counters={},
        loop_late_ms=(0.0, 0.0),
        receive_buffer_bytes=425_984,
        log=(),
    )


def _node(
    uptime: float,
    left: float,
    totals: dict[str, list[float]],
    rows: tuple[_Row, ...] = _HOUSE,
) -> NodeSnapshot:
    done = max(0, int(148 - 7.4 * left))
    return NodeSnapshot(
        node_id="3f9a1c2e" * 8,
        name="kitchen",
        state="serving",
        reason="",
        uptime_s=uptime,
        listening=("0.0.0.0:4433",),
        swarm_tag="c4e1aa07",
        model=MODEL,
        space_hash32=SPACE,
        n_layers=N_LAYERS,
        layers=(0, 10),
        device="cpu x4",
        decode_us=12_100,
        kv_used_bytes=86 * MIB,
        kv_total_bytes=512 * MIB,
        missing_layers=(),
        peers=tuple(_peer(number, row, totals) for number, row in enumerate(rows)),
        traffic=tuple(
            TrafficView(kind, int(i), int(o), int(i) * _SHARES[kind][2], int(o) * _SHARES[kind][2])
            for kind, (i, o) in totals.items()
        ),
        generations=_generations(done),
        stages=(
            StageView("cellar", (0, 10), 212 + done, 0, 34 * MIB, 8.2),
            StageView("guest-laptop", (0, 10), 41, 1, 12 * MIB, 3.4),
        ),
        counters=_counters(left),
        loop_late_ms=(0.3, 4.2),
        receive_buffer_bytes=425_984,
        log=tuple(line for _, line in _LOG),
        log_times=tuple(clock for clock, _ in _LOG),
        pid=4711,
    )


def _stranger(number: int, rng: Random) -> _Row:
    state = rng.choice(("serving", "serving", "serving", "joining", "idle", "suspect", "dead"))
    first = rng.randrange(0, N_LAYERS, 3)
    layers = (0, 0) if state == "idle" else (first, first + 3)
    reason = "no memory left for a layer" if state == "idle" else ""
    speed, rtt, loss = rng.uniform(5, 30), rng.uniform(0.5, 90), rng.random() ** 6
    heard = rng.uniform(0, 3)
    return (f"peer-{number:02}", state, reason, layers, speed, rtt, loss, "cpu x4", heard)


def _peer(
    number: int,
    row: _Row,
    totals: dict[str, list[float]],
) -> PeerView:
    name, state, reason, layers, ms, rtt, loss, device, heard = row
    connected = state not in ("dead", "seen", "left")
    weight = 1 / (number + 2) if connected else 0.0
    frames_in, frames_out = totals["think"]
    return PeerView(
        node_id=f"{(number + 11) * 0x9E3779B1 % 2**32:08x}" * 8,
        name=name,
        state=state,
        reason=reason,
        addresses=(f"192.168.1.{20 + number}:4433",),
        connected=connected,
        model=MODEL if layers[1] else "",
        space_hash32=SPACE if layers[1] else 0,
        layers=layers,
        decode_us=int(ms * 1000),
        kv_free_bytes=(64 + 96 * number) * MIB,
        device=device,
        rtt_ms=rtt,
        loss=loss,
        bytes_in=int(frames_in * 1400 * weight),
        bytes_out=int(frames_out * 1350 * weight),
        last_heard_s=heard,
        gone_s=heard if state in GONE else None,
    )


def _generations(done: int) -> tuple[GenerationView, ...]:
    chain = ("kitchen [0, 10)", "attic [10, 20)", "cellar [20, 30)")
    return (
        GenerationView(16, "finished", 212, 96, 0, chain, 7.9, ""),
        GenerationView(17, "failed", 18, 0, 0, (), 0.0, "layers [20, 30) were held by nobody"),
        GenerationView(18, "running", 64, done, 1, chain, 7.4, ""),
        GenerationView(
            19,
            "repairing",
            30,
            11,
            1,
            ("garden-shed [0, 15)", "library [15, 22)"),
            3.1,
            "leaving the swarm",
            lost=("library [15, 22)",),
            awaits=((15, 22),),
            awaits_s=17.0,
        ),
    )


def _counters(left: float) -> dict[str, int]:
    return {
        "datagram: not of this swarm": 12,
        "datagram: replayed": 3,
        "datagram: truncated": 0,
        "fec: recovered without a resend": 418 - int(left / 2),
        "frame: unknown type": 1,
        "gossip: stale incarnation": 57,
        "handshake: refused, retry cookie asked": 2,
        "repair: chain rebuilt": 2 - (left > 4),
        "resend: timer": 23,
        "session: refused, KV is full": 1,
    }


_LOG = (
    ("14:02:12", "attic joined the swarm"),
    ("14:02:12", "cellar joined the swarm"),
    ("14:02:12", "loads layers [0, 10): nobody else holds [0, 10)"),
    ("14:02:14", f"serves layers [0, 10) of {MODEL} (nobody else holds [0, 10)); complete"),
    ("14:05:40", "garden-shed joined the swarm"),
    ("17:10:03", "boathouse is suspected: no answer to 3 pings"),
    ("17:10:06", "boathouse is gone: dead: no answer to 3 pings; did not refute it"),
    ("17:12:18", "answer 17 failed: no peer serves layers [20, 30)"),
    ("17:12:31", "answer 18 goes on after 210 ms: cellar [20, 30) took over"),
    ("17:12:41", "porch is suspected: no answer to 3 pings"),
    ("17:12:43", "answer 19 lost library [15, 22) (leaving the swarm); looks for others, 20 s"),
)
