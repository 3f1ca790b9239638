"""What two nodes ask each other beside any answer: what they can do, and whether they are there.

A question has frame_seq 0, its answer the same stream_id and frame_seq 1, and an answer is never
answered. What a peer reads is known beforehand from its ad; a proposal is for programs that want
the exact set, names included that no bit of an ad stands for.
"""

from collections import Counter
from typing import Final, TypeVar

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import RemoteProtocolError
from p2pnode.node.advert import DTYPES
from p2pnode.sansio import NodeId
from p2pnode.wire.agreement import (
    ANSWER_SEQ,
    PROPOSAL_SEQ,
    answer_proposal_untrusted,
    proposal_frame,
)
from p2pnode.wire.capability import Capability
from p2pnode.wire.dtypes import FIRST_EXTENSION, REGISTRY, dtypes_of_mask
from p2pnode.wire.messages import parse_sync_untrusted, ping_body, sync_frame
from p2pnode.wire.vframe import Frame

_T = TypeVar("_T")
_METHODS: Final = ("capability", "ping")
_MOST_AGREED: Final = 256  # peers remembered, the longest unheard forgotten first; a guess


def capability_of(model: ModelInfo | None) -> Capability:
    """Return what a node can do that computes in ``model``'s space.

    Its ciphers are none: the transport seals every datagram, and frames are not sealed twice.
    """
    extensions = dtypes_of_mask(DTYPES)
    return Capability(
        d_model=0 if model is None else model.d_model,
        embedding_space_id="" if model is None else model.space_id,
        space_hash32=0 if model is None else model.space_hash32,
        crypto=(),
        modality=("text",),
        critique=False,
        dtypes=tuple(
            info.name
            for code, info in REGISTRY.items()
            if code < FIRST_EXTENSION or code in extensions
        ),
    )


class Inquiries:
    """Asks and answers.

    Attributes:
        agreed: What peers answered to our proposals.
        counters: What came, by kind.
    """

    def __init__(self) -> None:
        self.agreed: dict[NodeId, Capability] = {}
        self.counters: Counter[str] = Counter()
        self._asked: dict[NodeId, int] = {}
        self._next_stream = 1

    def propose(self, peer: NodeId, model: ModelInfo) -> Frame:
        """Return the frame that asks ``peer`` what both can do."""
        stream, self._next_stream = self._next_stream, self._next_stream % 0xFFFFFFFF + 1
        _remember(self._asked, peer, stream)
        return proposal_frame(capability_of(model), stream_id=stream)

    def concerns_untrusted(self, frame: Frame) -> bool:
        """Whether a Sync frame is one of these questions or answers.

        Raises:
            RemoteProtocolError: It is a Sync that does not read.
        """
        return parse_sync_untrusted(frame).get("method") in _METHODS

    def receive_untrusted(
        self, frame: Frame, source: NodeId, model: ModelInfo | None
    ) -> Frame | None:
        """Take a frame that :meth:`concerns_untrusted`; return the answer its sender is owed.

        Raises:
            RemoteProtocolError: It is malformed, or answers what was not asked.
        """
        body = parse_sync_untrusted(frame)
        kind = f"{body['method']} {'asked' if frame.frame_seq == PROPOSAL_SEQ else 'answered'}"
        self.counters[kind] += 1
        if frame.frame_seq == PROPOSAL_SEQ:
            if body["method"] == "capability":
                return answer_proposal_untrusted(frame, capability_of(model))
            ts = body.get("ts")
            if not isinstance(ts, int):  # what is sent back is never larger than we would send
                raise RemoteProtocolError("a ping without whole seconds")
            return sync_frame(
                ping_body(ts),
                stream_id=frame.stream_id,
                frame_seq=ANSWER_SEQ,
                space_hash32=frame.space_hash32,
            )
        if body["method"] == "capability":
            self._learn_untrusted(frame, source, Capability.from_body_untrusted(body))
        return None

    def _learn_untrusted(self, frame: Frame, source: NodeId, theirs: Capability) -> None:
        if frame.frame_seq != ANSWER_SEQ or self._asked.get(source) != frame.stream_id:
            raise RemoteProtocolError("a capability that nobody asked for")
        del self._asked[source]
        _remember(self.agreed, source, theirs)


def _remember(held: dict[NodeId, _T], peer: NodeId, what: _T) -> None:
    held.pop(peer, None)
    while len(held) >= _MOST_AGREED:
        del held[next(iter(held))]
    held[peer] = what
