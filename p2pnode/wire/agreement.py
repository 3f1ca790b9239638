"""What two sides may send each other once they have said what they can.

A capability that travels with frame_seq 0 is a proposal, and its answer has the same stream_id and
frame_seq 1: the set both sides can do, or why they cannot talk. Only proposals are answered, so
that two nodes never answer each other's answers.
"""

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.capability import Capability, negotiate
from p2pnode.wire.dtypes import FIRST_EXTENSION, dtype_codes
from p2pnode.wire.messages import SyncError, parse_sync_untrusted, sync_frame
from p2pnode.wire.vframe import Frame

PROPOSAL_SEQ = 0
ANSWER_SEQ = 1


def proposal_frame(ours: Capability, *, stream_id: int) -> Frame:
    """Return the Sync frame that asks a peer what both can do."""
    return sync_frame(
        ours.to_body(), stream_id=stream_id, frame_seq=PROPOSAL_SEQ, space_hash32=ours.space_hash32
    )


def answer_proposal_untrusted(frame: Frame, ours: Capability) -> Frame:
    """Return the answer to a proposal: a capability of the reduced set, or an error of space 0.

    Raises:
        RemoteProtocolError: The frame is no proposal.
    """
    if frame.frame_seq != PROPOSAL_SEQ:
        raise RemoteProtocolError("a capability that is an answer itself")
    theirs = Capability.from_body_untrusted(parse_sync_untrusted(frame))
    if theirs.space_hash32 != frame.space_hash32:
        raise RemoteProtocolError("a capability of another space than its frame")
    agreed = negotiate(ours, theirs)
    refused = isinstance(agreed, SyncError)
    return sync_frame(
        agreed.to_body(),
        stream_id=frame.stream_id,
        frame_seq=ANSWER_SEQ,
        space_hash32=0 if refused else ours.space_hash32,
    )


def usable_dtypes(agreed: Capability) -> frozenset[int]:
    """Return the element types that both sides named, and that this one knows."""
    return dtype_codes(agreed.dtypes)


def unagreed_dtypes(frame: Frame, agreed: Capability) -> frozenset[int]:
    """Return the extension types in a frame that were not agreed on; none is as it should be.

    V-Frame's own types are read by everyone, agreed on or not.
    """
    usable = usable_dtypes(agreed)
    used = {int(piece.dtype) for piece in frame.slices}
    return frozenset(code for code in used if code >= FIRST_EXTENSION and code not in usable)
