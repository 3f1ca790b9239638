"""The queue before the transport, as a state machine: nothing is lost, nothing waits for ever."""

from collections import Counter, deque
from dataclasses import replace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pnode.errors import ConfigError
from p2pnode.node.send_queue import MESSAGE_COST, PATIENCE, Message, SendQueues, Standing
from p2pnode.node.traffic_class import DELIVERIES, Budget, Budgets, TrafficClass
from p2pnode.sansio import NodeId
from p2pnode.transport.events import Delivery
from p2pnode.transport.messages import LEVELS
from p2pnode.wire.vframe import MAX_FRAME

SMALL = Budget(200_000, 1_000_000)
BUDGETS = Budgets(
    SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, 2_000_000, 1_000_000, 150_000
)
PEERS = [NodeId(bytes([number]) * 32) for number in range(4)]
peers = st.sampled_from(PEERS)
classes = st.sampled_from(TrafficClass)
sizes = st.sampled_from([0, 1, 300, 20_000, MAX_FRAME])
standings = st.sampled_from(Standing)


def message(number: int, size: int) -> Message:
    return Message("think", number.to_bytes(4, "big") + bytes(max(0, size - 4)))


class Queues(RuleBasedStateMachine):
    """Some peers' queues beside a plain model of them."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = SendQueues(BUDGETS)
        self.lines: dict[tuple[NodeId, TrafficClass], deque[Message]] = {}
        self.passed: dict[int, int] = {}  # bytes that left before each message that is first
        self.standing = dict.fromkeys(PEERS, Standing.PROVEN)
        self.count = 0

    def line(self, peer: NodeId, traffic: TrafficClass) -> deque[Message]:
        return self.lines.setdefault((peer, traffic), deque())

    def waiting(self, peer: NodeId) -> list[TrafficClass]:
        return [traffic for traffic in TrafficClass if self.line(peer, traffic)]

    @rule(peer=peers, standing=standings)
    def becomes(self, peer: NodeId, standing: Standing) -> None:
        self.standing[peer] = standing

    @rule(peer=peers, traffic=classes, size=sizes)
    def put(self, peer: NodeId, traffic: TrafficClass, size: int) -> None:
        self.count += 1
        new = message(self.count, size)
        room = self.queues.room(peer, traffic, self.standing[peer])
        taken = self.queues.put(peer, traffic, new, self.standing[peer])
        assert taken == (len(new.data) <= room)
        if taken:
            self.line(peer, traffic).append(new)

    @rule(peer=peers, level=st.integers(0, 2), many=st.integers(1, 6))
    def leave(self, peer: NodeId, level: int, many: int) -> None:
        for _ in range(many):
            turn = self.queues.turn(peer, level)
            waiting = self.waiting(peer)
            permitted = [one for one in waiting if LEVELS[DELIVERIES[one]] <= level]
            if turn is None:
                assert not permitted
                return
            first = self.queues.first(peer, turn.traffic)
            is_highest = permitted and turn.traffic is permitted[0]
            is_overdue = self.passed.get(id(first), 0) >= PATIENCE * len(first.data)
            assert is_highest or is_overdue
            assert turn.delivery in {Delivery.LATENCY, DELIVERIES[turn.traffic]}
            assert self.queues.take(peer, turn.traffic) is first
            assert self.line(peer, turn.traffic).popleft() is first, "the order of a class"
            for lower in TrafficClass:
                if lower > turn.traffic and (line := self.line(peer, lower)):
                    passed = self.passed.get(id(line[0]), 0) + len(first.data)
                    self.passed[id(line[0])] = passed
                    crossing = (len(TrafficClass) - 1) * MAX_FRAME
                    assert passed <= PATIENCE * len(line[0].data) + crossing, "it starves"

    @rule(peer=peers)
    def drop(self, peer: NodeId) -> None:
        dropped = self.queues.drop(peer)
        assert dropped == {traffic: len(self.line(peer, traffic)) for traffic in self.waiting(peer)}
        for traffic in TrafficClass:
            self.line(peer, traffic).clear()

    @precondition(lambda self: self.lines)
    @invariant()
    def budgets_hold(self) -> None:
        of_class: Counter[TrafficClass] = Counter()
        for peer in PEERS:
            held = {
                traffic: sum(len(one.data) + MESSAGE_COST for one in self.line(peer, traffic))
                for traffic in self.waiting(peer)
            }
            assert self.queues.by_class(peer) == held
            assert self.queues.held(peer) == sum(held.values())
            assert (peer in self.queues) == bool(held)
            assert all(of <= SMALL.each for of in held.values())
            of_class.update(held)
        assert bool(self.queues) == bool(of_class)
        assert all(held <= SMALL.total for held in of_class.values())
        assert of_class.total() <= BUDGETS.total + BUDGETS.unproven


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("size", [300, 2304, MAX_FRAME])
def test_where_all_send_without_end_each_class_has_a_share_and_the_highest_most(size: int) -> None:
    queues, left = SendQueues(Budgets()), Counter[TrafficClass]()
    for traffic in TrafficClass:
        queues.put(PEERS[0], traffic, Message("think", bytes(size)), Standing.PROVEN)
    for _ in range(1600):
        turn = queues.turn(PEERS[0], 2)
        assert turn is not None
        left[turn.traffic] += len(queues.take(PEERS[0], turn.traffic).data)
        queues.put(PEERS[0], turn.traffic, Message("think", bytes(size)), Standing.PROVEN)
    assert left[TrafficClass.THINK] > left.total() / 2
    assert all(left[traffic] >= left.total() / 32 for traffic in TrafficClass)


def test_what_was_passed_for_long_enough_travels_as_what_passed_it() -> None:
    queues = SendQueues(Budgets())
    weights = Message("cache", bytes(1000))
    queues.put(PEERS[0], TrafficClass.WEIGHTS, weights, Standing.PROVEN)
    think = Message("think", bytes(500))
    deliveries = []
    for _ in range(31):
        queues.put(PEERS[0], TrafficClass.THINK, think, Standing.PROVEN)
        turn = queues.turn(PEERS[0], 0)
        assert turn is not None
        deliveries.append((turn.traffic, turn.delivery))
        queues.take(PEERS[0], turn.traffic)
    assert deliveries[30] == (TrafficClass.WEIGHTS, Delivery.LATENCY)
    assert {traffic for traffic, _ in deliveries[:30]} == {TrafficClass.THINK}


def fill(queues: SendQueues, peer: NodeId, traffic: TrafficClass, standing: Standing) -> int:
    held = 0
    while queues.put(peer, traffic, Message("ask", bytes(60_000)), standing):
        held += 60_000
    return held


@pytest.mark.parametrize("traffic", TrafficClass)
def test_many_peers_share_a_total_and_leave_something_for_the_next(traffic: TrafficClass) -> None:
    queues, budget = SendQueues(Budgets()), Budgets().of_classes()[traffic]
    crowd = [NodeId(number.to_bytes(32, "big")) for number in range(11)]
    held = [fill(queues, peer, traffic, Standing.PROVEN) for peer in crowd]
    assert held[0] > budget.each - 2 * MAX_FRAME
    assert sum(held) <= budget.total
    assert held[9] > 0


def test_strangers_share_little_and_are_weighed_anew_when_they_prove_themselves() -> None:
    queues = SendQueues(Budgets())
    strangers = [NodeId(number.to_bytes(32, "big")) for number in range(40)]
    held = [fill(queues, peer, TrafficClass.PROMPT, Standing.UNPROVEN) for peer in strangers]
    assert sum(held) <= Budgets().unproven
    assert max(held) <= Budgets().mute
    more = fill(queues, strangers[0], TrafficClass.PROMPT, Standing.PROVEN)
    assert held[0] + more > 5 * Budgets().mute
    assert fill(queues, strangers[-1], TrafficClass.PROMPT, Standing.UNPROVEN) > 0


def test_a_peer_that_stopped_to_acknowledge_gets_no_more_than_a_mute_one() -> None:
    queues = SendQueues(Budgets())
    held = fill(queues, PEERS[0], TrafficClass.PROMPT, Standing.MUTE)
    assert Budgets().mute - 2 * MAX_FRAME < held <= Budgets().mute
    assert fill(queues, PEERS[0], TrafficClass.THINK, Standing.MUTE) == 0


@pytest.mark.parametrize(
    "broken",
    [
        lambda: Budget(0, 0),
        lambda: Budget(MAX_FRAME, 100 * MAX_FRAME),
        lambda: Budget(1 << 20, 4 << 20),
        lambda: replace(Budgets(), mute=0),
        lambda: replace(Budgets(), total=1 << 19),
        lambda: replace(Budgets(), unproven=0),
    ],
)
def test_a_budget_that_holds_no_message_is_refused(broken: object) -> None:
    assert callable(broken)
    with pytest.raises(ConfigError):
        broken()
