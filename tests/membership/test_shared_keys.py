"""A card was copied: two machines with one key in one swarm."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from p2pnode.errors import RemoteProtocolError
from p2pnode.membership import (
    Health,
    KeyShared,
    MemberDied,
    MembershipConfig,
    MembershipEvent,
    OwnKeyUsedElsewhere,
    Swim,
    simulation,
)
from p2pnode.membership.records import Record, sign_record
from p2pnode.membership.shared_keys import SharedKeys
from p2pnode.sansio import NodeId
from p2pnode.testing.membership import TAG, Swarm, ToySigner, toy_verify

LATENCY = 0.002


class Cloned:
    """Machines, two of which may have one key; each session leads to the machine it began with."""

    def __init__(self) -> None:
        self.now = 0.0
        self.machines: dict[str, Swim] = {}
        self.routes: dict[tuple[str, NodeId], str] = {}
        self.events: list[tuple[float, str, MembershipEvent]] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def start(self, machine: str, key: str, boot_epoch: int, host: str) -> None:
        self.machines[machine] = Swim(
            simulation(),
            ToySigner(key),
            toy_verify,
            TAG,
            boot_epoch,
            ((host, 4747),),
            b"ad",
            Random(machine),
            self.now,
            is_heard=lambda peer, now: (machine, peer) in self.routes,
        )

    def connect(self, one: str, other: str) -> None:
        for a, b in ((one, other), (other, one)):
            self.routes[a, self.machines[b].node_id] = b
        for a, b in ((one, other), (other, one)):
            self.machines[a].join(self.machines[b].node_id, self.now)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            self._collect()
            due = [(c.next_timeout(), name) for name, c in self.machines.items()]
            timers = [(at, name) for at, name in due if at is not None]
            at, name = min(timers)
            if self._agenda and self._agenda[0][0] <= at:
                moment, _, deliver = heapq.heappop(self._agenda)
                if moment > until:
                    heapq.heappush(self._agenda, (moment, 0, deliver))
                    break
                self.now = moment
                deliver()
            elif at > until:
                break
            else:
                self.now = max(self.now, at)
                self.machines[name].handle_timeout(self.now)
        self.now = until

    def told(self, machine: str, kind: type) -> list[tuple[float, MembershipEvent]]:
        return [(at, e) for at, who, e in self.events if who == machine and isinstance(e, kind)]

    def _collect(self) -> None:
        for name, core in self.machines.items():
            self.events += [(self.now, name, event) for event in core.take_events()]
            for outgoing in core.datagrams_to_send():
                to = self.routes.get((name, outgoing.destination))
                if to is not None:
                    self._number += 1
                    self._deliver_later(to, outgoing.payload, core.node_id)

    def _deliver_later(self, to: str, payload: bytes, source: NodeId) -> None:
        def deliver() -> None:
            if to in self.machines:
                try:
                    self.machines[to].receive_datagram(payload, source, self.now)
                except RemoteProtocolError:
                    raise AssertionError("an honest machine was refused") from None

        heapq.heappush(self._agenda, (self.now + LATENCY, self._number, deliver))


@pytest.fixture
def cloned() -> Cloned:
    """``a`` and its ``clone``; ``c`` has a session with the one, ``d`` with the other."""
    lab = Cloned()
    lab.start("c", "c", 1, "192.0.2.3")
    lab.start("d", "d", 1, "192.0.2.4")
    lab.start("a", "a", 10, "192.0.2.1")
    lab.connect("c", "d")
    lab.connect("a", "c")
    lab.run(3)
    lab.start("clone", "a", 13, "192.0.2.2")
    lab.connect("clone", "d")
    return lab


def test_every_machine_names_both_places(cloned: Cloned) -> None:
    cloned.run(30)
    a = cloned.machines["a"].node_id
    here, there = (("192.0.2.1", 4747),), (("192.0.2.2", 4747),)
    assert [e for _, e in cloned.told("a", OwnKeyUsedElsewhere)] == [OwnKeyUsedElsewhere(there)]
    assert [e for _, e in cloned.told("clone", OwnKeyUsedElsewhere)] == [OwnKeyUsedElsewhere(here)]
    for third in ("c", "d"):
        ((at, event),) = cloned.told(third, KeyShared)
        assert isinstance(event, KeyShared)
        assert event.node_id == a
        assert sorted(event.addresses) == [here, there]
        assert at < 10


def test_nobody_flaps_for_long(cloned: Cloned) -> None:
    cloned.run(20)
    before = Counter({name: len(cloned.told(name, MemberDied)) for name in "cd"})
    versions = {name: cloned.machines[name].record.version for name in ("a", "clone")}
    cloned.run(600)
    for name in "cd":
        assert before[name] <= 10
        assert len(cloned.told(name, MemberDied)) - before[name] == 0
    for name, version in versions.items():
        assert cloned.machines[name].record.boot_epoch - version.boot_epoch <= 20
    # Each believes the machine that its own session leads to.
    a = cloned.machines["a"].node_id
    for name, machine in (("c", "a"), ("d", "clone")):
        member = cloned.machines[name].member(a)
        assert member is not None
        assert member.health is Health.ALIVE
        assert member.record.addresses == cloned.machines[machine].record.addresses


def test_once_the_other_is_gone_the_record_is_ours_again(cloned: Cloned) -> None:
    cloned.run(30)
    clone = cloned.machines.pop("clone")
    del cloned.routes["d", clone.node_id]
    cloned.connect("a", "d")
    cloned.run(150)
    for name in "cd":
        member = cloned.machines[name].member(clone.node_id)
        assert member is not None
        assert member.record == cloned.machines["a"].record
        assert member.health is Health.ALIVE


def test_it_is_told_again_while_it_goes_on_and_no_more_after_the_cure(cloned: Cloned) -> None:
    cloned.run(1800)
    for name, kind in (("c", KeyShared), ("d", KeyShared), ("a", OwnKeyUsedElsewhere)):
        moments = [at for at, _ in cloned.told(name, kind)]
        pauses = [later - at for at, later in itertools.pairwise([*moments, cloned.now])]
        assert max(pauses) < 600, (name, pauses)
        assert min(pauses[:-1]) >= 300, (name, pauses)
    clone = cloned.machines.pop("clone")
    del cloned.routes["d", clone.node_id]
    cloned.connect("a", "d")
    cloned.run(600)
    before = len(cloned.events)
    cloned.run(1800)
    after = [event for _, _, event in cloned.events[before:]]
    assert not [one for one in after if isinstance(one, KeyShared | OwnKeyUsedElsewhere)]


def test_a_restart_and_a_clock_set_back_work_at_once() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    for boot_epoch in (1 << 48, 5, 6, 0):
        swarm.kill("c")
        swarm.run(0.5)
        swarm.start("c", boot_epoch=boot_epoch)
        swarm.join("c", "a")
        swarm.run(0.5)
        assert swarm.agrees()
    assert swarm.count(KeyShared, OwnKeyUsedElsewhere) == 0


def test_a_node_that_crashes_again_and_again_is_not_two() -> None:
    events: list[MembershipEvent] = []
    shared = SharedKeys(MembershipConfig(), lambda peer, now: True, events, Counter())
    for life in range(30):
        shared.renewed(record(life, port=4000 + life), record(life + 1, port=4001 + life), life)
    for life in range(30, 60):
        shared.renewed(record(life, port=1), record(life + 1, port=1), life)
    assert events == []


def test_memory_of_lives_is_bounded() -> None:
    config = MembershipConfig(max_members=3)
    shared = SharedKeys(config, lambda peer, now: True, [], Counter())
    for number in range(10):
        for life in range(10):
            name = f"n{number}"
            shared.renewed(record(life, life + 1, name), record(life + 1, life + 2, name), 0.0)
    assert len(shared._lives) == 3
    assert all(len(lives.places) <= 4 for lives in shared._lives.values())


def record(boot_epoch: int, port: int, name: str = "a") -> Record:
    node_id = ToySigner(name).node_id
    made = Record(node_id, 0, boot_epoch, (("192.0.2.1", port),), b"")
    return sign_record(made, ToySigner(name), TAG).record
