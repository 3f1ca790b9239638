"""The table and what is kept ready beside it, whatever happens in whichever order."""

from collections import Counter
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pnode.membership.changes import ChangeLog
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.health import LIVE, Health
from p2pnode.membership.members import Member, Members, prefix_of
from p2pnode.membership.records import (
    Accusation,
    Claim,
    Record,
    SignedRecord,
    Version,
    sign_claim,
    sign_record,
)
from p2pnode.membership.roster import Roster
from p2pnode.membership.timers import AttemptOver, Timers
from p2pnode.sansio import NodeId
from p2pnode.testing.membership import TAG, ToySigner

SIGNERS = [ToySigner(f"m{number}") for number in range(8)]
ROOM = 5
PEER = SIGNERS[0].node_id


class Table(RuleBasedStateMachine):
    """Members held against a reader that follows the changes, and against plain scans."""

    def __init__(self) -> None:
        super().__init__()
        self.members = Members(max_members=ROOM)
        self.now = 0.0
        self.read_up_to = 0
        self.followed: dict[NodeId, Member] = {}

    @rule(
        who=st.integers(0, 7),
        boot_epoch=st.integers(0, 3),
        incarnation=st.integers(0, 3),
        left=st.booleans(),
    )
    def record(self, who: int, boot_epoch: int, incarnation: int, left: bool) -> None:
        self.now += 1.0
        signer = SIGNERS[who]
        record = Record(signer.node_id, incarnation, boot_epoch, (), b"", left)
        if self.members.is_news(record):
            self.members.accept(sign_record(record, signer, TAG), self.now)

    @rule(who=st.integers(0, 7), by=st.integers(0, 7), what=st.sampled_from(Accusation))
    def claim(self, who: int, by: int, what: Accusation) -> None:
        self.now += 1.0
        entry = self.members.entry(SIGNERS[who].node_id)
        if entry is not None:
            claim = Claim(what, SIGNERS[by].node_id, SIGNERS[who].node_id, entry.version)
            accuse = (
                self.members.suspect if what is Accusation.SUSPECT else self.members.declare_dead
            )
            accuse(sign_claim(claim, SIGNERS[by], TAG), self.now, "because")

    @rule(who=st.integers(0, 7))
    def hear(self, who: int) -> None:
        entry = self.members.entry(SIGNERS[who].node_id)
        first = entry is not None and not entry.heard
        assert self.members.hear(SIGNERS[who].node_id) == first

    @rule(ago=st.integers(0, 10))
    def forget(self, ago: int) -> None:
        self.members.forget_before(self.now - ago)
        assert all(entry.health in LIVE or entry.since >= self.now - ago for entry in self.members)

    @rule()
    def follow(self) -> None:
        changed = self.members.changed_since(self.read_up_to)
        assert changed is not None
        assert len(set(changed)) == len(changed)
        for node_id in changed:
            member = self.members.member(node_id)
            if member is None:
                self.followed.pop(node_id, None)
            else:
                self.followed[node_id] = member
        self.read_up_to = self.members.version
        assert self.members.changed_since(self.read_up_to) == []
        assert list(self.followed.values()) != [] or len(self.members) == 0
        assert self.followed == {m.record.node_id: m for m in self.members.view()}

    @invariant()
    def what_is_kept_ready_is_what_a_scan_finds(self) -> None:
        entries = list(self.members)
        assert len(entries) <= ROOM
        by_health = {
            health: {e.signed.record.node_id for e in entries if e.health is health}
            for health in Health
        }
        assert set(self.members.live) == by_health[Health.ALIVE] | by_health[Health.SUSPECT]
        heard = {e.signed.record.node_id for e in entries if e.heard and e.health in LIVE}
        assert set(self.members.heard) == heard
        assert set(self.members.dead) == by_health[Health.DEAD]
        views = [(m.record, m.health, m.since, m.reason) for m in self.members.view()]
        assert views == [(e.signed.record, e.health, e.since, e.reason) for e in entries]
        everyone = list(self.members.between(0, (1 << 64) - 1))
        assert everyone == sorted(entries, key=lambda e: prefix_of(e.signed.record.node_id))
        for entry in entries:
            prefix = prefix_of(entry.signed.record.node_id)
            assert list(self.members.between(prefix, prefix)) == [entry]


TestTable = Table.TestCase


def test_a_reader_too_far_behind_is_told_to_read_everything() -> None:
    log = ChangeLog(room=3)
    for number in range(5):
        log.note(NodeId(bytes([number])))
    assert log.since(1) is None
    assert log.since(2) == [NodeId(bytes([number])) for number in (2, 3, 4)]
    log.note(NodeId(bytes([2])))
    assert log.since(4) == [NodeId(bytes([4])), NodeId(bytes([2]))]


class RosterAgainstSet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.truth: set[NodeId] = set()

    @rule(number=st.integers(0, 9))
    def add(self, number: int) -> None:
        self.roster.add(NodeId(bytes([number])))
        self.truth.add(NodeId(bytes([number])))

    @rule(number=st.integers(0, 9))
    def remove(self, number: int) -> None:
        self.roster.remove(NodeId(bytes([number])))
        self.truth.discard(NodeId(bytes([number])))

    @invariant()
    def it_holds_each_once(self) -> None:
        assert sorted(self.roster) == sorted(self.truth)
        assert all(node in self.roster for node in self.truth)
        drawn = Random(1).sample(self.roster, min(3, len(self.roster)))
        assert len(set(drawn)) == len(drawn)


TestRoster = RosterAgainstSet.TestCase


class TimersAgainstScan(RuleBasedStateMachine):
    """The heap finds what looking at all of them finds."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers()
        self.truth: dict[int, float] = {}

    @rule(number=st.integers(0, 5), due=st.floats(0, 10), how=st.sampled_from("set once early"))
    def start(self, number: int, due: float, how: str) -> None:
        timer = AttemptOver(PEER, number)
        running = self.truth.get(number)
        if how == "o":
            self.timers.start_once(timer, due)
            self.truth.setdefault(number, due)
        elif how == "e":
            self.timers.start_earlier(timer, due)
            self.truth[number] = due if running is None else min(due, running)
        else:
            self.timers.start(timer, due)
            self.truth[number] = due

    @rule(number=st.integers(0, 5))
    def stop(self, number: int) -> None:
        self.timers.stop(AttemptOver(PEER, number))
        self.truth.pop(number, None)

    @rule(now=st.floats(0, 10))
    def pop(self, now: float) -> None:
        popped = self.timers.pop_due(now)
        if popped is None:
            assert all(due > now for due in self.truth.values())
        else:
            assert isinstance(popped, AttemptOver)
            assert self.truth.pop(popped.probe) <= now

    @invariant()
    def the_earliest_is_next(self) -> None:
        assert self.timers.next_due() == min(self.truth.values(), default=None)
        assert all(
            (AttemptOver(PEER, number) in self.timers) == (number in self.truth)
            for number in range(6)
        )


TestTimers = TimersAgainstScan.TestCase


def test_timers_moved_again_and_again_leave_no_heap_behind() -> None:
    timers = Timers()
    for moment in range(10_000):
        timers.start(AttemptOver(PEER, 1), 1e6 - moment)
    assert len(timers._heap) < 100


def test_one_forgotten_finds_no_room_in_a_table_full_of_the_living() -> None:
    members = Members(max_members=1)
    members.accept(signed(0), 0.0)
    members.accept(signed(0, left=True, incarnation=1), 1.0)
    members.accept(signed(1), 2.0)
    assert not members.is_news(signed(0, boot_epoch=1).record)


def signed(
    who: int, *, boot_epoch: int = 0, incarnation: int = 0, left: bool = False
) -> SignedRecord:
    record = Record(SIGNERS[who].node_id, incarnation, boot_epoch, (), b"", left)
    return sign_record(record, SIGNERS[who], TAG)


class BroadcastsAgainstSort(RuleBasedStateMachine):
    """What is told next is among the least-sent that fit, and nothing is told too often."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.counters: Counter[str] = Counter()
        self.broadcasts = Broadcasts(room=6, counters=self.counters)
        self.sent: Counter[bytes] = Counter()
        self.live: dict[tuple[int, int], bytes] = {}
        self.number = 0

    @rule(who=st.integers(0, 7))
    def record(self, who: int) -> None:
        self.number += 1
        fresh = signed(who, incarnation=self.number)
        self.broadcasts.put_record(fresh)
        self.live = {key: said for key, said in self.live.items() if key[0] != who}
        self.live[who, who] = fresh.encoded

    @rule(who=st.integers(0, 7), by=st.integers(0, 7))
    def claim(self, who: int, by: int) -> None:
        if who == by:
            return
        self.number += 1
        version = Version(0, self.number)
        claim = Claim(Accusation.SUSPECT, SIGNERS[by].node_id, SIGNERS[who].node_id, version)
        fresh = sign_claim(claim, SIGNERS[by], TAG)
        self.broadcasts.put_claim(fresh)
        self.live[who, by] = fresh.encoded

    @rule(room=st.integers(0, 700))
    def take(self, room: int) -> None:
        taken = self.broadcasts.take(room, self.LIMIT)
        assert sum(map(len, taken)) <= room
        assert len(set(taken)) == len(taken)
        for payload in taken:
            assert payload in self.live.values()
            self.sent[payload] += 1
            assert self.sent[payload] <= self.LIMIT

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.broadcasts) <= 6
        assert bool(self.broadcasts) == (len(self.broadcasts) > 0)


TestBroadcasts = BroadcastsAgainstSort.TestCase


def test_the_most_told_gives_way_and_is_counted() -> None:
    counters: Counter[str] = Counter()
    broadcasts = Broadcasts(room=2, counters=counters)
    broadcasts.put_record(signed(0))
    broadcasts.put_record(signed(1))
    assert broadcasts.take(len(signed(0).encoded), limit=9) == [signed(1).encoded]
    broadcasts.put_record(signed(2))
    assert set(broadcasts.take(1000, limit=9)) == {signed(0).encoded, signed(2).encoded}
    assert counters.total() == 1
