"""One key on two machines is told and refused; a machine started anew is taken at once."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.sansio import Address
from p2pnode.testing.links import Bernoulli, Link
from p2pnode.testing.pair import Endpoints, identity_of
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import DialFailed, KeyUsedTwice, PeerConnected, PeerDisconnected

KEY = identity_of("ann").node_id


def meeting(seed: int, link: Link | None = None) -> tuple[Endpoints, Address, Address]:
    """Return a hub and ``ann``, connected for a while; ``ann`` dialled."""
    peers = Endpoints(seed, link)
    hub, ann = peers.add("hub"), peers.add("ann")
    peers.connect(ann, hub)
    assert peers.network.run_until(lambda: peers.are_connected(ann, hub), 10)
    peers.network.run(3)
    return peers, hub, ann


def told(peers: Endpoints, who: Address) -> list[KeyUsedTwice]:
    return [event for event in peers.events(who) if isinstance(event, KeyUsedTwice)]


def ends(peers: Endpoints, who: Address) -> list[PeerDisconnected]:
    return [event for event in peers.events(who) if isinstance(event, PeerDisconnected)]


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
@pytest.mark.parametrize("latency", [0.0005, 0.02, 0.2])
def test_a_copy_is_refused_and_both_addresses_are_told(knows_peer: bool, latency: float) -> None:
    peers, hub, ann = meeting(1, Link(latency=(latency, latency)))
    clone = peers.add("clone", identity="ann")
    for _ in range(5):
        peers.connect(clone, hub, peer=peers.node_id(hub) if knows_peer else None)
        peers.network.run(4)
    assert ends(peers, hub) == []
    assert peers.endpoints[hub].address_of(KEY) == ann
    assert told(peers, hub) == [KeyUsedTwice(KEY, ann, clone)]
    assert not peers.endpoints[clone].is_connected(peers.node_id(hub))
    reasons = [e.reason for e in peers.events(clone) if isinstance(e, DialFailed)]
    reasons += [end.reason for end in ends(peers, clone)]
    assert len(reasons) == 5
    assert all("in use by another process, at ann:1" in reason for reason in reasons)
    peers.network.run(60)
    peers.connect(clone, hub)
    peers.network.run(4)
    assert len(told(peers, hub)) == 2  # a minute later it is worth another word


def test_a_copy_that_is_dialled_is_refused_too() -> None:
    peers, hub, ann = meeting(2)
    clone = peers.add("clone", identity="ann")
    peers.connect(hub, clone)
    peers.network.run(4)
    assert ends(peers, hub) == []
    assert told(peers, hub) == [KeyUsedTwice(KEY, ann, clone)]
    (failure,) = [event for event in peers.events(hub) if isinstance(event, DialFailed)]
    assert "in use by another process" in failure.reason


def test_when_both_ends_dial_the_copy_is_refused_all_the_same() -> None:
    peers, hub, ann = meeting(3)
    clone = peers.add("clone", identity="ann")
    for _ in range(4):
        peers.connect(clone, hub)
        peers.connect(hub, clone)
        peers.network.run(3)
        assert peers.endpoints[hub].address_of(KEY) == ann
    assert ends(peers, hub) == []
    assert told(peers, hub) == [KeyUsedTwice(KEY, ann, clone)]


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
@pytest.mark.parametrize("dials", ["it", "hub", "both"])
def test_a_node_killed_and_started_anew_elsewhere_is_taken_at_once(
    knows_peer: bool, dials: str
) -> None:
    peers, hub, ann = meeting(4)
    peers.network.detach(ann)
    peers.network.run(0.5)
    again = peers.add("ann again", identity="ann")
    start = peers.network.now
    if dials != "hub":
        peers.connect(again, hub, peer=peers.node_id(hub) if knows_peer else None)
    if dials != "it":
        peers.connect(hub, again)
    assert peers.network.run_until(lambda: peers.endpoints[hub].address_of(KEY) == again, 3)
    assert peers.network.now - start < 0.5
    peers.network.run(3)
    assert told(peers, hub) == []
    assert len(ends(peers, hub)) == 1
    assert peers.endpoints[again].is_connected(peers.node_id(hub))


def test_a_node_started_anew_at_its_old_address_need_not_wait() -> None:
    peers, hub, ann = meeting(5)
    peers.network.detach(ann)
    peers.add("ann")
    start = peers.network.now
    peers.connect(ann, hub)
    assert peers.network.run_until(lambda: peers.are_connected(ann, hub), 1)
    assert peers.network.now - start < 0.02


def test_messages_go_on_while_it_is_found_out() -> None:
    peers, hub, ann = meeting(6)
    clone = peers.add("clone", identity="ann")
    for number in range(100):
        if number % 20 == 0:
            peers.connect(clone, hub)
        peers.send(hub, ann, b"%d" % number)
        peers.send(ann, hub, b"%d" % number)
        peers.network.run(0.1)
    assert peers.received(ann) == peers.received(hub) == [b"%d" % number for number in range(100)]


def test_a_copy_of_this_very_node_is_told_by_it() -> None:
    peers = Endpoints(7)
    ann, clone = peers.add("ann"), peers.add("clone", identity="ann")
    peers.connect(ann, clone)
    peers.network.run(1)
    assert told(peers, ann) == [KeyUsedTwice(KEY, None, clone)]
    (failure,) = [event for event in peers.events(ann) if isinstance(event, DialFailed)]
    assert "own key" in failure.reason


@given(
    seed=st.integers(0, 2**32),
    lives=st.booleans(),
    loss=st.floats(0, 0.2),
    latency=st.floats(0.0005, 0.1),
    both=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_one_process_of_a_key_has_the_session_in_the_end(
    seed: int, lives: bool, loss: float, latency: float, both: bool
) -> None:
    peers, hub, ann = meeting(seed, Link(loss=Bernoulli(loss), latency=(latency, latency)))
    if not lives:
        peers.network.detach(ann)
    other = peers.add("other", identity="ann")
    for _ in range(3):
        peers.connect(other, hub)
        if both:
            peers.connect(hub, other)
        peers.network.run(6)
    peers.network.run(12)
    assert peers.endpoints[hub].is_connected(KEY)
    if not lives:
        assert told(peers, hub) == []
        assert peers.endpoints[hub].address_of(KEY) == other
    elif not loss:
        assert peers.endpoints[hub].address_of(KEY) == ann
    connected = [event for event in peers.events(hub) if isinstance(event, PeerConnected)]
    assert len(connected) == len(ends(peers, hub)) + 1


def test_the_life_of_a_later_session_says_nothing_of_the_one_that_was_asked() -> None:
    peers, hub, ann = meeting(10)
    for number in range(50):
        peers.send(hub, ann, b"%d" % number)
    peers.network.detach(ann)
    peers.network.run(0.1)
    other = peers.add("other", identity="ann")
    peers.connect(other, hub)
    peers.network.run(0.1)
    assert peers.endpoints[hub].snapshot(0).counters["handshake_held"] == 1
    peers.add("ann")  # and the first starts anew, where it was, before the other is let in
    peers.connect(ann, hub)
    peers.network.run(0.1)
    assert peers.endpoints[hub].address_of(KEY) == ann
    for number in range(100):
        peers.send(hub, ann, b"%d" % number)
    peers.network.run(0.02)
    assert told(peers, hub) == []
    peers.network.run(3)
    assert told(peers, hub) == [KeyUsedTwice(KEY, ann, other)]  # now both were seen to live
    assert peers.endpoints[hub].address_of(KEY) == ann


def test_every_dial_to_a_copy_ends() -> None:
    peers, hub, ann = meeting(11)
    clones = [peers.add(f"clone {number}", identity="ann") for number in range(7)]
    for clone in clones:
        peers.connect(hub, clone)
    peers.network.run(8)
    failed = [event.address for event in peers.events(hub) if isinstance(event, DialFailed)]
    assert sorted(failed) == sorted(clones)
    assert peers.endpoints[hub].address_of(KEY) == ann


def test_contests_are_bounded() -> None:
    peers, hub, _ = meeting(8)
    clones = [peers.add(f"clone {number}", identity="ann") for number in range(8)]
    peers.network.partition([hub], [("ann", 1)])
    for clone in clones:
        peers.connect(clone, hub)
    peers.network.run(0.1)
    assert peers.endpoints[hub].snapshot(0).counters["handshake_of_a_key_in_use"] > 0
    peers.network.run(10)
    assert peers.endpoints[hub].is_connected(KEY)


def test_patience_is_at_least_three_round_trips() -> None:
    config = replace(TransportConfig.simulation(), rival_patience=0.05)
    peers = Endpoints(9, Link(latency=(0.15, 0.15)))
    hub, ann = peers.add("hub", config=config), peers.add("ann")
    peers.connect(ann, hub)
    peers.network.run(3)
    clone = peers.add("clone", identity="ann")
    peers.connect(clone, hub)
    peers.network.run(5)
    assert peers.endpoints[hub].address_of(KEY) == ann
