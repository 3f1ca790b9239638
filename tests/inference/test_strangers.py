"""Requesters that are not proven: everything alone, and one share together beside others."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.inference.messages import Opened, Refused
from p2pnode.inference.shares import Shares
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.config import TransportConfig
from tests.inference.one_host import HOG, OTHER, THIRD, US, Host

KEYS = tuple(node_id(f"key {number}") for number in range(80))


def full_of_strangers(sessions: int = 8, **config: float) -> Host:
    """Return a host whose sessions so many keys hold, one each, and all of them begun."""
    strangers = frozenset(KEYS)
    host = Host(sessions=sessions, kv_sessions=sessions, strangers=strangers, **config)
    for number, key in enumerate(KEYS[:sessions]):
        host.open(key, number)
        host.feed(key, number)
    assert len(host.core.stages()) == sessions
    return host


def test_keys_that_hold_one_session_each_make_room_for_a_proven_requester() -> None:
    host = full_of_strangers(sessions=8)
    for session in range(6):
        host.open(OTHER, 100 + session)
    assert host.held(OTHER) == 4  # a share of two
    assert [host.held(key) for key in KEYS[:8]] == [1] * 4 + [0] * 4  # the newest gave way
    for session in range(6):
        host.open(THIRD, 200 + session)
    assert host.held(THIRD) == 2
    assert sum(host.held(key) for key in KEYS) + host.held(OTHER) == 6


def test_whoever_just_joined_and_asks_alone_is_served_with_everything() -> None:
    host = Host(sessions=4, strangers=frozenset(KEYS))
    for session in range(4):
        host.open(KEYS[0], session)
    assert host.held(KEYS[0]) == 4


def test_a_stranger_gets_its_share_from_a_proven_requester_that_has_everything() -> None:
    host = Host(sessions=4, strangers=frozenset(KEYS))
    for session in range(4):
        host.open(HOG, session)
    host.open(KEYS[0], 10)
    assert (host.held(KEYS[0]), host.held(HOG)) == (1, 3)


def test_strangers_take_no_more_than_one_share_from_a_proven_requester() -> None:
    host = Host(sessions=8, strangers=frozenset(KEYS))
    for session in range(8):
        host.open(HOG, session)
        host.feed(HOG, session)
    for number, key in enumerate(KEYS[:20]):
        host.open(key, 100 + number)
    assert host.held(HOG) == 4


def test_strangers_share_among_themselves_what_the_proven_leave_them() -> None:
    host = Host(sessions=8, strangers=frozenset(KEYS))
    for session in range(4):
        host.open(OTHER, session)
        host.open(KEYS[0], 10 + session)
    host.open(KEYS[1], 20)
    host.open(KEYS[1], 21)
    host.open(KEYS[1], 22)  # waits
    assert (host.held(OTHER), host.held(KEYS[0]), host.held(KEYS[1])) == (4, 2, 2)


def test_a_node_is_no_stranger_to_itself() -> None:
    host = full_of_strangers(sessions=8)
    for session in range(4):
        host.open(US, 100 + session)
    assert host.held(US) == 4


def test_the_ad_says_what_a_proven_requester_could_have() -> None:
    host = full_of_strangers(sessions=8)
    assert host.core.kv_spoken_for == host.core.kv_used // 2


@pytest.mark.parametrize("is_first", [True, False])
def test_strangers_leave_room_in_the_queue(is_first: bool) -> None:
    host = Host(sessions=2, max_waiting=16, strangers=frozenset(KEYS))
    host.open(OTHER, 0)
    host.open(THIRD, 1)
    if is_first:
        host.open(OTHER, 2)
    for number, key in enumerate(KEYS[:16]):
        host.open(key, 100 + number)
    host.open(OTHER, 3)
    assert not host.heard(OTHER, Refused)
    waiting = [one.requester for one in host.core._host._admission.waiting]
    assert sum(one in KEYS for one in waiting) == 2


def test_a_queue_full_of_strangers_makes_room_for_an_order_of_a_proven_requester() -> None:
    host = full_of_strangers(sessions=1, max_waiting=16)
    for number, key in enumerate(KEYS[1:17]):
        host.open(key, 100 + number)
    host.open(HOG, 5)
    host.open(HOG, 6)
    host.open(HOG, 7)
    assert host.held(HOG) == 0  # one session is all there is, and it is nobody's beyond a share
    assert [one.requester for one in host.core._host._admission.waiting].count(HOG) == 2
    assert len(host.heard(KEYS[16], Refused)) == 1
    assert not host.heard(KEYS[1], Opened)


def test_what_strangers_have_waiting_for_the_engine_is_one_share_together() -> None:
    host = Host(sessions=64, waiting_bytes=480, strangers=frozenset(KEYS))
    for number, key in enumerate(KEYS[:6]):
        host.open(key, number)
    host.open(OTHER, 20)
    host.feed(OTHER, 20, 3, 0)
    host.feed(OTHER, 20, 3, 3)
    for start in range(0, 90, 3):
        for number, key in enumerate(KEYS[:6]):
            host.feed(key, number, 3, start)  # 12 bytes each
    for start in range(6, 90, 3):
        host.feed(OTHER, 20, 3, start)
    waiting = {stage.requester: stage.waiting for stage in host.core.stages()}
    assert waiting[OTHER] >= 480 / 2 - 12


@dataclass(frozen=True)
class Held:
    requester: NodeId
    kv_bytes: int
    is_used: bool
    admitted_at: float


@given(
    st.lists(st.tuples(st.sampled_from((HOG, OTHER, *KEYS[:4])), st.integers(1, 50))),
    st.sampled_from((THIRD, HOG, KEYS[0], KEYS[5])),
    st.integers(1, 60),
)
def test_no_party_within_its_share_gives_way_to_another(
    sessions: list[tuple[NodeId, int]], asker: NodeId, needed: int
) -> None:
    total, most = 100, 12
    held = [Held(one, size, True, float(at)) for at, (one, size) in enumerate(sessions)]
    while sum(one.kv_bytes for one in held) > total or len(held) > most:
        held.pop()
    shares = Shares(held, total, most, is_proven=lambda peer: peer not in KEYS)
    going = shares.give_way(asker, needed)
    if going is None:
        return
    assert sum(one.kv_bytes for one in held) + needed - sum(one.kv_bytes for one in going) <= total
    asking = {asker, *(one.requester for one in held)}
    proven = {peer for peer in asking if peer not in KEYS}
    apart = proven or asking
    parties = [{peer} for peer in apart] + ([asking - apart] if asking - apart else [])
    for party in parties:
        mine = [one for one in held if one.requester in party]
        within = sum(one.kv_bytes for one in mine) <= total / len(parties)
        if asker not in party and within and len(mine) <= max(1, most // len(parties)):
            assert not [one for one in mine if one in going]


@given(
    st.lists(st.tuples(st.sampled_from((HOG, OTHER, *KEYS[:4])), st.integers(1, 50)), max_size=8),
    st.lists(st.tuples(st.sampled_from((THIRD, HOG, US, *KEYS[:6])), st.integers(1, 60))),
)
@settings(max_examples=400, deadline=None)
def test_what_one_asked_in_vain_changes_no_answer_to_the_next(
    sessions: list[tuple[NodeId, int]], asked: list[tuple[NodeId, int]]
) -> None:
    held = [Held(one, size, True, float(at)) for at, (one, size) in enumerate(sessions)]
    while sum(one.kv_bytes for one in held) > 100:
        held.pop()

    def fresh() -> Shares[Held]:
        return Shares(held, 100, 8, US, lambda peer: peer not in KEYS)

    shares = fresh()
    for asker, needed in asked:
        if shares.lack(needed) is not None:
            assert shares.give_way(asker, needed) == fresh().give_way(asker, needed)


def test_a_node_asks_its_transport_who_is_proven() -> None:
    swarm = Swarm(1, Link(latency=(0.0005, 0.0005)))
    for name, first in zip("abc", (0, 2, 4), strict=True):
        swarm.add(name, range(first, first + 2))
    swarm.introduce("a", "b", "c")
    is_proven = swarm.nodes["a"].inference._host._admission._is_proven
    ids = {name: node.node_id for name, node in swarm.nodes.items()}
    assert swarm.network.run_until(swarm.is_ready, 10)
    assert [is_proven(ids[name]) for name in "ab"] == [True, False]
    swarm.network.run(TransportConfig().proven_after + 15)
    assert [is_proven(ids[name]) for name in "ab"] == [True, True]
