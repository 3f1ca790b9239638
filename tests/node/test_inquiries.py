"""Two nodes tell each other what they can do; questions are answered, answers never."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.errors import GenerationError, RemoteProtocolError
from p2pnode.node.advert import DTYPES
from p2pnode.node.core import NodeCore
from p2pnode.node.inquiries import Inquiries, capability_of
from p2pnode.testing.frames import node_id
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.agreement import proposal_frame, usable_dtypes
from p2pnode.wire.capability import Capability
from p2pnode.wire.dtypes import DType, dtypes_of_mask
from p2pnode.wire.messages import SyncError, parse_sync_untrusted, ping_body, sync_frame
from p2pnode.wire.vframe import Frame

MODEL = random_model(5, n_layers=2).info
PEER = node_id("far")
SPACE = MODEL.space_hash32


def two() -> tuple[Swarm, NodeCore, NodeCore]:
    swarm = Swarm(1)
    for name, layers in {"a": range(3), "b": range(3, 6)}.items():
        swarm.add(name, layers)
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 20)
    return swarm, swarm.nodes["a"], swarm.nodes["b"]


def send(swarm: Swarm, frame: Frame) -> None:
    """Let ``a`` send a frame to ``b``, and whatever follows from it happen."""
    peer = swarm.nodes["b"].node_id
    swarm.call("a", lambda node, now: node.outbox.send_frame(peer, frame, now))
    swarm.network.run(1)


def test_a_node_is_asked_and_answers_over_the_transport() -> None:
    swarm, a, b = two()
    swarm.call("a", lambda node, now: node.ask_capability(b.node_id, now))
    swarm.network.run(1)
    agreed = a.inquiries.agreed[b.node_id]
    assert a.model is not None
    assert agreed == capability_of(a.model)
    assert (agreed.d_model, agreed.embedding_space_id) == (a.model.d_model, a.model.space_id)
    assert agreed.modality == ("text",)
    assert usable_dtypes(agreed) == dtypes_of_mask(DTYPES) | {DType.COO}
    assert b.inquiries.counters == {"capability asked": 1}
    assert a.inquiries.counters == {"capability answered": 1}
    assert b.inquiries.agreed == {}


def test_a_proposal_gets_the_reduced_set() -> None:
    theirs = replace(capability_of(MODEL), dtypes=("q9", "centred", "f16"), critique=True)
    inquiries = Inquiries()
    answer = inquiries.receive_untrusted(proposal_frame(theirs, stream_id=8), PEER, MODEL)
    assert answer is not None
    assert (answer.stream_id, answer.frame_seq, answer.space_hash32) == (8, 1, SPACE)
    agreed = Capability.from_body_untrusted(parse_sync_untrusted(answer))
    assert (agreed.dtypes, agreed.critique) == (("f16", "centred"), False)


def test_a_proposal_of_another_space_is_answered_with_an_error() -> None:
    swarm, a, b = two()
    assert a.model is not None
    send(swarm, proposal_frame(replace(capability_of(a.model), space_hash32=7), stream_id=8))
    assert a.counters["error from a peer: SPACE_MISMATCH"] == 1
    assert b.counters["message refused"] == 0


def test_a_node_without_a_model_answers_that_it_has_no_space() -> None:
    answer = Inquiries().receive_untrusted(
        proposal_frame(capability_of(MODEL), stream_id=8), PEER, None
    )
    assert answer is not None
    error = SyncError.from_body_untrusted(parse_sync_untrusted(answer))
    assert (error.code, error.expected, answer.space_hash32) == ("SPACE_MISMATCH", 0, 0)
    swarm = Swarm(1)
    bare = swarm.add("a", range(6))
    bare.serving.bundles.clear()
    with pytest.raises(GenerationError):
        bare.ask_capability(PEER, 0.0)


def test_a_capability_that_nobody_asked_for_is_refused() -> None:
    swarm, a, b = two()
    assert a.model is not None
    body = capability_of(a.model).to_body()
    for number in (1, 2, 2**64 - 1):
        said = sync_frame(body, stream_id=1, frame_seq=number, space_hash32=a.model.space_hash32)
        send(swarm, said)
    assert b.counters["message refused"] == 3
    assert b.inquiries.agreed == {}
    assert not a.inquiries.counters


def test_only_the_answer_to_the_newest_proposal_counts_and_only_once() -> None:
    asker, answerer = Inquiries(), Inquiries()
    old, new = (asker.propose(PEER, MODEL) for _ in range(2))
    for proposal, taken in ((old, False), (new, True), (new, False)):
        answer = answerer.receive_untrusted(proposal, node_id("us"), MODEL)
        assert answer is not None
        if taken:
            assert asker.receive_untrusted(answer, PEER, MODEL) is None
            continue
        with pytest.raises(RemoteProtocolError, match="nobody asked"):
            asker.receive_untrusted(answer, PEER, MODEL)
    assert list(asker.agreed) == [PEER]


def test_a_ping_comes_back_once() -> None:
    swarm, a, b = two()
    assert a.model is not None
    space = a.model.space_hash32
    send(swarm, sync_frame(ping_body(17), stream_id=9, frame_seq=0, space_hash32=space))
    assert a.inquiries.counters == {"ping answered": 1}
    assert b.inquiries.counters == {"ping asked": 1}
    assert b.counters["message refused"] == 0


def test_memory_is_bounded() -> None:
    asker, answerer = Inquiries(), Inquiries()
    for number in range(300):
        peer = node_id(str(number))
        answer = answerer.receive_untrusted(asker.propose(peer, MODEL), peer, MODEL)
        assert answer is not None
        asker.receive_untrusted(answer, peer, MODEL)
    assert len(asker.agreed) == 256
    assert node_id("299") in asker.agreed


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
bodies = st.dictionaries(st.sampled_from([*capability_of(MODEL).to_body(), "ts"]), values)


@given(bodies, st.sampled_from(["capability", "ping"]), st.integers(0, 3), st.booleans())
def test_whatever_is_said_is_taken_or_refused(
    body: dict[str, object], method: str, number: int, ours: bool
) -> None:
    said = {**(capability_of(MODEL).to_body() if ours else {}), **body, "method": method}
    frame = sync_frame(said, stream_id=1, frame_seq=number, space_hash32=SPACE)
    inquiries = Inquiries()
    inquiries.propose(PEER, MODEL)
    assert inquiries.concerns_untrusted(frame)
    try:
        answer = inquiries.receive_untrusted(frame, PEER, MODEL)
    except RemoteProtocolError:
        return
    assert (answer is not None) == (number == 0)
    if answer is not None:
        assert (answer.stream_id, answer.frame_seq) == (1, 1)
