"""A control message as the Sync frame that carries it."""

from p2pnode.inference.messages import Control, to_body
from p2pnode.wire.messages import sync_frame
from p2pnode.wire.vframe import Frame


def control_frame(message: Control, space_hash32: int) -> Frame:
    """Return the frame that says ``message``; its stream id is the session's low 32 bits."""
    return sync_frame(
        to_body(message),
        stream_id=message.session & 0xFFFFFFFF,
        frame_seq=0,
        space_hash32=space_hash32,
    )
