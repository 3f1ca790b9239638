"""What outsiders and lying members may try; a node lives on, and bounds what they cost."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import MAX_BATCH, Inbox, to_frames, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.core import Inference
from p2pnode.inference.events import ComputeRequested, SendFrame
from p2pnode.inference.messages import Close, Edge, Open, Resume
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Forward
from p2pnode.membership.coordinates import Coordinate, Vivaldi
from p2pnode.node.core import NodeCore
from p2pnode.node.sightings import Sighting
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import Roster, node_id
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import SyncError, sync_frame

EVIL, US, THIRD = (node_id(name) for name in ("evil", "us", "third"))


def host() -> tuple[Inference, int]:
    engine = random_model(5, n_layers=2)
    core = Inference(InferenceConfig(), US, Roster(), Random(1))
    core.use_model(engine.info)
    core.serve(engine.info, engine.layers, 1 << 26)
    return core, engine.info.space_hash32


def order(session: int = 1, epoch: int = 0) -> Open:
    up, down = Edge(EVIL, session), Edge(THIRD, 9)
    return Open(session, epoch, 1, range(1), 200, up, down, "f16", None, 0)


@pytest.mark.parametrize("key", [bytes([2]) + bytes(31), bytes(32)])
def test_an_announced_key_that_is_none_is_a_failed_dial(key: bytes) -> None:
    swarm = Swarm(1)
    node = swarm.add("a", range(6))
    sighting = Sighting((("10.0.0.9", 4747),), "x", ours=True)
    swarm.call("a", lambda core, now: core.sighted(NodeId(key), sighting, now))
    swarm.network.run(5)
    assert node.counters["dial failed"]


def test_no_coordinate_pushes_us_off_the_map() -> None:
    vivaldi = Vivaldi(Random(1))
    far = Coordinate((999.0, *(0.0,) * 7), 0.0, 0.0, 999.0)
    for _ in range(200):
        vivaldi.learn(EVIL, far, 0.001)
    assert vivaldi.own.encode()


def test_overlapping_frames_hold_no_more_rows_than_the_session() -> None:
    inbox = Inbox(4, frozenset({int(DType.I8)}), limit=600)
    frames = [next(to_frames(token_batch((7,) * 200, start), 1, 0)) for start in range(1, 5)]
    for frame in frames[:3]:
        inbox.add_untrusted(frame)
    with pytest.raises(RemoteProtocolError, match="overlap"):
        inbox.add_untrusted(frames[3])


def test_a_gap_that_closes_is_work_for_what_it_hands_out_alone() -> None:
    """A walk along all frames for each batch held the loop for 0.7 s with 8,192 of them."""

    class Walked(dict[int, Any]):
        walks = 0

        def __iter__(self) -> Iterator[int]:
            Walked.walks += 1
            return super().__iter__()

    inbox = Inbox(4, frozenset({int(DType.I8)}), limit=400)
    inbox._frames = Walked()
    frames = [next(to_frames(token_batch((7,), start), 1, 0)) for start in range(400)]
    for frame in reversed(frames):
        assert inbox.take_batch() is None
        inbox.add_untrusted(frame)
    taken = 0
    while inbox.take_batch() is not None:
        taken += 1
    assert taken == 400
    assert not inbox._frames
    assert inbox._rows == 0
    assert Walked.walks == 0


def test_a_batch_too_large_for_one_turn_of_the_engine_is_refused() -> None:
    inbox = Inbox(4, frozenset({int(DType.I8)}), limit=8192)
    frame = next(to_frames(token_batch((7,) * (MAX_BATCH + 1), 0), 1, 0))
    with pytest.raises(RemoteProtocolError, match="a batch of"):
        inbox.add_untrusted(frame)


def test_work_of_a_closed_session_is_wanted_no_more() -> None:
    core, space = host()
    core.receive_frame_untrusted(control_frame(order(), space), EVIL, 0.0)
    for frame in to_frames(token_batch((1, 2, 3), 0), 1, space):
        core.receive_frame_untrusted(frame, EVIL, 0.0)
    [job] = [event.job for event in core.take_events() if isinstance(event, ComputeRequested)]
    assert job in core.jobs
    core.receive_frame_untrusted(control_frame(Close(1, 0), space), EVIL, 0.0)
    assert job not in core.jobs


def test_resume_replays_once_an_epoch() -> None:
    core, space = host()
    engine = random_model(5, n_layers=2)
    core.receive_frame_untrusted(control_frame(order(), space), EVIL, 0.0)
    for frame in to_frames(token_batch((1, 2, 3), 0), 1, space):
        core.receive_frame_untrusted(frame, EVIL, 0.0)
    for event in core.take_events():
        if isinstance(event, ComputeRequested) and isinstance(event.work, Forward):
            core.compute_finished(event.job, run_work(engine, event.work, lambda: 0.0), 0.0)
    core.receive_frame_untrusted(control_frame(order(epoch=1), space), EVIL, 0.0)
    core.take_events()
    for _ in range(20):
        core.receive_frame_untrusted(control_frame(Resume(1, 1, 1, 0), space), EVIL, 0.0)
    assert len([event for event in core.take_events() if isinstance(event, SendFrame)]) == 1


def test_a_member_that_sends_what_is_refused_fills_no_log() -> None:
    swarm = Swarm(1)
    for name in ("a", "evil"):
        swarm.add(name, range(6))
    swarm.introduce("a", "evil")
    assert swarm.network.run_until(swarm.is_ready, 20)
    a, evil = swarm.nodes["a"], swarm.nodes["evil"]
    assert a.model is not None
    space, before = a.model.space_hash32, len(swarm.nodes["a"].log)
    error = SyncError("BECAUSE", "read this, and this, and this").to_body()
    frames = [
        sync_frame(error, stream_id=1, frame_seq=0, space_hash32=0),
        next(to_frames(token_batch((1,), 0), 1, space + 1)),
        sync_frame({"method": "x-open"}, stream_id=1, frame_seq=0, space_hash32=space),
    ]

    def nag(node: NodeCore, now: float) -> None:
        for _ in range(50):
            for frame in frames:
                node.outbox.send_frame(a.node_id, frame, now)

    def name_nobody(node: NodeCore, now: float) -> None:
        for number in range(50):  # a row for somebody new each time, whom nobody can send to
            row = next(to_frames(token_batch((1,), 0), 1, space))
            a._wiring._on_inference(SendFrame(node_id(f"nobody {number}"), row), now)

    swarm.call("evil", nag)
    swarm.call("a", name_nobody)
    swarm.network.run(0.5)
    assert a.counters["message refused"] == 50
    assert a.counters["error from a peer: another"] == 50
    assert a.inference.all_counters()["frame of another space"] == 50
    assert a.outbox.counters["frame dropped: peer of unknown address"] == 50
    assert len(a.log) - before <= 16  # what all together may say at one moment
    assert a.endpoint.is_connected(evil.node_id)
