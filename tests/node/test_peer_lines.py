"""Members come, go and ask by the thousand: the log and its file stay readable."""

from collections import Counter
from collections.abc import Callable

import pytest

from p2pnode.inference.events import InferenceEvent, SessionRefused, StageEnded
from p2pnode.membership.events import (
    KeyShared,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MembershipEvent,
)
from p2pnode.membership.records import Record
from p2pnode.node.config import RemarkConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.events import Noted
from p2pnode.node.peer_lines import PeerLines
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.events import (
    KeyUsedTwice,
    PathTooSmall,
    PeerConnected,
    PeerDisconnected,
    PeerUnresponsive,
    TransportEvent,
)

ADDRESS = ("10.0.0.1", 4747)
SECONDS = 600
CONFIG = RemarkConfig()
MOST = CONFIG.about_all.burst + CONFIG.about_all.per_second * SECONDS
MOST_OF_ONE = CONFIG.about_each.burst + CONFIG.about_each.per_second * SECONDS

Cause = Callable[[NodeCore, NodeId, float], None]


def transport(event: Callable[[NodeId], TransportEvent]) -> Cause:
    return lambda node, peer, now: node._wiring._on_transport(event(peer), now)


def membership(event: Callable[[NodeId], MembershipEvent]) -> Cause:
    return lambda node, peer, now: node._wiring._on_membership(event(peer), now)


def inference(event: Callable[[NodeId], InferenceEvent]) -> Cause:
    return lambda node, peer, now: node._wiring._on_inference(event(peer), now)


def joined(peer: NodeId) -> MemberJoined:
    return MemberJoined(Record(peer, 1, 1, (ADDRESS,), b""))


CAUSES = {
    "joined": membership(joined),
    "died": membership(lambda peer: MemberDied(peer, "suspected")),
    "left": membership(MemberLeft),
    "key shared": membership(lambda peer: KeyShared(peer, ((ADDRESS,), (ADDRESS,)))),
    "session up": transport(lambda peer: PeerConnected(peer, ADDRESS)),
    "session closed": transport(lambda peer: PeerDisconnected(peer, "idle")),
    "silent": transport(lambda peer: PeerUnresponsive(peer, 1.5)),
    "path": transport(lambda peer: PathTooSmall(peer, ADDRESS, 548)),
    "used twice": transport(lambda peer: KeyUsedTwice(peer, None, ADDRESS)),
    "computed": inference(lambda peer: StageEnded(peer, range(2), 5, 0.1)),
    "refused": inference(lambda peer: SessionRefused(peer, range(2), "full")),
}


def lines_of(cause: Cause, peer_at: Callable[[int], NodeId]) -> tuple[NodeCore, int]:
    """Let ``cause`` happen five times a second; return the node and the lines that it logged."""
    node = Swarm(1).add("a", range(6))
    node.take_events()
    for number in range(5 * SECONDS):
        node.clock = 100 + number / 5
        cause(node, peer_at(number), node.clock)
    return node, sum(isinstance(event, Noted) for event in node.take_events())


@pytest.mark.parametrize("kind", CAUSES)
def test_many_keys_cannot_turn_the_log_over(kind: str) -> None:
    node, lines = lines_of(CAUSES[kind], lambda number: node_id(f"peer {number}"))
    assert CONFIG.about_all.burst <= lines <= MOST
    assert node.counters["line about a peer left out: too many of all"] == 5 * SECONDS - lines


@pytest.mark.parametrize("kind", CAUSES)
def test_one_peer_takes_little_of_it(kind: str) -> None:
    node, lines = lines_of(CAUSES[kind], lambda _: node_id("b"))
    assert CONFIG.about_each.burst <= lines <= MOST_OF_ONE
    assert node.counters["line about a peer left out: too many of it"] == 5 * SECONDS - lines


def test_after_a_rush_it_is_said_how_many_lines_are_missing() -> None:
    noted: list[tuple[str, bool]] = []

    def note(line: str, *, is_notice: bool = False) -> None:
        noted.append((line, is_notice))

    counters: Counter[str] = Counter()
    lines = PeerLines(CONFIG, 50, note, counters)
    for number in range(100):
        lines.say(node_id(f"peer {number}"), "joined", 10.0)
        lines.tell_left_out(10.0)
    assert len(noted) == CONFIG.about_all.burst
    lines.tell_left_out(20.0)  # the rush may go on
    assert len(noted) == CONFIG.about_all.burst
    lines.tell_left_out(60.0)
    assert noted[-1] == ("36 lines left out: peers came, went or asked too often", False)
    lines.tell_left_out(600.0)
    assert len(noted) == CONFIG.about_all.burst + 1
    assert len(lines._of_each) == 50


def test_a_node_says_it_by_itself_and_goes_on() -> None:
    swarm = Swarm(1)
    a = swarm.add("a", range(6))
    for number in range(100):
        peer = node_id(f"peer {number}")
        swarm.call("a", lambda node, now: CAUSES["left"](node, peer, now))  # noqa: B023
    swarm.network.run(60)
    assert [line for line in a.log if "lines left out: peers came, went" in line]
    swarm.add("b", range(6))
    swarm.introduce("a", "b")
    swarm.network.run(10)
    assert "b joined the swarm" in a.log
