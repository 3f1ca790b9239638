"""Members make mistakes by the thousand: the log stays readable, and not each is answered."""

from collections import Counter

import pytest

from p2pnode.node.config import RemarkConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.events import Noted
from p2pnode.node.outbox import SendRefused
from p2pnode.node.remarks import Remarks
from p2pnode.testing.frames import node_id
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.capability import SPACE_MISMATCH
from p2pnode.wire.messages import SyncError, sync_frame
from p2pnode.wire.vframe import Frame, MessageType

ERROR = sync_frame(
    SyncError(SPACE_MISMATCH, "another").to_body(), stream_id=0, frame_seq=0, space_hash32=0
)
ANOTHER_SPACE = Frame(MessageType.THINK, 1, 0, 7)
NONSENSE = Frame(MessageType.SYNC, 0, 0, 0)
FRAMES = {"error": ERROR, "another space": ANOTHER_SPACE, "nonsense": NONSENSE}


def two() -> tuple[Swarm, NodeCore, NodeCore]:
    swarm = Swarm(1)
    a, b = swarm.add("a", range(6)), swarm.add("b", range(6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 20)
    return swarm, a, b


@pytest.mark.parametrize("kind", FRAMES)
def test_a_member_does_not_empty_the_log_with_its_mistakes(kind: str) -> None:
    swarm, a, b = two()
    log, sent = list(a.log), b.counters["error from a peer: SPACE_MISMATCH"]
    for _ in range(500):
        swarm.call("b", lambda node, now: node.outbox.send_frame(a.node_id, FRAMES[kind], now))
        swarm.network.run(0.01)
    said = list(a.log)[len(log) :]
    assert 1 <= len(said) <= 5
    assert list(a.log)[: len(log)] == log
    assert a.counters["mistake of a peer not reported: too many"] == 500 - len(said)
    answers = b.counters["error from a peer: SPACE_MISMATCH"] - sent
    assert answers == (len(said) if kind == "another space" else 0)
    counters = a.counters + a.inference.counters
    counted = {
        "error": "error from a peer: SPACE_MISMATCH",
        "another space": "frame of another space",
        "nonsense": "message refused",
    }
    assert counters[counted[kind]] == 500


def test_what_is_not_said_wakes_nobody() -> None:
    _, a, b = two()
    for _ in range(10):
        a.remarks.may_be_made(b.node_id, 100.0)
    a.take_events()
    a._wiring._take_frame_untrusted(ANOTHER_SPACE, b.node_id, 100.0)
    assert not [event for event in a.events if isinstance(event, Noted)]


def test_a_member_that_takes_nothing_is_said_to_a_few_times() -> None:
    _, a, b = two()
    said = len(a.log)
    for number in range(200):
        a._wiring._on_refused(SendRefused(b.node_id, "its queue is full"), 100.0 + number / 4)
    assert 1 <= len(a.log) - said <= 10


def test_many_members_together_leave_most_of_the_log_alone_too() -> None:
    lines: list[str] = []
    counters: Counter[str] = Counter()
    remarks = Remarks(RemarkConfig(), 50, lines.append, counters)
    for second in range(300):
        for number in range(100):
            if remarks.may_be_made(node_id(f"peer {number}"), float(second)):
                remarks.note("a mistake", float(second))
    assert 16 <= len(lines) <= 16 + 300 * 0.2
    assert counters["line about a peer's mistake left out: too many of all"] > 300
    assert len(remarks._of_each) == 50
