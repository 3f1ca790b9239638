"""A proposal and its answer."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.agreement import answer_proposal_untrusted, proposal_frame, unagreed_dtypes
from p2pnode.wire.capability import Capability, negotiate
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import (
    SyncError,
    byte_slice,
    parse_sync_untrusted,
    ping_body,
    sync_frame,
)
from p2pnode.wire.vframe import Frame, MessageType, Slice, decode_frame_untrusted, encode_frame

OURS = Capability(576, "smollm2-135m", 7, dtypes=("f16", "f32", "i8"))


def over_the_wire(frame: Frame) -> Frame:
    return decode_frame_untrusted(encode_frame(frame))


def test_a_proposal_is_answered_with_the_reduced_set() -> None:
    proposal = over_the_wire(
        proposal_frame(replace(OURS, dtypes=("q2", "i8", "f16"), compress=()), stream_id=5)
    )
    answer = over_the_wire(answer_proposal_untrusted(proposal, OURS))
    assert (answer.stream_id, answer.frame_seq, answer.space_hash32) == (5, 1, 7)
    agreed = Capability.from_body_untrusted(parse_sync_untrusted(answer))
    assert agreed == replace(OURS, dtypes=("f16", "i8"), compress=())


def test_an_answer_is_never_answered() -> None:
    answer = answer_proposal_untrusted(proposal_frame(OURS, stream_id=5), OURS)
    with pytest.raises(RemoteProtocolError, match="answer"):
        answer_proposal_untrusted(over_the_wire(answer), OURS)


def test_a_proposal_of_another_space_or_width_is_answered_with_an_error() -> None:
    for theirs, code in (
        (replace(OURS, space_hash32=8), "SPACE_MISMATCH"),
        (replace(OURS, d_model=1), "D_MODEL_MISMATCH"),
    ):
        answer = over_the_wire(answer_proposal_untrusted(proposal_frame(theirs, stream_id=5), OURS))
        error = SyncError.from_body_untrusted(parse_sync_untrusted(answer))
        assert (error.code, answer.space_hash32) == (code, 0)
        assert error == negotiate(OURS, theirs)


@pytest.mark.parametrize(
    "frame",
    [
        sync_frame(ping_body(1), stream_id=1, frame_seq=0, space_hash32=7),
        sync_frame(OURS.to_body(), stream_id=1, frame_seq=0, space_hash32=8),
        Frame(MessageType.THINK, 1, 0, 7, slices=(byte_slice(b"{}"),)),
        Frame(MessageType.SYNC, 1, 0, 7),
    ],
)
def test_what_is_no_proposal_is_refused(frame: Frame) -> None:
    with pytest.raises(RemoteProtocolError):
        answer_proposal_untrusted(frame, OURS)


@given(st.binary(max_size=60), st.integers(0, 2))
def test_any_sync_is_answered_or_refused(text: bytes, number: int) -> None:
    frame = Frame(MessageType.SYNC, 1, number, 7, slices=(byte_slice(text),))
    with contextlib.suppress(RemoteProtocolError):
        answer_proposal_untrusted(frame, OURS)


def test_an_extension_that_was_not_agreed_on_is_seen_and_a_type_of_v_frames_own_is_not() -> None:
    agreed = replace(OURS, dtypes=("f32",))
    for dtype, seen in ((DType.F32, set()), (DType.BF16, {DType.BF16}), (DType.F16, set())):
        size = 4 if dtype is DType.F32 else 2
        frame = Frame(MessageType.THINK, 1, 1, 7, slices=(Slice(dtype, (1,), bytes(size)),))
        assert unagreed_dtypes(frame, agreed) == seen
