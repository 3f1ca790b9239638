"""One node that serves a stage, for tests of who may have what of it."""

from dataclasses import replace
from random import Random

from p2pnode.engine.base import Engine
from p2pnode.engine.random_model import random_model
from p2pnode.inference.activations import to_frames, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.core import Inference
from p2pnode.inference.events import ComputeRequested, InferenceEvent, SendFrame
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import (
    Control,
    Edge,
    Open,
    from_body_untrusted,
)
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Release
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import Roster, node_id
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.vframe import MessageType

US, HOG, OTHER, THIRD = (node_id(name) for name in ("us", "hog", "other", "third"))
POSITIONS = 200


class Host:
    """One node that serves two layers, and all that it says."""

    def __init__(
        self,
        sessions: int = 4,
        kv_sessions: float = 100.0,
        *,
        strangers: frozenset[NodeId] = frozenset(),
        **config: float,
    ) -> None:
        self.engine: Engine = random_model(5, n_layers=2)
        self.under_way: dict[NodeId, int] = {}
        made = replace(InferenceConfig(), max_sessions=sessions, **config)  # type: ignore[arg-type]
        self.core = Inference(
            made,
            US,
            Roster(),
            Random(1),
            queued=lambda peer: self.under_way.get(peer, 0),
            is_proven=lambda peer: peer != US and peer not in strangers,
        )
        self.core.use_model(self.engine.info)
        needed = stage_bytes(self.engine.info, 1, POSITIONS, "f16")
        self.core.serve(self.engine.info, self.engine.layers, int(kv_sessions * needed))
        self.said: list[tuple[NodeId, Control]] = []
        self.jobs: list[ComputeRequested] = []
        self.sent: list[SendFrame] = []
        self.now = 0.0

    @property
    def space(self) -> int:
        return self.engine.info.space_hash32

    def tell(self, source: NodeId, message: Control) -> None:
        self.core.receive_frame_untrusted(control_frame(message, self.space), source, self.now)
        self.take()

    def open(
        self,
        requester: NodeId,
        session: int,
        down: NodeId = THIRD,
        epoch: int = 0,
        up: NodeId | None = None,
        stream: int | None = None,
    ) -> None:
        before = Edge(up or requester, session if stream is None else stream)
        following = Edge(down, 1000 + session)
        order = Open(session, epoch, 1, range(1), POSITIONS, before, following, "f16", None, 0)
        self.tell(requester, order)

    def feed(self, requester: NodeId, session: int, rows: int = 3, start: int = 0) -> None:
        for frame in to_frames(token_batch((7,) * rows, start), session, self.space):
            self.core.receive_frame_untrusted(frame, requester, self.now)
        self.take()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.core.next_timeout()) is not None and due <= end:
            assert due >= self.now or due > 0
            self.now = max(self.now, due)
            self.core.handle_timeout(self.now)
            self.take()
        self.now = end

    def compute(self) -> None:
        """Do the oldest job."""
        job = self.jobs.pop(0)
        result = run_work(self.engine, job.work, lambda: 0.0)
        self.core.compute_finished(job.job, result, self.now)
        self.take()

    def take(self) -> None:
        for event in self.core.take_events():
            self._take(event)

    def _take(self, event: InferenceEvent) -> None:
        if isinstance(event, ComputeRequested) and not isinstance(event.work, Release):
            self.jobs.append(event)
        elif isinstance(event, SendFrame) and event.frame.type is MessageType.SYNC:
            message = from_body_untrusted(parse_sync_untrusted(event.frame))
            assert message is not None
            self.said.append((event.peer, message))
        elif isinstance(event, SendFrame):
            self.sent.append(event)

    def heard(self, peer: NodeId, kind: type) -> list[Control]:
        return [message for one, message in self.said if one == peer and isinstance(message, kind)]

    def held(self, requester: NodeId) -> int:
        return sum(stage.requester == requester for stage in self.core.stages())
