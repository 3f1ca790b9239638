"""Frames of programs: kept within bounds, never of the nodes' own kinds, and none in silence."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import BusyError, RemoteProtocolError, UserError
from p2pnode.node.config import ProgramFramesConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.program_frames import PERMITTED, ProgramFrames
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import Ask, Critique, byte_slice, parse_message_untrusted, sync_frame
from p2pnode.wire.vframe import Frame, MessageType, Slice

SMALL = ProgramFramesConfig(most_each=3, bytes_each=5000, bytes_total=8000)


def two() -> tuple[Swarm, NodeCore, NodeCore]:
    swarm = Swarm(1)
    for name, layers in {"a": range(3), "b": range(3, 6)}.items():
        swarm.add(name, layers)
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 20)
    return swarm, swarm.nodes["a"], swarm.nodes["b"]


def ask(space: int = 7, words: str = "who knows?", number: int = 0) -> Ask:
    vector = Slice(DType.F16, (1, 4), bytes(8))
    return Ask(
        stream_id=3, frame_seq=number, space_hash32=space, embedding=(vector,), context=words
    )


def frames(config: ProgramFramesConfig = SMALL) -> ProgramFrames:
    swarm, a, _ = two()
    del swarm
    made = ProgramFrames(config, a.node_id, a.outbox, a.endpoint.is_connected)
    made.open()
    return made


def space_of(node: NodeCore) -> int:
    assert node.model is not None
    return node.model.space_hash32


def test_a_program_s_message_reaches_the_other_program_whole() -> None:
    swarm, a, b = two()
    b.programs.open()
    said = [ask(space_of(a), "one"), ask(space_of(a), "two", 1)]

    def say(node: NodeCore, now: float) -> None:
        for message in said:
            node.send_frame(b.node_id, message.to_frame(), now)

    swarm.call("a", say)
    swarm.network.run(1)
    taken = [b.programs.take() for _ in range(3)]
    assert [one and (one.peer, one.message) for one in taken] == [
        (a.node_id, said[0]),
        (a.node_id, said[1]),
        None,
    ]
    assert b.programs.counters == {"program frame received": 2}


def test_the_program_is_told_once_and_only_of_the_first_that_waits() -> None:
    _, a, b = two()
    b.programs.open()
    told = Counter[str]()
    for number in range(3):
        frame = ask(space_of(a), number=number).to_frame()
        told[str(b.programs.receive_untrusted(frame, a.node_id))] += 1
    assert told == {"True": 1, "False": 2}


def test_where_no_program_listens_a_frame_is_refused_as_ever() -> None:
    swarm, a, b = two()
    frame = ask(space_of(a)).to_frame()
    swarm.call("a", lambda node, now: node.send_frame(b.node_id, frame, now))
    swarm.network.run(1)
    assert b.programs.take() is None
    assert b.inference.all_counters()["ask frame not served"] == 1


def test_a_frame_of_another_space_is_refused() -> None:
    swarm, a, b = two()
    b.programs.open()
    frame = ask(space_of(a) ^ 1).to_frame()
    swarm.call("a", lambda node, now: node.send_frame(b.node_id, frame, now))
    swarm.network.run(1)
    assert b.programs.take() is None
    assert b.inference.all_counters()["frame of another space"] == 1


def test_a_node_s_own_program_may_hear_itself() -> None:
    swarm, a, _ = two()
    a.programs.open()
    frame = ask(space_of(a)).to_frame()
    swarm.call("a", lambda node, now: node.send_frame(a.node_id, frame, now))
    taken = a.programs.take()
    assert taken is not None
    assert (taken.peer, taken.message.to_frame()) == (a.node_id, frame)


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind not in PERMITTED])
def test_the_nodes_own_kinds_are_no_program_s(kind: MessageType) -> None:
    swarm, a, b = two()
    frame = Frame(kind, 1, 0, space_of(a), slices=(byte_slice(b"{}"),))
    with pytest.raises(UserError, match="the nodes' own"):
        a.send_frame(b.node_id, frame, swarm.network.now)
    b.programs.open()
    assert not b.programs.concerns(frame)


def test_what_is_no_message_is_not_sent() -> None:
    swarm, a, b = two()
    heart = Frame(MessageType.ASK, 1, 0, space_of(a))
    with pytest.raises(UserError, match="no message"):
        a.send_frame(b.node_id, heart, swarm.network.now)


def test_a_malformed_message_of_a_member_is_counted_and_its_session_kept() -> None:
    swarm, a, b = two()
    b.programs.open()
    broken = Frame(MessageType.CRITIQUE, 1, 0, space_of(a), slices=(byte_slice(b"{}"),))
    swarm.call("a", lambda node, now: node.outbox.send_frame(b.node_id, broken, now))
    swarm.network.run(1)
    assert b.programs.take() is None
    assert b.counters["message refused"] == 1
    assert b.endpoint.is_connected(a.node_id)


def test_no_frame_goes_to_a_peer_without_a_session() -> None:
    swarm, a, _ = two()
    with pytest.raises(BusyError, match="no session"):
        a.send_frame(node_id("far"), ask(space_of(a)).to_frame(), swarm.network.now)


def test_a_program_cannot_fill_the_queue_that_answers_need() -> None:
    swarm, a, b = two()
    swarm.kill("b")  # nothing is acknowledged any more
    frame = ask(space_of(a), "x" * 60_000).to_frame()

    def flood(node: NodeCore, now: float) -> None:
        for _ in range(100):
            node.send_frame(b.node_id, frame, now)

    with pytest.raises(BusyError, match="acknowledge"):
        swarm.call("a", flood)
    assert a.outbox.under_way(b.node_id) < 2 * ProgramFramesConfig().under_way_bytes
    assert not a.outbox.refused


def test_one_peer_gets_so_much_room_and_all_together_so_much() -> None:
    kept = frames()
    alice, bob, carol = node_id("alice"), node_id("bob"), node_id("carol")
    for _ in range(5):
        kept.receive_untrusted(ask().to_frame(), alice)
    assert kept.counters["program frame dropped: too many of its peer wait"] == 2
    large = ask(words="x" * 3000).to_frame()
    for peer in (bob, bob, carol):
        kept.receive_untrusted(large, peer)
    assert kept.counters["program frame dropped: too many of its peer wait"] == 3
    assert kept.counters["program frame dropped: too many wait"] == 1
    assert kept.counters["program frame received"] == 4


def test_what_is_taken_makes_room_again() -> None:
    kept = frames(replace(SMALL, most_each=1))
    for number in range(5):
        assert kept.receive_untrusted(ask(number=number).to_frame(), node_id("alice"))
        taken = kept.take()
        assert taken is not None
        assert taken.message.frame_seq == number
    assert kept.take() is None
    assert kept.counters == {"program frame received": 5}


def test_what_waits_when_the_program_leaves_is_dropped_and_counted() -> None:
    kept = frames()
    kept.receive_untrusted(ask().to_frame(), node_id("alice"))
    kept.close()
    assert kept.take() is None
    assert kept.counters["program frame dropped: nobody took it"] == 1
    assert not kept.concerns(ask().to_frame())


pieces = st.binary(max_size=40).map(byte_slice)


@given(st.sampled_from(PERMITTED), st.lists(pieces, max_size=4), st.integers(0, 3))
def test_only_messages_are_kept_and_nothing_else_is_raised(
    kind: MessageType, slices: list[Slice], who: int
) -> None:
    kept = KEPT
    frame = Frame(kind, 1, 1, 7, slices=tuple(slices))
    try:
        kept.receive_untrusted(frame, NodeId(bytes([who]) * 32))
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            parse_message_untrusted(frame)
    while (taken := kept.take()) is not None:
        assert isinstance(taken.message, Ask | Critique)
        assert taken.message.to_frame() == frame


KEPT = frames()


def test_a_sync_is_never_a_program_s() -> None:
    assert not KEPT.concerns(
        sync_frame({"method": "ping"}, stream_id=0, frame_seq=0, space_hash32=0)
    )
