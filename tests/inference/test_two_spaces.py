"""One node that runs stages of two models: no frame of one reaches a session of the other."""

from random import Random

from p2pnode.engine.random_model import random_model
from p2pnode.inference.activations import to_frames, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.core import Inference
from p2pnode.inference.events import SendFrame
from p2pnode.inference.messages import Edge, Open, Refusal, Refused, from_body_untrusted
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import Roster, node_id
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.vframe import MessageType

US, THEM, NEXT = (node_id(name) for name in ("us", "them", "next"))
ONE, OTHER, THIRD = (random_model(seed, n_layers=2).info for seed in (5, 6, 7))
KV = 1 << 26


class Host:
    """The node, and what it says."""

    def __init__(self) -> None:
        self.core = Inference(InferenceConfig(), US, Roster(), Random(1))
        for model in (ONE, OTHER):
            self.core.use_model(model)
            self.core.serve(model, range(2), KV)

    def open(self, space: int, epoch: int = 0, layers: range = range(1)) -> None:
        edges = Edge(THEM, 7), Edge(NEXT, 8)
        order = Open(1, epoch, 1, layers, 50, *edges, "f32", None, 0)
        self.core.receive_frame_untrusted(control_frame(order, space), THEM, 0.0)

    def feed(self, space: int) -> None:
        for frame in to_frames(token_batch((1, 2), 0), 7, space):
            self.core.receive_frame_untrusted(frame, THEM, 0.0)

    def refused(self) -> list[Refused]:
        said = [event for event in self.core.take_events() if isinstance(event, SendFrame)]
        bodies = [
            (peer, from_body_untrusted(parse_sync_untrusted(frame)))
            for peer, frame in ((event.peer, event.frame) for event in said)
            if frame.type is MessageType.SYNC
        ]
        return [body for peer, body in bodies if isinstance(body, Refused) and peer == NodeId(THEM)]


def test_what_is_fed_in_the_other_space_is_not_computed() -> None:
    host = Host()
    host.open(ONE.space_hash32)
    host.feed(OTHER.space_hash32)
    [stage] = host.core.stages()
    assert stage.space == ONE.space_hash32
    assert (stage.next_position, stage.is_used) == (0, False)
    host.feed(ONE.space_hash32)
    assert stage.next_position == 2


def test_an_order_that_moves_a_session_to_the_other_model_changes_nothing() -> None:
    host = Host()
    host.open(ONE.space_hash32)
    host.open(OTHER.space_hash32, epoch=1)
    [stage] = host.core.stages()
    assert (stage.space, stage.order.epoch) == (ONE.space_hash32, 0)
    assert host.core.all_counters()["order for something else than was admitted"] == 1


def test_a_frame_of_a_third_space_is_refused_and_says_which() -> None:
    host = Host()
    [frame, *_] = to_frames(token_batch((1,), 0), 7, THIRD.space_hash32)
    refusal = host.core.receive_frame_untrusted(frame, THEM, 0.0)
    assert refusal is not None
    assert refusal.got == THIRD.space_hash32


def test_memory_is_one_for_both() -> None:
    host = Host()
    host.open(ONE.space_hash32)
    [stage] = host.core.stages()
    for model in (ONE, OTHER):
        host.core.serve(model, range(2), stage.kv_bytes)
    asked = Open(2, 0, 1, range(1), 50, Edge(NEXT, 9), Edge(NEXT, 10), "f32", None, 0)
    host.core.receive_frame_untrusted(control_frame(asked, OTHER.space_hash32), NEXT, 0.0)
    assert len(host.core.stages()) == 1
    assert host.core.all_counters()["order waits for room"] == 1


def test_what_is_withdrawn_of_one_is_still_served_of_the_other() -> None:
    host = Host()
    host.core.retire(ONE.space_hash32, "it is being unloaded")
    host.open(ONE.space_hash32)
    [refused] = host.refused()
    assert (refused.code, refused.reason) == (Refusal.DRAINING, "it is being unloaded")
    host.open(OTHER.space_hash32)
    assert [stage.space for stage in host.core.stages()] == [OTHER.space_hash32]
    host.core.drop_model(ONE.space_hash32, "it was unloaded", 0.0)
    host.open(ONE.space_hash32, epoch=2)
    assert len(host.core.stages()) == 1
