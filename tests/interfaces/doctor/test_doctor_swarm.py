"""Why a peer does no work, told from made-up snapshots."""

from dataclasses import replace
from typing import Any

import pytest

from p2pnode.interfaces.doctor.findings import Finding
from p2pnode.interfaces.doctor.swarm import explain_node, explain_peer, explain_swarm
from p2pnode.interfaces.tui.example import lonely
from p2pnode.node.peer_snapshot import CalledView, PeerView
from p2pnode.node.snapshot import NodeSnapshot

SPACE = 0x6B1F09C2
HERE = replace(
    lonely(),
    state="serving",
    reason="chosen by its owner",
    model="smol",
    space_hash32=SPACE,
    n_layers=30,
    layers=(0, 10),
    missing_layers=((10, 30),),
)
WORKER = PeerView(
    node_id="ab" * 32,
    name="attic",
    state="serving",
    reason="",
    addresses=("192.0.2.7:4747",),
    connected=True,
    model="smol",
    space_hash32=SPACE,
    layers=(10, 30),
    decode_us=1000,
    kv_free_bytes=1 << 29,
    device="cpu",
    rtt_ms=0.4,
    loss=0.0,
    bytes_in=1,
    bytes_out=1,
    last_heard_s=0.1,
)


def swarm(*peers: PeerView, node: NodeSnapshot = HERE) -> list[Finding]:
    return list(explain_swarm(replace(node, peers=peers), 1536))


def of_peer(**changes: Any) -> Finding:
    finding = explain_peer(replace(WORKER, **changes), HERE, 1536)
    assert finding is not None
    return finding


def test_a_peer_that_works_is_no_finding() -> None:
    assert explain_peer(WORKER, HERE, 1536) is None


@pytest.mark.parametrize(
    ("changes", "said", "advised"),
    [
        (
            {
                "state": "seen",
                "reason": "no answer from 192.0.2.7:4747 within 5 s: nothing listens there, a "
                "firewall drops UDP, or its swarm secret differs from ours",
            },
            "a call to 192.0.2.7:4747 is not answered",
            "UDP port 4747 through its firewall",
        ),
        ({"state": "seen", "reason": "not tried yet"}, "no session is up", "wait some seconds"),
        (
            {"reason": "another embedding space: x is not our file", "space_hash32": 7},
            "from another file",
            "the very same file",
        ),
        ({"space_hash32": 7}, "from another file", "the very same file"),
        ({"state": "idle", "space_hash32": 0, "layers": (0, 0)}, "no model", "p2pnode up --model"),
        (
            {"state": "idle", "reason": "its ad cannot be read: it runs another version"},
            "another version",
            "same",
        ),
        ({"state": "suspect", "reason": "no answer", "loss": 0.4}, "40% of what", "sleeps"),
        ({"state": "dead", "reason": "suspected by attic"}, "is dead", "start it again"),
        ({"kv_free_bytes": 1 << 20}, "34 tokens in its 20 layers", "--kv-memory"),
        ({"connected": False}, "no session with it is up", "firewalls"),
        ({"state": "a state of tomorrow"}, "is a state of tomorrow", ""),
    ],
)
def test_one_that_does_no_work_is_explained(
    changes: dict[str, Any], said: str, advised: str
) -> None:
    finding = of_peer(**changes)
    assert finding.verdict == "warn"
    assert finding.what.startswith("attic ")
    assert said in finding.what
    assert advised in finding.advice


def test_strangers_share_one_line_and_worry_only_a_swarm_in_need() -> None:
    reason = "it belongs to another swarm (secrets differ)"
    stranger = replace(WORKER, state="seen", reason=reason, connected=False)
    other = replace(stranger, name="shed")
    [finding] = [one for one in swarm(stranger, other) if one.topic == "peer"]
    assert finding.verdict == "warn"
    assert finding.what.endswith("differs: attic, shed")
    assert "p2pnode join CODE" in finding.advice
    whole = replace(HERE, missing_layers=())
    assert {one.verdict for one in swarm(stranger, WORKER, node=whole)} == {"ok"}


@pytest.mark.parametrize("state", ["joining", "draining", "resting", "left"])
def test_what_passes_by_itself_is_no_warning(state: str) -> None:
    assert of_peer(state=state).verdict == "ok"


def test_missing_layers_name_those_who_could_fill_them() -> None:
    loading = replace(WORKER, name="tower", state="joining", layers=(10, 20))
    idle = replace(WORKER, name="guest", state="idle", layers=(0, 0), kv_free_bytes=0)
    gone = replace(WORKER, name="porch", state="dead", layers=(20, 30))
    lent = replace(
        WORKER, name="den", state="resting", reason="it has quiet hours", layers=(12, 15)
    )
    [layers] = [one for one in swarm(loading, idle, gone, lent) if one.topic == "layers"]
    assert layers.verdict == "warn"
    assert "[10, 30)" in layers.what
    assert "tower is loading [10, 20): wait" in layers.advice
    assert "guest holds none" in layers.advice
    assert "den rests with [12, 15): it has quiet hours" in layers.advice
    assert "porch had [20, 30): bring it back" in layers.advice
    assert "p2pnode up --layers 10:30" in layers.advice


def test_a_peer_of_another_space_fills_nothing() -> None:
    other = replace(WORKER, state="joining", space_hash32=7)
    [layers] = [one for one in swarm(other) if one.topic == "layers"]
    assert (
        layers.advice == "start another node: p2pnode up --layers 10:30 --state DIR --port 0"
    )  # beside the one that runs here


def test_nothing_missing_is_well() -> None:
    findings = swarm(WORKER, node=replace(HERE, missing_layers=()))
    assert {one.verdict for one in findings} == {"ok"}


def test_strangers_and_calls_in_vain_are_told_from_the_counters() -> None:
    node = replace(HERE, counters={"transport: handshake_wrong_secret": 3, "node: dial failed": 2})
    calls = [one for one in swarm(node=node) if one.topic == "calls"]
    assert [one.verdict for one in calls] == ["warn", "warn"]
    assert "another swarm's secret" in calls[0].what
    assert "swarm secret" in calls[1].advice


def test_a_node_that_hangs_is_told_from_one_that_starts() -> None:
    starting = replace(HERE, state="loading", uptime_s=1.0)
    assert explain_node(starting).verdict == "ok"
    assert explain_node(replace(starting, uptime_s=300.0)).verdict == "warn"


def test_a_node_without_a_model_is_told_what_it_could_do() -> None:
    finding = explain_node(lonely())
    assert finding.verdict == "ok"
    assert "--model" in finding.advice


def test_what_mdns_cannot_do_and_who_was_not_reached_is_said() -> None:
    node = replace(
        HERE,
        mdns_problem="mDNS works over IPv4 alone: no",
        called=(CalledView("kitchen.lan:4747", "unknown host 'kitchen.lan'"),),
    )
    found = {finding.topic: finding.what for finding in swarm(WORKER, node=node)}
    assert "IPv4 alone" in found["mdns"]
    assert "kitchen.lan:4747: unknown host" in found["calls"]


def test_doctor_says_who_computes_how() -> None:
    node = replace(HERE, numerics="numpy", missing_layers=())
    same, other = replace(WORKER, numerics="numpy"), replace(WORKER, name="shed", numerics="ggml")

    def said(*peers: PeerView) -> dict[str, str]:
        found = swarm(*peers, node=node)
        return {one.what: one.verdict for one in found if one.topic == "numerics"}

    assert said(same) == {"all compute as numpy": "ok"}
    [(mixed, verdict)] = said(same, other).items()
    assert verdict == "ok"
    assert mixed.endswith(f"2 ways: {node.name}, attic as numpy; shed as ggml")
    older = said(replace(WORKER, is_older=True))
    assert any("older p2pnode runs on attic" in what for what in older)
    assert "warn" in older.values()
    assert not any("older" in what for what in said(replace(WORKER, is_older=True, state="left")))
    plain = swarm(WORKER, node=replace(HERE, missing_layers=()))
    assert not [one for one in plain if one.topic == "numerics"]


def test_the_memory_of_a_peer_is_reckoned_as_its_engine_does() -> None:
    tight = replace(WORKER, kv_free_bytes=100 * 20 * 1536)
    assert explain_peer(tight, HERE, 1536) is not None
    assert explain_peer(replace(tight, kv_bytes_per_token_layer=64), HERE, 1536) is None
