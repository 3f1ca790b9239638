"""The pieces by themselves: health, suspicion, probe round, broadcasts, digests, coordinates."""

import math
from collections import deque
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError
from p2pnode.membership import MembershipConfig, lan, wan
from p2pnode.membership.anti_entropy import digests, pages
from p2pnode.membership.coordinates import Coordinate, Vivaldi
from p2pnode.membership.detector import Answer, FailureDetector, Send
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.health import LIVE, TRANSITIONS, Evidence, Health, weigh
from p2pnode.membership.members import Members, prefix_of
from p2pnode.membership.messages import LAST_PREFIX, Ping
from p2pnode.membership.probe_round import ProbeRound
from p2pnode.membership.records import Record, SignedRecord, Version, sign_record
from p2pnode.membership.suspicion import Suspicion
from p2pnode.membership.timers import GossipDue, ProbeDue, SyncDue, Timers
from p2pnode.sansio import NodeId
from p2pnode.testing.membership import TAG, ToySigner


def record_of(name: str, boot_epoch: int = 1, incarnation: int = 0) -> SignedRecord:
    signer = ToySigner(name)
    return sign_record(Record(signer.node_id, incarnation, boot_epoch, (), b""), signer, TAG)


# Health


@given(st.lists(st.sampled_from(Evidence)))
def test_beliefs_move_only_along_the_table(history: list[Evidence]) -> None:
    health = Health.ALIVE
    for evidence in history:
        after = weigh(health, evidence)
        assert after is TRANSITIONS.get((health, evidence), health)
        if health is Health.LEFT:
            assert after is Health.LEFT or evidence is Evidence.REBIRTH
        if after is Health.DEAD:
            assert health in (Health.SUSPECT, Health.DEAD)
        health = after


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(Health)
    assert {before for before, _ in TRANSITIONS} == set(Health)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30))
def test_members_hold_the_newest_record_and_departures_are_final(
    history: list[tuple[int, int, bool]],
) -> None:
    members = Members(max_members=4)
    signer = ToySigner("a")
    seen: list[Version] = []
    for moment, (boot_epoch, incarnation, left) in enumerate(history):
        record = Record(signer.node_id, incarnation, boot_epoch, (), b"", left)
        before = members.entry(signer.node_id)
        was_left = before is not None and before.health is Health.LEFT
        if not members.is_news(record):
            continue
        if was_left:
            assert before is not None
            assert boot_epoch > before.version.boot_epoch
        members.accept(sign_record(record, signer, TAG), float(moment))
        seen.append(record.version)
        entry = members.entry(signer.node_id)
        assert entry is not None
        assert entry.version == max(seen)
        assert (entry.health is Health.LEFT) == left
    assert len(members) <= 1


# Suspicion


def test_a_suspicion_lasts_as_lifeguard_says() -> None:
    config = replace(MembershipConfig(), probe_interval=1.0, suspicion_multiplier=4.0)
    names = [ToySigner(str(number)).node_id for number in range(5)]
    suspicion = Suspicion(Version(0, 0), names[0], 10, config, now=100.0)
    assert suspicion.deadline == pytest.approx(124.0)  # 6 * 4 * log10(10) * 1 s
    assert suspicion.confirm(names[1])
    assert suspicion.deadline == pytest.approx(124.0 - 20 * 0.6309, abs=0.01)  # ln 2 / ln 3
    assert not suspicion.confirm(names[1])
    assert suspicion.confirm(names[2])
    assert suspicion.deadline == pytest.approx(104.0)
    assert not suspicion.wants(names[3])


def test_a_swarm_too_small_to_confirm_takes_the_shortest() -> None:
    suspicion = Suspicion(Version(0, 0), ToySigner("a").node_id, 3, lan(), now=0.0)
    assert suspicion.deadline == pytest.approx(0.6)


# Probe round


@given(st.integers(1, 40), st.integers(0, 1000))
def test_nobody_waits_longer_than_a_round_and_a_half(count: int, seed: int) -> None:
    probe_round = ProbeRound(Random(seed))
    for number in range(count):
        probe_round.add(NodeId(bytes([number])))
    last: dict[NodeId, int] = {}
    for turn in range(count * 8):
        peer = probe_round.advance()
        assert peer is not None
        assert turn - last.get(peer, turn) <= count + (count + 1) // 2 - 1 or count == 1
        last[peer] = turn
    assert len(last) == count


@given(st.lists(st.tuples(st.sampled_from("+->"), st.integers(0, 6))), st.integers(0, 99))
def test_a_round_holds_exactly_those_in_it(steps: list[tuple[str, int]], seed: int) -> None:
    probe_round = ProbeRound(Random(seed))
    present: set[NodeId] = set()
    for step, number in steps:
        peer = NodeId(bytes([number]))
        if step == "+":
            probe_round.add(peer)
            present.add(peer)
        elif step == "-":
            probe_round.remove(peer)
            present.discard(peer)
        else:
            assert (probe_round.advance() in present) or not present
    assert len(probe_round) == len(present)


# Broadcasts


def test_news_is_sent_so_often_and_then_dropped() -> None:
    broadcasts = Broadcasts()
    broadcasts.put_record(record_of("a"))
    for _ in range(3):
        assert len(broadcasts.take(1000, limit=3)) == 1
    assert not broadcasts
    assert broadcasts.take(1000, limit=3) == []


def test_newer_news_replaces_older_and_goes_first() -> None:
    broadcasts = Broadcasts()
    broadcasts.put_record(record_of("a"))
    broadcasts.put_record(record_of("b"))
    broadcasts.put_record(record_of("a", incarnation=1))
    sent = [record_of("a", incarnation=1).encoded, record_of("b").encoded]
    assert broadcasts.take(1000, limit=3) == sent


@given(st.integers(0, 1000))
def test_news_never_takes_more_room_than_there_is(room: int) -> None:
    broadcasts = Broadcasts()
    for name in "abcdefgh":
        broadcasts.put_record(record_of(name))
    assert sum(map(len, broadcasts.take(room, limit=3))) <= room


# Digests


@given(st.integers(0, 60), st.integers(1, 20))
def test_digest_pages_cover_every_prefix_once(count: int, room: int) -> None:
    members = Members(max_members=100)
    for number in range(count):
        members.accept(record_of(str(number)), now=0.0)
    own = record_of("own")
    cut = list(digests(members, own, answer_wanted=True, room=room))
    assert cut[0].first == 0
    assert cut[-1].last == LAST_PREFIX
    assert all(a.last + 1 == b.first for a, b in pairwise(cut))
    assert all(len(page.entries) <= room for page in cut)
    prefixes = [entry.prefix for page in cut for entry in page.entries]
    known = [*members, None]
    assert len(prefixes) == len(known) == len(set(prefixes))
    assert prefix_of(own.record.node_id) in prefixes


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(50, 200))
def test_pages_hold_everything_in_order(payloads: list[bytes], room: int) -> None:
    cut = list(pages(payloads, room))
    assert b"".join(cut) == b"".join(payloads)
    assert all(0 < len(page) <= room for page in cut)


# Coordinates


def test_places_come_to_tell_distances() -> None:
    rng = Random(7)
    names = [ToySigner(str(number)).node_id for number in range(12)]
    plane = {name: (rng.uniform(0, 0.1), rng.uniform(0, 0.1)) for name in names}

    def rtt(a: NodeId, b: NodeId) -> float:
        (ax, ay), (bx, by) = plane[a], plane[b]
        return 0.005 + math.hypot(ax - bx, ay - by)

    nodes = {name: Vivaldi(rng) for name in names}
    for _ in range(4000):
        a, b = rng.sample(names, 2)
        nodes[a].learn(b, nodes[b].own, rtt(a, b))
    errors = deque[float]()
    for a in names:
        for b in names:
            if a != b:
                errors.append(abs(nodes[a].own.distance(nodes[b].own) - rtt(a, b)) / rtt(a, b))
    assert sorted(errors)[len(errors) // 2] < 0.15


@given(st.lists(st.floats(-1, 20), max_size=50))
def test_no_measurement_throws_us_out_of_space(samples: list[float]) -> None:
    vivaldi = Vivaldi(Random(1))
    peer = ToySigner("a").node_id
    for sample in samples:
        vivaldi.learn(peer, Coordinate(), sample)
    assert Coordinate.decode_untrusted(vivaldi.own.encode()).height >= 0


def test_those_who_are_gone_have_no_place() -> None:
    vivaldi = Vivaldi(Random(1))
    a, b = ToySigner("a").node_id, ToySigner("b").node_id
    vivaldi.learn(a, Coordinate(), 0.01)
    vivaldi.learn(b, Coordinate(), 0.01)
    vivaldi.forget_all_but({a})
    assert vivaldi.place_of(a) is not None
    assert vivaldi.place_of(b) is None


# Timers and settings


def test_the_ack_of_a_ping_that_a_more_urgent_probe_overtook_counts() -> None:
    detector = FailureDetector(lan(), Random(1), Timers())
    peer = ToySigner("peer").node_id
    detector.add(peer)
    [first] = detector.probe(peer, 0.0)
    assert isinstance(first, Send)
    assert isinstance(first.message, Ping)
    assert detector.probe(peer, 0.1, urgent=True)
    assert detector.acknowledge(first.message.number, peer, 0.2) == Answer(peer, 0.2)
    assert not detector.is_probing(peer)


def test_timers_fire_in_order_of_time() -> None:
    timers = Timers()
    timers.start(ProbeDue(), 3.0)
    timers.start(GossipDue(), 2.0)
    timers.start_once(GossipDue(), 9.0)
    timers.start_earlier(SyncDue(), 5.0)
    timers.start_earlier(SyncDue(), 1.0)
    assert timers.next_due() == 1.0
    assert [timers.pop_due(2.5) for _ in range(3)] == [SyncDue(), GossipDue(), None]
    timers.stop(ProbeDue())
    assert timers.next_due() is None


def test_settings_that_contradict_each_other_are_refused() -> None:
    for change in (
        {"ack_timeout": 0.2},
        {"probe_interval": 0.0},
        {"suspicion_max_factor": 0.5},
        {"max_datagram": 100},
    ):
        with pytest.raises(ConfigError):
            replace(MembershipConfig(), **change)
    assert wan().detection_bound(2) < 15
    assert Health.DEAD not in LIVE
