"""What one requester may have of a stage: everything alone, a share beside others."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode import CORES
from p2pnode.engine.base import KvSizes, StageCost
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.admission import Admission
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import (
    Close,
    Edge,
    Failed,
    Open,
    Opened,
    Refused,
    Resume,
)
from p2pnode.inference.shares import Shares
from p2pnode.inference.stage import Stage
from p2pnode.inference.work import Forward, forwards_of
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from tests.inference.one_host import HOG, OTHER, POSITIONS, THIRD, US, Host

# Sessions and memory


def test_one_requester_alone_may_have_everything() -> None:
    host = Host(sessions=4)
    for session in range(4):
        host.open(HOG, session)
    assert host.held(HOG) == 4


@pytest.mark.parametrize("sessions", [4, 100])
def test_who_has_more_than_its_share_gives_way_when_others_ask(sessions: int) -> None:
    host = Host(sessions=sessions, kv_sessions=4)
    for session in range(4):
        host.open(HOG, session)
        host.feed(HOG, session)
    host.open(OTHER, 10)
    host.open(OTHER, 11)
    assert (host.held(HOG), host.held(OTHER)) == (2, 2)
    gone = [one.session for one in host.heard(HOG, Refused) if isinstance(one, Refused)]
    assert gone == [3, 2]  # the newest first
    assert host.core.all_counters()["session refused: share"] == 2


def test_the_node_itself_is_served_however_many_keys_hold_one_session_each() -> None:
    host = Host(sessions=4)
    for number in range(4):
        sybil = node_id(f"sybil {number}")
        host.open(sybil, number)
        host.feed(sybil, number)
    host.open(OTHER, 10)
    assert host.held(OTHER) == 0  # nobody has more than its share
    host.open(US, 11)
    assert host.held(US) == 1
    assert len(host.core.stages()) == 4


def test_what_was_never_used_goes_first() -> None:
    host = Host(sessions=4)
    for session in range(4):
        host.open(HOG, session)
        if session != 1:
            host.feed(HOG, session)
    host.open(OTHER, 10)
    assert [one.session for one in host.heard(HOG, Refused) if isinstance(one, Refused)] == [1]


def test_two_sessions_that_are_each_larger_than_a_share_do_not_end_each_other() -> None:
    host = Host(kv_sessions=1.5)
    host.open(HOG, 0)
    host.feed(HOG, 0)
    host.open(OTHER, 10)
    assert (host.held(HOG), host.held(OTHER)) == (1, 0)
    host.tell(HOG, Close(0, 0))
    assert host.held(OTHER) == 1
    host.open(HOG, 1)
    assert (host.held(HOG), host.held(OTHER)) == (0, 1)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=4))
def test_who_gave_way_does_not_get_its_place_back_by_asking_again(sizes: list[int]) -> None:
    asking = [Held(node_id(f"r{at}"), size, True, 0.0) for at, size in enumerate(sizes)]
    held: list[Held] = []
    turns = 0
    while asking and turns < 100:
        turns += 1
        one = asking.pop(0)
        shares, needed = Shares(held, 100, 12), one.kv_bytes
        going = shares.give_way(one.requester, needed) if shares.lack(needed) else []
        if going is not None:
            held = [other for other in held if other not in going] + [one]
            asking += going  # it asks for its place again; who waits asks no more here
    assert turns < 100


def test_an_order_of_an_older_epoch_passes_none_that_waits() -> None:
    """Else both are admitted in turn under one key, and the door of the first leads nowhere."""
    host = Host(kv_sessions=2.5)

    def order(session: int, positions: int, epoch: int, stream: int) -> Open:
        up, down = Edge(HOG, stream), Edge(THIRD, 1000 + session)
        return Open(session, epoch, 1, range(1), positions, up, down, "f16", None, 0)

    host.tell(HOG, order(1, 2 * POSITIONS, 0, 1))
    host.tell(HOG, order(2, 2 * POSITIONS, 5, 50))  # waits
    host.tell(HOG, order(2, POSITIONS // 4, 3, 30))  # would fit
    assert host.held(HOG) == 1
    host.tell(HOG, Close(1, 9))
    assert [stage.order.epoch for stage in host.core.stages()] == [5]
    host.tell(HOG, Close(2, 9))
    host.feed(HOG, 30)
    assert host.core.all_counters()["activation of an older epoch or an unknown stream"] == 1


def test_beyond_its_share_an_order_waits_and_is_answered_when_there_is_room() -> None:
    host = Host(sessions=4)
    for session in range(2):
        host.open(HOG, session)
        host.open(OTHER, 10 + session)
    host.open(HOG, 2)
    assert len(host.heard(HOG, Opened)) == 2
    assert not host.heard(HOG, Refused)
    assert host.core.all_counters()["order waits for room"] == 1
    host.wait(0.5)
    host.tell(OTHER, Close(10, 0))
    assert len(host.heard(HOG, Opened)) == 3


def test_an_order_that_waits_in_vain_is_refused_before_its_requester_has_gone() -> None:
    host = Host(sessions=4)
    for session in range(2):
        host.open(HOG, session)
        host.open(OTHER, 10 + session)
    host.open(HOG, 2)
    host.wait(InferenceConfig().open_timeout - 0.1)
    [refused] = host.heard(HOG, Refused)
    assert isinstance(refused, Refused)
    assert refused.code == "sessions"


def test_a_node_that_drains_refuses_what_waits_and_admits_nothing_it_made_room_for() -> None:
    host = Host(sessions=2)
    for session in range(3):
        host.open(HOG, session)
    host.core.drain("leaving")
    host.take()
    [refused] = host.heard(HOG, Refused)
    assert isinstance(refused, Refused)
    assert (refused.session, refused.code) == (2, "draining")
    host.core.give_up("leaving")
    host.wait(3)
    assert not host.core.stages()


def test_an_order_for_layers_that_are_no_longer_held_is_refused_while_it_waits() -> None:
    host = Host(sessions=1)
    host.open(HOG, 0)
    host.open(HOG, 1)
    host.core.serve(host.engine.info, range(1, 2), 1 << 20)
    host.take()
    [refused] = host.heard(HOG, Refused)
    assert isinstance(refused, Refused)
    assert (refused.session, refused.code) == (1, "layers")
    host.tell(HOG, Close(0, 0))
    assert not host.core.stages()


def test_whether_an_order_can_be_served_is_asked_again_when_its_turn_comes() -> None:
    host = Host(sessions=1)
    host.open(HOG, 0)
    host.open(HOG, 1)
    host.core._host._admission.drain("a moment ago")  # and nobody looked at what waits
    host.tell(HOG, Close(0, 0))
    assert not host.core.stages()
    assert host.core.all_counters()["session refused: draining"] == 1


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a class that compiled code makes")
def test_while_nothing_changes_nobody_looks_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(sessions=8, max_waiting=64)
    for session in range(4):
        host.open(HOG, session)
        host.open(OTHER, 10 + session)
    made: list[Shares[Stage]] = []
    shares = Admission.shares

    def count(admission: Admission, stages: Iterable[Stage]) -> Shares[Stage]:
        made.append(shares(admission, stages))
        return made[-1]

    monkeypatch.setattr(Admission, "shares", count)
    for session in range(20, 24):
        host.open(HOG, session)
        host.open(OTHER, 10 + session)
    assert len(made) == 8
    host.wait(1.4)
    assert len(made) == 8
    host.core.peer_gone(THIRD)
    host.wait(0.05)
    assert len(made) == 8
    host.wait(0.1)  # all are refused in one look
    assert len(made) == 9
    assert host.core.all_counters()["session refused: sessions"] == 8


def test_a_session_that_ended_by_itself_makes_room_within_a_moment() -> None:
    host = Host(sessions=1)
    host.open(OTHER, 0)
    host.open(HOG, 1)
    host.wait(1.0)
    host.core.peer_gone(OTHER)
    host.wait(0.05)
    assert host.held(HOG) == 1


def test_a_closed_or_departed_requester_waits_for_nothing() -> None:
    host = Host(sessions=1)
    host.open(HOG, 0)
    host.open(HOG, 1)
    host.tell(HOG, Close(1, 0))
    host.open(HOG, 2)
    host.core.peer_gone(HOG)
    host.open(OTHER, 5)
    host.wait(3)
    assert host.held(HOG) == 0
    assert host.held(OTHER) == 1


def test_orders_that_wait_are_bounded_and_more_of_one_requester_are_refused_at_once() -> None:
    host = Host(sessions=2, max_waiting=16)
    host.open(HOG, 0)
    host.open(HOG, 1)
    for session in range(2, 40):
        host.open(HOG, session)
    assert len(host.core._host._admission.waiting) == 2
    assert len(host.heard(HOG, Refused)) == 36


def test_what_nobody_uses_is_freed_in_seconds() -> None:
    host = Host(sessions=64)
    for session in range(64):
        host.open(HOG, session)
    host.wait(InferenceConfig().unused_after + 0.1)
    assert not host.core.stages()
    assert host.core.all_counters()["session freed: never used"] == 64


def test_the_ad_says_what_another_could_have() -> None:
    host = Host(sessions=64, kv_sessions=4)
    for session in range(4):
        host.open(HOG, session)
    assert host.core.kv_spoken_for <= host.core.kv_used / 2 + 1


def test_a_session_is_admitted_by_what_the_engine_makes_of_it() -> None:
    host, model = Host(), Host().engine.info
    sizes = KvSizes(256)  # a session has 200 positions
    for positions, is_admitted in ((200, False), (256, True)):
        total = stage_bytes(model, 1, POSITIONS, "f16")
        total += (positions - POSITIONS) * model.kv_bytes_per_token_layer
        host.core.serve(model, host.engine.layers, total, None, sizes)
        host.open(HOG, positions)
        assert bool(host.held(HOG)) == is_admitted
    assert host.core.kv_used == stage_bytes(model, 1, POSITIONS, "f16", None, sizes) == total


def test_an_order_larger_than_the_node_is_refused_at_once() -> None:
    host = Host(kv_sessions=0.5)
    host.open(HOG, 0)
    [refused] = host.heard(HOG, Refused)
    assert isinstance(refused, Refused)
    assert refused.code == "memory"


@dataclass(frozen=True)
class Held:
    requester: NodeId
    kv_bytes: int
    is_used: bool
    admitted_at: float


@given(
    st.lists(st.tuples(st.sampled_from((HOG, OTHER, THIRD)), st.integers(1, 50), st.booleans())),
    st.integers(1, 60),
)
def test_nobody_within_its_share_gives_way(
    sessions: list[tuple[NodeId, int, bool]], needed: int
) -> None:
    total, most = 100, 12
    held = [Held(one, size, used, float(at)) for at, (one, size, used) in enumerate(sessions)]
    while sum(one.kv_bytes for one in held) > total or len(held) > most:
        held.pop()
    going = Shares(held, total, most).give_way(US, needed)
    requesters = {US, *(one.requester for one in held)}
    left = [one for one in held if going is None or one not in going]
    if going is None:
        return
    assert sum(one.kv_bytes for one in left) + needed <= total
    assert len(left) < most
    for peer in requesters:
        lost = [one for one in going if one.requester == peer]
        before = sum(one.kv_bytes for one in held if one.requester == peer)
        count = sum(one.requester == peer for one in held)
        if before <= total / len(requesters) and count <= max(1, most // len(requesters)):
            assert not lost


# The engine


def steps(host: Host) -> Iterator[list[NodeId]]:
    while host.jobs:
        yield [NodeId(bytes(part.session[:32])) for part in forwards_of(host.jobs[0].work)]
        host.compute()


def test_what_came_while_the_engine_computed_is_computed_together() -> None:
    host = Host(sessions=64)
    host.core.measured(host.space, StageCost(10, 10, 0, 10_000))
    for session in range(8):
        host.open(HOG, session)
        host.feed(HOG, session)
    host.open(OTHER, 20)
    host.feed(OTHER, 20)
    assert len(host.jobs) == 1, "nothing is handed to the engine ahead"
    first, second = list(steps(host))
    assert first == [HOG]
    assert sorted(second) == sorted([HOG] * 7 + [OTHER])


def test_requesters_take_turns_at_an_engine_whose_speed_is_unknown() -> None:
    host = Host(sessions=64)
    for session in range(8):
        host.open(HOG, session)
        host.feed(HOG, session)
    host.open(OTHER, 20)
    host.feed(OTHER, 20)
    order = list(steps(host))
    assert OTHER in order[1]
    assert len(order) > 2, "steps are short where nobody knows better"


def test_without_batching_requesters_take_turns_one_session_after_the_other() -> None:
    host = Host(sessions=64, batching=False)
    for session in range(8):
        host.open(HOG, session)
        host.feed(HOG, session)
    host.open(OTHER, 20)
    host.feed(OTHER, 20)
    order = list(steps(host))
    assert all(len(step) == 1 for step in order)
    assert order.index([OTHER]) <= 2


def test_a_closed_session_leaves_the_engine_to_others() -> None:
    host = Host(sessions=64)
    for session in range(6):
        host.open(HOG, session)
        host.feed(HOG, session)
    for session in range(5):
        host.tell(HOG, Close(session, 0))
    assert any(
        part.session[32:40] == (5).to_bytes(8, "big")
        for job in host.jobs
        for part in forwards_of(job.work)
    )


def test_a_stage_whose_input_is_void_takes_no_turn() -> None:
    """Its turn came when the stage before it had been replaced: the node ended."""
    host = Host(sessions=64)
    for session in range(4):
        host.open(HOG, session)
        host.feed(HOG, session)
    host.open(HOG, 3, epoch=1, up=OTHER)
    while host.jobs:
        host.compute()
    assert [stage.computed for stage in host.core.stages()] == [3, 3, 3, 0]
    host.feed(OTHER, 3)
    host.compute()
    assert [stage.computed for stage in host.core.stages()] == [3, 3, 3, 3]


def test_a_job_has_so_many_rows_at_most() -> None:
    host = Host(job_rows=8)
    host.open(HOG, 0)
    host.feed(HOG, 0, rows=3)
    for start in range(3, 30, 3):
        host.feed(HOG, 0, 3, start)
    while host.jobs:
        work = host.jobs[0].work
        assert isinstance(work, Forward)
        assert sum(batch.rows for batch in work.batches) <= 8
        host.compute()
    assert host.core.stages()[0].computed == 30


def test_what_waits_to_be_computed_is_bounded_and_shared() -> None:
    host = Host(sessions=64, waiting_bytes=400)
    host.open(HOG, 0)
    host.open(OTHER, 20)
    for start in range(0, 90, 3):
        host.feed(HOG, 0, 3, start)  # 12 bytes each
        host.feed(OTHER, 20, 3, start)
    dropped = host.core.all_counters()["activation dropped: too many wait to be computed"]
    assert dropped > 0
    waiting = {stage.requester: stage.waiting for stage in host.core.stages()}
    assert sum(waiting.values()) <= 400 + 24
    assert abs(waiting[HOG] - waiting[OTHER]) <= 24


# A look does not undo what waits


def test_a_re_opening_in_place_keeps_what_waits_and_tells_what_is_computed() -> None:
    host = Host(job_rows=3)
    host.open(HOG, 0)
    for start in range(0, 12, 3):
        host.feed(HOG, 0, 3, start)
    host.compute()
    host.open(HOG, 0, epoch=1)
    [_, opened] = host.heard(HOG, Opened)
    assert isinstance(opened, Opened)
    assert (opened.next_position, opened.computed) == (12, 3)
    while host.jobs:
        host.compute()
    assert host.core.stages()[0].computed == 12
    assert not host.core.all_counters()["activation received twice"]


# Replays


def replaying(mutes: int) -> Host:
    """Return a host with 20 batches of 192 bytes, which it may replay."""
    host = Host(replay_window=1000, replay_total=3000)
    host.open(HOG, 0)
    for start in range(0, 60, 3):
        host.feed(HOG, 0, 3, start)
    while host.jobs:
        host.compute()
    host.sent.clear()
    for number in range(mutes):
        host.open(HOG, 0, down=node_id(f"mute{number}"), epoch=1 + number)
        for _ in range(3):
            host.tell(HOG, Resume(0, 1 + number, 1, 0))
        for event in host.sent[sum(host.under_way.values()) // 192 :]:
            host.under_way[event.peer] = host.under_way.get(event.peer, 0) + 192
    return host


def test_a_replay_goes_as_far_as_its_peer_has_room_and_on_when_it_has_more() -> None:
    host = replaying(mutes=1)
    assert len(host.sent) == 6
    assert host.core.held
    for _ in range(100):
        host.under_way.clear()
        host.core.refill()
        host.take()
    assert [event.frame.frame_seq for event in host.sent] == [1 + at for at in range(0, 60, 3)]
    assert not host.core.held


def test_a_batch_that_is_held_back_is_counted_once_however_often_it_is_tried() -> None:
    host = replaying(mutes=1)
    before = host.core.all_counters()["batch held back: its peer has not taken the last"]
    assert host.core.held
    for _ in range(10):
        host.core.refill()
    assert host.core.all_counters()["batch held back: its peer has not taken the last"] == before


def test_peers_that_take_nothing_cost_a_window_each_and_the_total_together() -> None:
    host = replaying(mutes=40)
    assert max(host.under_way.values()) <= 1000 + 192
    assert sum(host.under_way.values()) <= 3000 + 40 * 192  # to an idle peer one always goes
    assert host.core.all_counters()["batch held back: its peer has not taken the last"]


# Whatever is said

PEERS = st.sampled_from((HOG, OTHER))
FEW = st.integers(0, 3)
OPENS = st.tuples(st.just("open"), PEERS, FEW, FEW, PEERS, FEW)
SAYINGS = st.one_of(
    OPENS,
    OPENS,
    st.tuples(st.just("close"), PEERS, FEW, FEW),
    st.tuples(st.just("feed"), PEERS, FEW, st.integers(0, 9), st.sampled_from((1, 3, 190))),
    st.tuples(st.just("resume"), PEERS, FEW, FEW, st.integers(0, 9)),
    st.tuples(st.just("compute")),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 1.0, 20.0))),
    st.tuples(st.just("gone"), PEERS),
    st.tuples(st.just("acknowledge"), st.integers(0, 2000)),
)


def say(host: Host, saying: tuple[Any, ...]) -> None:
    match saying:
        case "open", requester, session, epoch, up, stream:
            host.open(requester, session, epoch=epoch, up=up, stream=stream)
        case "close", requester, session, epoch:
            host.tell(requester, Close(session, epoch))
        case "feed", source, stream, start, rows:
            with suppress(RemoteProtocolError):
                host.feed(source, stream, rows, start)
        case "resume", requester, session, epoch, position:
            host.tell(requester, Resume(session, epoch, 1, position))
        case ("compute",):
            if host.jobs:
                host.compute()
        case "wait", seconds:
            host.wait(seconds)
        case "gone", requester:
            host.core.peer_gone(requester)
        case "acknowledge", left:
            host.under_way = {THIRD: left}
            host.core.refill()
    host.take()


@given(st.lists(SAYINGS, max_size=60))
def test_whatever_is_said_every_stage_has_one_door_and_what_waits_adds_up(
    sayings: list[tuple[Any, ...]],
) -> None:
    host = Host(sessions=2, kv_sessions=2, waiting_bytes=100, replay_window=300)
    for saying in sayings:
        say(host, saying)
        table = host.core._host._stages
        assert {table.behind(*edge(stage)).key for stage in table} == {  # type: ignore[union-attr]
            stage.key for stage in table
        }
        assert len(table._doors) == len(table)
        assert table.waiting == sum(stage.waiting for stage in table)
        assert len(table) <= 2
        assert host.core.kv_used <= table_room(host)


def edge(stage: Stage) -> tuple[NodeId, int]:
    return stage.order.upstream.peer, stage.order.upstream.stream


def table_room(host: Host) -> int:
    return 2 * stage_bytes(host.engine.info, 1, POSITIONS, "f16")


def test_an_order_that_waits_finds_its_stream_taken() -> None:
    host = Host(sessions=2)
    for session in range(2):
        host.open(HOG, session)
    host.open(HOG, 2, stream=7)
    host.open(HOG, 3, stream=7)
    for session in range(2):
        host.tell(HOG, Close(session, 0))
    assert [stage.key[1] for stage in host.core.stages()] == [2]
    assert host.core.all_counters()["order that waited, and came to nothing"] == 1


def test_two_orders_of_one_stage_that_wait_become_one_stage() -> None:
    """Where the older one came later, the stream of the first led to a stage that was gone."""
    host = Host(sessions=2)
    for session in range(2):
        host.open(HOG, session)
    host.open(HOG, 2, stream=7, epoch=1)
    host.open(HOG, 2, stream=8, epoch=0)
    for session in range(2):
        host.tell(HOG, Close(session, 0))
    assert [stage.order.epoch for stage in host.core.stages()] == [1]
    host.tell(HOG, Close(2, 1))
    for stream in (7, 8):
        host.feed(HOG, stream)
    assert not host.core.stages()


# What no neighbour may send


def test_a_stage_names_who_sent_it_what_is_no_use() -> None:
    host = Host()
    host.open(HOG, 0)
    with pytest.raises(RemoteProtocolError):
        host.feed(HOG, 0, rows=1, start=POSITIONS)
    host.take()
    [failed] = host.heard(HOG, Failed)
    assert isinstance(failed, Failed)
    assert failed.culprit == HOG
    assert not host.core.stages()
