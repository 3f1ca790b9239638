"""Whom a node remembers: those whose sessions lasted, whatever strangers come by."""

from collections.abc import Sequence

from hypothesis import given, settings, strategies as st

from p2pnode.node.remembered import (
    FORGOTTEN_SECONDS,
    MAX_ADDRESSES,
    MAX_PEERS,
    MAX_UNPROVEN,
    PROVEN_SECONDS,
    RememberedPeer,
    RememberedPeers,
)
from p2pnode.sansio import NodeId

HERE = ("10.0.0.1", 4747)


def key(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def friends(count: int) -> list[RememberedPeer]:
    return [RememberedPeer(key(number), (HERE,), 10_000 - number) for number in range(count)]


def keys(peers: Sequence[RememberedPeer]) -> list[NodeId]:
    return [peer.node_id for peer in peers]


def test_fresh_keys_push_out_nobody_who_was_proven() -> None:
    remembered = RememberedPeers(friends(MAX_PEERS - MAX_UNPROVEN))
    for number in range(100_000, 100_500):
        remembered.met(key(number), HERE)
        remembered.passed(1, [(key(number), HERE)])
    kept = remembered.kept()
    assert keys(kept)[: MAX_PEERS - MAX_UNPROVEN] == keys(friends(MAX_PEERS - MAX_UNPROVEN))
    assert keys(kept)[MAX_PEERS - MAX_UNPROVEN] == key(100_499)
    assert len(kept) == MAX_PEERS


def test_in_a_large_swarm_everybody_is_proven_in_time() -> None:
    remembered = RememberedPeers()
    here = [(key(number), HERE) for number in range(3 * MAX_UNPROVEN)]
    for peer, address in here:
        remembered.met(peer, address)
    for _ in range(4 * PROVEN_SECONDS // 5):
        remembered.passed(5, here)
    remembered.kept()
    remembered.passed(5, here)
    assert not remembered.changed
    assert all(peer.is_proven for peer in remembered.ranked())
    assert len(remembered.ranked()) == len(here)


def test_a_table_full_of_proven_peers_is_not_written_for_those_beyond_it() -> None:
    remembered = RememberedPeers(friends(MAX_PEERS))
    here = [(key(number), HERE) for number in range(MAX_PEERS + 50)]
    remembered.passed(5, here)
    assert not remembered.changed
    assert keys(remembered.ranked()) == keys(friends(MAX_PEERS))


def test_who_stays_takes_the_place_of_strangers_who_left() -> None:
    remembered = RememberedPeers()
    remembered.met(key(1), HERE)
    for number in range(1_000, 1_000 + MAX_UNPROVEN):
        remembered.met(key(number), HERE)
    assert key(1) not in keys(remembered.ranked())
    remembered.passed(5, [(key(1), HERE)])
    assert key(1) in keys(remembered.ranked())
    assert len(remembered.ranked()) == MAX_UNPROVEN


def test_the_longest_known_are_called_first() -> None:
    remembered = RememberedPeers()
    for number in range(3):
        remembered.met(key(number), HERE)
    remembered.passed(PROVEN_SECONDS, [(key(0), HERE), (key(1), HERE)])
    remembered.passed(5, [(key(1), HERE)])
    assert keys(remembered.kept()) == [key(1), key(0), key(2)]


def test_what_was_written_is_read_in_its_order() -> None:
    unproven = tuple(RememberedPeer(key(number), (HERE,)) for number in range(MAX_UNPROVEN))
    assert RememberedPeers(unproven).kept() == unproven
    remembered = RememberedPeers(unproven)
    remembered.met(key(99), HERE)
    assert keys(remembered.kept()) == [key(99), *keys(unproven)[:-1]]


def test_addresses_are_kept_the_latest_first() -> None:
    remembered = RememberedPeers()
    for number in range(9):
        remembered.met(key(1), (f"10.0.0.{number}", 4747))
    [peer] = remembered.kept()
    assert peer.addresses[0] == ("10.0.0.8", 4747)
    assert len(peer.addresses) == MAX_ADDRESSES


def test_who_is_missed_for_long_is_let_go_unless_nobody_is_here() -> None:
    remembered = RememberedPeers(friends(2))
    remembered.passed(FORGOTTEN_SECONDS, [])
    assert len(remembered.kept()) == 2  # our own network was gone
    remembered.passed(FORGOTTEN_SECONDS - 1, [(key(0), HERE)])
    remembered.met(key(1), HERE)  # it was back just in time
    remembered.passed(FORGOTTEN_SECONDS - 1, [(key(0), HERE)])
    assert len(remembered.kept()) == 2
    remembered.passed(1, [(key(0), HERE)])
    assert keys(remembered.kept()) == [key(0)]
    gone = [RememberedPeer(key(7), (HERE,), 900, FORGOTTEN_SECONDS)]
    assert RememberedPeers(gone).kept() == ()


def test_what_is_written_already_is_no_reason_to_write() -> None:
    remembered = RememberedPeers(friends(1))

    def marks() -> tuple[bool, bool]:
        return remembered.changed, remembered.aged

    assert marks() == (False, False)
    remembered.met(key(0), HERE)
    remembered.passed(5, [(key(0), HERE)])
    assert marks() == (False, True)
    remembered.met(key(1), HERE)
    assert marks() == (True, True)
    remembered.kept()
    assert marks() == (False, False)
    remembered.passed(PROVEN_SECONDS, [(key(1), HERE)])
    assert marks() == (True, True)  # it became proven


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 200), st.booleans()), max_size=100))
def test_whatever_happens_it_stays_within_its_bounds(
    happenings: list[tuple[int, int, bool]],
) -> None:
    remembered = RememberedPeers(friends(MAX_PEERS))
    for number, seconds, comes in happenings:
        if comes:
            remembered.met(key(number), HERE)
        remembered.passed(seconds, [(key(number), HERE)])
    kept = remembered.kept()
    assert len(kept) <= MAX_PEERS
    assert len(set(keys(kept))) == len(kept)
    assert sum(not peer.is_proven for peer in kept) <= MAX_UNPROVEN
