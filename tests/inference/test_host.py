"""The stages run for others: whatever requesters, neighbours and the engine do, in any order."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode import CORES
from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import Batch, to_frames, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import ComputeRequested, SendFrame
from p2pnode.inference.host import StageHost
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import (
    Close,
    Edge,
    Open,
    Opened,
    Refusal,
    Refused,
    Resume,
    from_body_untrusted,
)
from p2pnode.inference.offered import Offered
from p2pnode.inference.stage import Stage, size_of
from p2pnode.inference.tensor_policy import Coded
from p2pnode.inference.terms import Terms
from p2pnode.inference.work import Computed, Forward, Step, Stepped, WorkFailed, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.states import Rung
from p2pnode.wire.vframe import MessageType, Slice, encode_frame

US, HOG, OTHER, NEXT = (node_id(name) for name in ("us", "hog", "other", "next"))
MODEL = random_model(5, n_layers=2).info
POSITIONS = 60
KV_TOTAL = 2 * stage_bytes(MODEL, 2, POSITIONS, "f16")
CODED = Terms("auto", frozenset({Rung.F16, Rung.I8, Rung.Q4}), 0.1, 0)
CONFIG = replace(
    InferenceConfig(),
    max_sessions=3,
    max_waiting=16,
    waiting_bytes=400,
    replay_window=300,
    replay_total=500,
    job_rows=8,
)


class Host:
    """A stage host without an engine: what it asks for is answered when the test says so."""

    def __init__(self) -> None:
        self.under_way: dict[NodeId, int] = {}
        self.host = StageHost(CONFIG, US, queued=lambda peer: self.under_way.get(peer, 0))
        self.host.serve(Offered(MODEL, range(2)), KV_TOTAL)
        self.jobs: list[ComputeRequested] = []
        self.sent: list[SendFrame] = []
        self.now = 0.0

    def order(self, requester: NodeId, session: int, epoch: int = 0, **more: Any) -> Open:
        order = Open(
            session,
            epoch,
            leg=1,
            layers=range(1),
            positions=POSITIONS,
            upstream=Edge(requester, session),
            downstream=Edge(NEXT, 1000 + session),
            out_dtype="f16",
            sampling=None,
            sample_from=0,
        )
        return replace(order, **more)

    def open(self, requester: NodeId, session: int, epoch: int = 0, **more: Any) -> None:
        self.host.receive_control(
            self.order(requester, session, epoch, **more),
            requester,
            MODEL.space_hash32,
            self.now,
        )
        self.take()

    def tell(self, requester: NodeId, message: Close | Resume) -> None:
        self.host.receive_control(message, requester, MODEL.space_hash32, self.now)
        self.take()

    def feed(self, source: NodeId, stream: int, batch: Batch) -> None:
        with suppress(RemoteProtocolError):
            for frame in to_frames(batch, stream, MODEL.space_hash32):
                self.host.receive_think_untrusted(frame, source, self.now)
        self.take()

    def finish(self, which: int, outcome: str) -> None:
        if self.jobs:
            asked = self.jobs.pop(which % len(self.jobs))
            self.host.compute_finished(asked.job, result_of(asked, outcome), self.now)
            self.take()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.host.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.fire()
        self.now = end

    def fire(self) -> None:
        self.host.handle_timeout(self.now)
        self.take()
        due = self.host.next_timeout()
        assert due is None or due > self.now

    def take(self) -> None:
        for event in self.host.take_events():
            if isinstance(event, ComputeRequested):
                self.jobs.append(event)
            elif isinstance(event, SendFrame):
                assert encode_frame(event.frame)
                self.sent.append(event)

    def stages(self) -> list[Stage]:
        return self.host.stages()

    def heard(self, kind: type) -> list[object]:
        messages = [
            from_body_untrusted(parse_sync_untrusted(event.frame))
            for event in self.sent
            if event.frame.type is MessageType.SYNC
        ]
        return [message for message in messages if isinstance(message, kind)]


def result_of(asked: ComputeRequested, outcome: str) -> WorkResult:
    work = asked.work
    if isinstance(work, Step):
        return Stepped(tuple(result_of_part(part, outcome) for part in work.parts))
    return result_of_part(work, outcome) if isinstance(work, Forward) else Computed((), 0)


def result_of_part(work: Forward, outcome: str) -> Computed | WorkFailed:
    if outcome != "computed":
        return WorkFailed("x" * 700, is_input_bad=outcome == "bad input")
    if work.sampling is not None:
        tokens = [token_batch((7,), batch.end) for batch in work.batches]
        return Computed(tuple(one for one in tokens if one.start >= work.sample_from), 5)
    coded = (Coded(Rung.I8, 0.01, 3, (Rung.Q4,)),) * len(work.batches)
    hidden = tuple(token_batch((7,) * one.rows, one.start) for one in work.batches)
    return Computed(hidden, 5, coded if work.recipe else ())


def hidden_batch(rows: int, start: int) -> Batch:
    payload = bytes(2 * MODEL.d_model * rows)
    return Batch(start, rows, ((Slice(DType.F16, (rows, MODEL.d_model), payload),),))


# What a newer epoch may not change


def test_a_newer_epoch_asks_for_no_more_than_was_admitted() -> None:
    """Else a session that was admitted for three positions reserves all memory of the engine."""
    host = Host()
    host.open(HOG, 0, positions=3)
    for more in ({"positions": POSITIONS}, {"sampling": Sampling()}, {"out_dtype": "f32"}):
        host.open(HOG, 0, epoch=1, **{"positions": 3, **more})
    [stage] = host.stages()
    assert stage.order.epoch == 0
    assert host.host.counters["order for something else than was admitted"] == 3
    host.feed(HOG, 0, token_batch((7, 7, 7), 0))
    [asked] = host.jobs
    assert isinstance(asked.work, Forward)
    assert asked.work.positions == 3


def test_an_order_that_waited_is_not_admitted_by_a_node_that_leaves() -> None:
    host = Host()
    for session in range(3):
        host.open(HOG, session, positions=3)
    host.open(OTHER, 9, positions=3)
    host.open(HOG, 3, positions=3)
    host.host.drain("leaving")
    before = len(host.heard(Opened))
    host.tell(HOG, Close(0, 0))
    assert len(host.heard(Opened)) == before
    [*_, refused] = host.heard(Refused)
    assert isinstance(refused, Refused)
    assert (refused.session, refused.reason) == (3, "leaving")


def test_a_token_replayed_for_nothing_asks_for_room_as_any_replay_does() -> None:
    """Else who names a neighbour of ours fills our queue to it, and it is the one to be blamed."""
    host = Host()
    host.open(HOG, 0)
    for start, rows in ((0, 3), (3, 1)):
        host.feed(HOG, 0, token_batch((7,) * rows, start))
        host.finish(0, "computed")
    host.under_way[NEXT] = 1 << 40
    host.feed(HOG, 0, token_batch((7,), 4))
    host.sent.clear()
    host.finish(0, "computed")
    assert len(host.sent) == 1  # new: it leaves
    host.sent.clear()
    for epoch in range(1, 20):
        host.open(HOG, 0, epoch=epoch, downstream=Edge(NEXT, 1000 + epoch))
        host.tell(HOG, Resume(0, epoch, 1, 4))
    assert not [event for event in host.sent if event.peer == NEXT]
    host.under_way.clear()
    host.wait(1.0)
    assert len([event for event in host.sent if event.peer == NEXT]) == 1


def test_what_was_sent_before_leaves_as_a_replay_and_what_is_new_does_not() -> None:
    host = Host()
    host.open(HOG, 0)
    for start, rows in ((0, 3), (3, 1)):
        host.feed(HOG, 0, token_batch((7,) * rows, start))
        host.finish(0, "computed")
    assert [event.is_replay for event in host.sent if event.peer == NEXT] == [False, False]
    host.sent.clear()
    host.open(HOG, 0, epoch=1, downstream=Edge(NEXT, 2000))
    host.tell(HOG, Resume(0, 1, 1, 0))
    host.feed(HOG, 0, token_batch((7,), 4))
    host.finish(0, "computed")
    assert [event.is_replay for event in host.sent if event.peer == NEXT] == [True, True, False]


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of an instance")
def test_a_close_of_nothing_makes_no_look_at_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    for session in range(5):
        host.open(HOG, session, positions=3)
    looks: list[float] = []
    monkeypatch.setattr(host.host, "_admit_waiting", looks.append)
    for session in range(10, 30):
        host.tell(OTHER, Close(session, 0))
    assert looks == []
    host.tell(HOG, Close(0, 0))
    assert looks == [0.0]


def test_a_peer_that_is_being_called_holds_up_nobody_else() -> None:
    """What is under way to it has no end, and would fill what all may have."""
    host = Host()
    host.open(HOG, 0, downstream=Edge(HOG, 5))
    host.open(OTHER, 1)
    for start in (0, 8):
        host.under_way[HOG] = start
        host.feed(HOG, 0, token_batch((7,) * 8, start))
        host.finish(0, "computed")
    host.under_way = {HOG: 1 << 62, NEXT: 1}
    host.sent.clear()
    host.feed(OTHER, 1, token_batch((7,) * 3, 0))
    host.finish(0, "computed")
    assert [event.peer for event in host.sent] == [NEXT]
    assert not host.host.held


# Whatever is said

PEERS = st.sampled_from((HOG, OTHER))
FEW = st.integers(0, 3)
ENDS = st.sampled_from((HOG, OTHER, NEXT, US))
ODD = st.fixed_dictionaries(
    {},
    optional={
        "leg": st.integers(0, 1),
        "layers": st.sampled_from((range(2), range(1, 2), range(1, 3))),
        "positions": st.sampled_from((0, 3, POSITIONS + 1, 1 << 20)),
        "upstream": st.builds(Edge, ENDS, FEW),
        "downstream": st.builds(Edge, ENDS, FEW),
        "out_dtype": st.just("f32"),
        "sampling": st.just(Sampling()),
        "sample_from": st.integers(0, 9),
        "terms": st.just(CODED),
    },
)
LIKELY: tuple[dict[str, Any], ...] = (
    {},
    {"terms": CODED},
    {"layers": range(2), "sampling": Sampling(), "sample_from": 4},
)
OPENS = st.tuples(st.just("open"), PEERS, FEW, FEW, st.sampled_from(LIKELY))
USUAL = st.one_of(
    OPENS,
    st.tuples(st.just("go on"), FEW, FEW),
    st.tuples(st.just("go on"), FEW, FEW),
    st.tuples(st.just("finish"), FEW, st.just("computed")),
    st.tuples(st.just("finish"), FEW, st.just("computed")),
    st.tuples(st.just("resume"), FEW, st.integers(0, 9)),
    st.tuples(st.just("acknowledge"), st.just(NEXT), st.sampled_from((0, 200, 1000))),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.05, 1.5))),
)
RARE = st.one_of(
    st.tuples(st.just("open"), PEERS, FEW, FEW, ODD),
    st.tuples(st.just("open"), PEERS, FEW, FEW, ODD),
    st.tuples(st.just("acknowledge"), ENDS, st.sampled_from((0, 200, 1000))),
    st.tuples(
        st.just("feed"),
        ENDS,
        FEW,
        st.sampled_from((token_batch, hidden_batch)),
        st.integers(0, 9),
        FEW,
    ),
    st.tuples(st.just("finish"), FEW, st.sampled_from(("failed", "bad input"))),
    st.tuples(st.just("close"), PEERS, FEW, FEW),
    st.tuples(st.just("wait"), st.sampled_from((20.0, 400.0))),
    st.tuples(st.just("sleep"), st.sampled_from((0.05, 16.0))),
    st.tuples(st.sampled_from(("gone", "silent")), PEERS),
    st.tuples(st.sampled_from(("drain", "give up", "serve less"))),
)
SAYINGS = st.lists(st.integers(0, 7).flatmap(lambda n: USUAL if n else RARE), min_size=20)


def say(host: Host, saying: tuple[Any, ...]) -> None:
    stages = host.host
    match saying:
        case "open", requester, session, epoch, more:
            host.open(requester, session, epoch, **more)
        case "feed", source, stream, make, start, rows:
            values = (7,) * (rows + 1) if make is token_batch else rows + 1
            host.feed(source, stream, make(values, start))
        case "go on", which, rows:
            for stage in host.stages()[which : which + 1]:  # what it lacks comes
                make = token_batch if stage.order.layers.start == 0 else hidden_batch
                values = (7,) * (rows + 1) if make is token_batch else rows + 1
                edge = stage.order.upstream
                host.feed(edge.peer, edge.stream, make(values, stage.next_position))
        case "finish", which, outcome:
            host.finish(which, outcome)
        case "close", requester, session, epoch:
            host.tell(requester, Close(session, epoch))
        case "resume", which, position:
            for stage in host.stages()[which : which + 1]:
                order = stage.order
                resume = Resume(order.session, order.epoch, order.leg, position)
                host.tell(stage.requester, resume)
        case "acknowledge", peer, left:
            host.under_way[peer] = left
            stages.refill()
        case "wait", seconds:
            host.wait(seconds)
        case "sleep", seconds:
            host.now += seconds
            host.fire()
        case "gone", peer:
            stages.peer_gone(peer)
        case "silent", peer:
            stages.peer_unresponsive(peer, "silent for 1.0 s")
        case ("drain",):
            stages.drain("leaving")
        case ("give up",):
            stages.give_up("leaving")
        case ("serve less",):
            stages.serve(Offered(MODEL, range(1)), KV_TOTAL)
    host.take()


@settings(max_examples=80, deadline=None)
@given(SAYINGS)
def test_whatever_is_said_the_stages_are_as_their_docstrings_say(
    sayings: list[tuple[Any, ...]],
) -> None:
    host = Host()
    drained: set[int] | None = None
    for saying in sayings:
        say(host, saying)
        _check(host)
        here = {id(stage) for stage in host.stages()}
        if drained is not None:
            assert here <= drained, "admitted by a node that leaves"
        if drained is not None or saying == ("drain",):
            drained = here
    while host.jobs:
        host.finish(0, "computed")
    host.wait(CONFIG.session_idle + CONFIG.unused_after)
    while host.jobs:
        host.finish(0, "computed")
    assert not host.stages()
    assert not host.host.jobs
    assert not host.host.held
    assert host.host.next_timeout() is None
    assert host.host.kv_used == 0


def _check(host: Host) -> None:
    stages, batcher = {stage.key: stage for stage in host.stages()}, host.host.work._batcher
    alone = host.host.work._alone
    waiting = [key for key in stages if key in batcher]
    assert len(batcher) == len(waiting), "somebody waits who is gone"
    if alone is not None:
        assert not waiting
        assert alone is stages[alone.key]
        waiting = [alone.key]
    assert not (waiting and not batcher.is_busy), "the engine rests while work waits"
    for stage in stages.values():
        _check_stage(stage)
        assert (stage.key in waiting) == (stage.job is None and bool(stage.queue))
        assert stage.job is None or stage.key in host.host.jobs[stage.job]
    for job, keys in host.host.jobs.items():
        assert all(key is None or stages[key].job == job for key in keys)
    assert set(host.host.held) <= set(stages)
    assert len(stages) <= CONFIG.max_sessions
    orders = [stage.order for stage in stages.values()]
    asked = [stage_bytes(MODEL, len(o.layers), o.positions, o.out_dtype) for o in orders]
    assert sum(asked) == host.host.kv_used <= KV_TOTAL
    table, orders_waiting = host.host._stages, host.host._admission.waiting
    assert table.waiting == sum(stage.waiting for stage in stages.values())
    assert table.waiting <= CONFIG.waiting_bytes + 4 * 2 * MODEL.d_model
    for requester in (HOG, OTHER):
        mine = [one for one in orders_waiting if one.requester == requester]
        assert len(mine) <= CONFIG.max_waiting // 8


def _check_stage(stage: Stage) -> None:
    at = stage.computed
    if stage.job is not None:
        assert stage.computed <= stage.job_end
        at = stage.job_end
    for batch in stage.queue:
        assert batch.start == at
        at = batch.end
    assert stage.inbox.position == stage.next_position == at
    assert stage.waiting >= sum(map(size_of, stage.queue))
    assert 0 <= stage.cursor <= len(stage.sent)
    if stage.order.sampling is None:
        assert sum(batch.rows for batch in stage.sent) == stage.computed


def test_an_order_that_means_another_model_is_refused() -> None:
    """The 32 bits of a space may be those of two models."""
    host = Host()
    ours = bytes.fromhex(MODEL.data_sig)
    host.open(HOG, 1, root=bytes(32))
    host.open(HOG, 2, root=ours)
    [refused] = host.heard(Refused)
    assert isinstance(refused, Refused)
    assert (refused.session, refused.code) == (1, Refusal.MODEL)
    assert MODEL.data_sig[:16] in refused.reason
    assert [stage.key[1] for stage in host.stages()] == [2]
    host.open(HOG, 2, epoch=1, root=bytes(32))
    assert [stage.order.epoch for stage in host.stages()] == [0]
