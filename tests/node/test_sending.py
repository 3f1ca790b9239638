"""Sending by class over real endpoints: a row waits for no bulk, nothing is lost unheard."""

from dataclasses import replace

import pytest

from p2pnode.node.config import OutboxConfig
from p2pnode.node.traffic_class import BREAKS_ANSWERS, Budget, Budgets, TrafficClass, class_of
from p2pnode.sansio import NodeId
from p2pnode.testing.links import Bernoulli, Link
from p2pnode.transport.config import TransportConfig
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame, MessageType, Slice
from tests.node.one_sender import OneSender

HOME = Link(latency=(0.02, 0.02), rate=12.5e6)
"""100 Mbit/s and 20 ms each way, with a buffer of 256 KiB."""

ROW = 2304
"""Bytes of a token's row: 576 numbers in f32."""

LARGE = 60_000
IDLE = 0.0203
"""Seconds that a row takes on :data:`HOME` where nothing else is sent."""

THINK, SYNC, PROMPT, REPLAY, GOSSIP, ASK, CACHE, WEIGHTS = TrafficClass


def beside(traffic: TrafficClass, link: Link, total: int) -> OneSender:
    """Send ``total`` bytes of a class as there is room for them, and a row each 11 ms beside."""
    sender = OneSender(link=link)
    sent = rows = 0
    next_row = sender.network.now
    while len(sender.numbers(traffic)) * LARGE < total:
        assert sender.network.now < 60
        while sent * LARGE < total and sender.outbox.room(sender.bob, traffic) > LARGE + 100:
            assert sender.send(traffic, sent, LARGE)
            sent += 1
        if sender.network.now >= next_row:
            assert sender.send(THINK, rows, ROW)
            rows, next_row = rows + 1, next_row + 0.011
        sender.network.run(0.001)
    sender.network.run(0.2)
    assert sorted(sender.numbers(THINK)) == list(range(rows))
    assert sorted(sender.numbers(traffic)) == list(range(sent))
    return sender


def quantile(ordered: list[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]


@pytest.mark.parametrize("traffic", [CACHE, WEIGHTS])
def test_a_row_beside_bulk_is_late_by_what_the_background_may_fill(traffic: TrafficClass) -> None:
    sender = beside(traffic, HOME, 8 << 20)
    delays = sender.delays(THINK)
    assert delays[0] < IDLE
    assert quantile(delays, 0.5) < IDLE + TransportConfig().background_delay
    assert quantile(delays, 0.99) < IDLE + 2 * TransportConfig().background_delay


def test_a_row_beside_a_replay_waits_for_what_is_on_its_way_alone() -> None:
    delays = beside(REPLAY, HOME, 8 << 20).delays(THINK)
    buffer = HOME.queue / 12.5e6
    assert quantile(delays, 0.5) < IDLE + buffer
    lossy = replace(HOME, loss=Bernoulli(0.005))
    delays = beside(REPLAY, lossy, 1 << 20).delays(THINK)
    assert quantile(delays, 0.9) < IDLE + LARGE / 12.5e6, "more than a message stood before it"


def test_where_nothing_waits_a_frame_goes_straight_to_the_transport() -> None:
    sender = OneSender(link=HOME)
    before = sender.endpoint.queued_bytes(sender.bob)
    assert sender.send(THINK, 1, ROW)
    assert sender.endpoint.queued_bytes(sender.bob) > before + ROW
    assert not sender.outbox.counters
    assert sender.outbox.queued(sender.bob) == {}


def test_what_comes_later_of_a_higher_class_leaves_before() -> None:
    sender = OneSender(link=HOME)
    for number in range(30):
        sender.send(WEIGHTS, number, LARGE)
        sender.send(CACHE, number, 3000)
    for traffic in (REPLAY, PROMPT, SYNC, THINK):
        sender.send(traffic, 0, 3000)
    assert set(sender.outbox.queued(sender.bob)) <= {CACHE, WEIGHTS, REPLAY}
    sender.network.run(5)
    came = [traffic for traffic, _, _ in sender.arrived[sender.bob]]
    assert max(came.index(traffic) for traffic in (THINK, SYNC, PROMPT, REPLAY)) < 8
    assert sender.numbers(CACHE) == list(range(30))
    assert came.index(CACHE) + 30 < len(came) - came[::-1].index(WEIGHTS)
    assert sender.outbox.counters["weights held back: more is on its way to the peer"] == 29


def test_a_close_is_late_by_no_more_than_a_share_behind_a_burst_of_rows() -> None:
    sender = OneSender(link=replace(HOME, rate=1e6))
    for number in range(400):
        sender.send(THINK, number, ROW)
    sender.send(SYNC, 0, 200)
    sender.network.run(5)
    came = [traffic for traffic, _, _ in sender.arrived[sender.bob]]
    handed_over = came.index(SYNC)
    sender.network.run(5)
    assert len(came) == 401
    assert handed_over < 200, "the whole burst left before it"


def test_what_has_no_room_is_refused_to_whoever_sends_and_counted() -> None:
    sender = OneSender(link=HOME)
    sender.network.partition([sender.alice], [("bob", 1)])
    for traffic in (WEIGHTS, ASK, THINK):
        number = 0
        while sender.send(traffic, number, LARGE):
            number += 1
            assert number < 500
        assert sender.outbox.room(sender.bob, traffic) < LARGE + 100
        refused = sender.outbox.counters[f"{traffic.label} refused: its queue to the peer is full"]
        assert refused == 1
        assert bool(sender.refused) == (traffic in BREAKS_ANSWERS)
    most = Budgets().mute + TransportConfig().mute_queue_bytes
    assert sender.outbox.under_way(sender.bob) <= most


def told_of(sender: OneSender, traffic: TrafficClass, size: int) -> list[tuple[NodeId, int]]:
    """Ask to be told when there is room; return what is told, with the room there was then."""
    told: list[tuple[NodeId, int]] = []

    def tell(peer: NodeId, of: TrafficClass, now: float) -> None:
        del now
        told.append((peer, sender.outbox.room(peer, of)))

    sender.call(lambda now: sender.outbox.when_room(sender.bob, traffic, size, tell))
    return told


def test_whoever_fills_a_queue_is_told_once_when_there_is_room_again() -> None:
    sender = OneSender(link=HOME)
    number = 0
    while sender.send(WEIGHTS, number, LARGE):
        number += 1
    told = told_of(sender, WEIGHTS, 1 << 20)
    assert told == []
    sender.network.run(0.02)
    assert told == []
    sender.network.run(5)
    assert [peer for peer, _ in told] == [sender.bob]
    assert 1 << 20 <= told[0][1] < Budgets().weights.each
    assert sender.outbox.next_timeout() is None
    assert sender.numbers(WEIGHTS) == list(range(number))


def test_what_waits_is_dropped_with_its_session_and_who_wanted_room_hears_of_it() -> None:
    sender = OneSender(link=HOME)
    for number in range(20):
        sender.send(WEIGHTS, number, LARGE)
    told = told_of(sender, WEIGHTS, 2 << 20)
    sender.call(lambda now: sender.endpoint.close(sender.bob, "over", now))
    sender.network.run(1)
    assert [peer for peer, _ in told] == [sender.bob]
    assert sender.outbox.counters["weights dropped: the session ended"] == 19
    assert sender.outbox.queued(sender.bob) == {}
    assert sender.outbox.next_timeout() is None


def test_what_breaks_answers_still_leaves_when_the_sessions_are_about_to_close() -> None:
    sender = OneSender(link=replace(HOME, rate=1e6))
    for number in range(100):
        sender.send(THINK, number, ROW)
    sender.send(SYNC, 0, 500)
    assert set(sender.outbox.queued(sender.bob)) == {THINK, SYNC}

    def leave(now: float) -> None:
        sender.outbox.sessions_close(now)
        sender.endpoint.close_when_flushed("leaving", now + 5, now)

    sender.call(leave)
    assert sender.outbox.queued(sender.bob) == {}
    sender.network.run(5)
    assert len(sender.arrived[sender.bob]) == 101
    assert not sender.endpoint.is_connected(sender.bob)


def test_what_the_transport_has_no_memory_for_is_tried_again() -> None:
    tight = replace(
        TransportConfig.simulation(),
        send_queue_bytes=128 << 10,
        mute_queue_bytes=128 << 10,
        unproven_bytes=1280 << 10,
    )
    sender = OneSender(("bob", "carol"), link=HOME, transport=tight)
    for number in range(40):
        for peer in sender.arrived:
            assert sender.send(PROMPT, number, LARGE, peer)
    sender.network.run(10)
    for peer in sender.arrived:
        assert sender.numbers(PROMPT, peer) == list(range(40))


def test_a_peer_that_takes_nothing_holds_up_no_other() -> None:
    names = tuple(f"peer {number}" for number in range(8))
    sender = OneSender(names, link=HOME)
    *silent, last = sender.arrived
    sender.network.partition([sender.alice], [(name, 1) for name in names[:-1]])
    for peer in silent:
        for number in range(40):
            sender.send(WEIGHTS, number, LARGE, peer)
    for number in range(40):
        sender.send(WEIGHTS, number, LARGE, last)
    sender.network.run(4)
    assert len(sender.numbers(WEIGHTS, last)) >= 10


def test_an_acknowledgement_has_its_own_peer_looked_at_and_no_other() -> None:
    names = tuple(f"peer {number}" for number in range(8))
    sender = OneSender(names, link=replace(HOME, rate=1e6))
    for peer in sender.arrived:
        for number in range(10):
            sender.send(WEIGHTS, number, LARGE, peer)
    sender.network.run(0.2)
    sender.network.run(5)
    assert all(len(sender.numbers(WEIGHTS, peer)) == 10 for peer in sender.arrived)
    assert sender.core.most_cleared == 1


@pytest.mark.parametrize(
    ("kind", "rows", "is_replay", "traffic"),
    [
        (MessageType.THINK, 1, False, THINK),
        (MessageType.THINK, 64, False, PROMPT),
        (MessageType.THINK, 1, True, REPLAY),
        (MessageType.THINK, 64, True, REPLAY),
        (MessageType.SYNC, 5, False, SYNC),
        (MessageType.ASK, 1, False, ASK),
        (MessageType.CRITIQUE, 1, False, ASK),
        (MessageType.CACHE, 8, False, CACHE),
    ],
)
def test_a_frame_is_of_the_class_of_its_type(
    kind: MessageType, rows: int, is_replay: bool, traffic: TrafficClass
) -> None:
    frame = Frame(kind, 1, 1, 7, slices=(Slice(DType.I8, (rows, 4), bytes(4 * rows)),))
    assert class_of(frame, is_replay=is_replay) is traffic
    assert class_of(Frame(MessageType.THINK, 1, 0, 7)) is THINK


def test_budgets_are_a_node_s_own() -> None:
    small = Budgets(ask=Budget(128 << 10, 1 << 20))
    sender = OneSender(link=HOME, config=OutboxConfig(budgets=small))
    taken = [sender.send(ASK, number, LARGE) for number in range(6)]
    assert taken == [True] * 3 + [False] * 3  # one is with the transport, two wait
