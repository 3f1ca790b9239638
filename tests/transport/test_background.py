"""What gives way: how much of it may be in flight, and that it stands behind all other."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import ConfigError
from p2pnode.testing.links import Link
from p2pnode.testing.pair import connected_pair
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.congestion import Background
from p2pnode.transport.events import Delivery, MessageReceived

CONFIG = TransportConfig()
TARGET = CONFIG.background_delay
BASE = 0.04


def grown(rounds: int, extra: float = 0.0) -> Background:
    """Return a window that was filled for some round trips, each ``extra`` seconds too long."""
    window = Background(CONFIG)
    window.on_acked(0, BASE, 0, 0.0)
    for at in range(rounds):
        size = int(window.window)
        window.on_acked(size, BASE + extra, size, at * BASE)
    return window


def test_it_grows_while_no_queue_shows_and_shrinks_where_one_does() -> None:
    window = grown(30)
    before = window.window
    assert before > 10 * CONFIG.minimum_window
    for _ in range(8):  # the shortest of the newest few counts: one late packet says nothing
        window.on_acked(int(window.window), BASE + 3 * TARGET, int(window.window), 2.0)
    assert CONFIG.minimum_window <= window.window < before / 4


def test_one_late_packet_changes_nothing() -> None:
    window = grown(30)
    before = window.window
    window.on_acked(1000, BASE + 10 * TARGET, int(before), 2.0)
    assert window.window >= before


def test_what_is_not_used_does_not_grow() -> None:
    window = grown(0)
    for at in range(100):
        window.on_acked(100, BASE, 100, at * BASE)
    assert window.window == CONFIG.minimum_window


def test_near_the_target_it_stays() -> None:
    window = grown(30, TARGET)
    held = window.window
    for at in range(50):
        window.on_acked(int(held), BASE + TARGET, int(held), 3.0 + at * BASE)
    assert window.window == pytest.approx(held, rel=0.02)


def test_a_longer_path_is_believed_in_time_and_at_once_where_the_peer_moved() -> None:
    window = grown(30)
    for minute in range(12):
        window.on_acked(1000, 2 * BASE, int(window.window), 60.0 * minute + 60)
    small = window.window
    for at in range(30):
        window.on_acked(int(window.window), 2 * BASE, int(window.window), 800 + at)
    assert window.window > small
    moved = grown(30)
    moved.move()
    assert moved.window == CONFIG.minimum_window
    for at in range(30):
        moved.on_acked(int(moved.window), 5 * BASE, int(moved.window), 900 + at)
    assert moved.window > 10 * CONFIG.minimum_window


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 20), st.floats(0, 10), st.integers(0, 1 << 24)), max_size=60
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_acknowledged_the_least_window_is_left(
    acks: list[tuple[int, float, int]],
) -> None:
    window = Background(CONFIG)
    for at, (size, rtt, in_flight) in enumerate(acks):
        window.on_acked(size, rtt, in_flight, 20.0 * at)
        assert window.window >= CONFIG.minimum_window
        assert window.window <= CONFIG.minimum_window + sum(size for size, _, _ in acks)


def test_on_the_wire_it_is_bulk_and_it_leaves_last() -> None:
    link = Link(latency=(0.01, 0.01), rate=1e6)
    peers, alice, bob = connected_pair(1, link)
    for delivery in (Delivery.BACKGROUND, Delivery.BULK, Delivery.LATENCY):
        for number in range(6):
            peers.send(alice, bob, bytes([delivery, number]) + bytes(40_000), delivery)
    endpoint, peer = peers.endpoints[alice], peers.node_id(bob)
    assert endpoint.clear_down_to(peer) == -1
    peers.network.run(5)
    came = [one for one in peers.events(bob) if isinstance(one, MessageReceived)]
    assert len(came) == 18
    for one in came:
        told = Delivery(one.payload[0])
        assert one.delivery is (Delivery.LATENCY if told is Delivery.LATENCY else Delivery.BULK)
    assert {one.payload[0] for one in came[-5:]} == {Delivery.BACKGROUND}
    assert endpoint.clear_down_to(peer) == 2


def test_whoever_holds_back_is_told_of_a_peer_that_is_clear_anew() -> None:
    peers, alice, bob = connected_pair(1, Link(latency=(0.01, 0.01), rate=1e6))
    endpoint, peer = peers.endpoints[alice], peers.node_id(bob)
    for _ in range(4):
        peers.send(alice, bob, bytes(60_000))
    assert not endpoint.is_clear(peer, Delivery.LATENCY)
    endpoint.cleared.clear()
    peers.network.run(0.001)
    assert not endpoint.cleared
    peers.network.run(2)
    assert endpoint.is_clear(peer, Delivery.BACKGROUND)
    assert list(endpoint.cleared) == [peer]
    assert not endpoint.is_clear(peers.node_id(("nobody", 1)), Delivery.LATENCY)


def test_it_leaves_room_to_others_on_the_same_bottleneck() -> None:
    """The queue that another fills is found, and not filled further."""
    link = Link(latency=(0.02, 0.02), rate=4e6)
    peers, alice, bob = connected_pair(1, link)
    for _ in range(45):
        peers.send(alice, bob, bytes(60_000), Delivery.BACKGROUND)
    peers.network.run(0.6)
    [view] = peers.endpoints[alice].snapshot(peers.network.now).connections
    assert view.rtt < 0.04 + 3 * TARGET


def test_a_delay_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="times are positive"):
        replace(CONFIG, background_delay=0.0)
