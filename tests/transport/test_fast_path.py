"""The fast path and the general one do the same: every byte, event, counter and timer."""

import struct
from itertools import product

import pytest
from hypothesis import example, given, settings, strategies as st

from p2pnode.testing.pair import Endpoints
from p2pnode.transport.events import Delivery, PeerConnected
from p2pnode.transport.frames import (
    ACK,
    PING_FRAME,
    Ack,
    ack_of_run,
    close_frame,
    done_frame,
    shard_header,
)
from p2pnode.transport.parity import CLEAN as CLEAN_PACKETS
from p2pnode.transport.recovery import Recovery, SentPacket
from tests.transport.read_alike import assert_read_alike
from tests.transport.two_paths import (
    CLEAN,
    FAST,
    WEATHER,
    Act,
    Forged,
    Happening,
    Move,
    Renew,
    assert_all_the_same,
    snapshots,
)

ACTS = st.builds(
    Act,
    size=st.one_of(st.integers(0, 1300), st.sampled_from([1390, 1400, 1401, 1402, 3000, 20_000])),
    count=st.sampled_from([1, 2, 3, 10, 40]),
    delivery=st.sampled_from([Delivery.LATENCY, Delivery.LATENCY, Delivery.BULK]),
    both=st.booleans(),
    pause=st.sampled_from([0.0, 0.0002, 0.003, 0.03, 0.3]),
    weather=st.one_of(st.none(), st.sampled_from(sorted(WEATHER))),
)
BECOME_CLEAN = Act(300, count=CLEAN_PACKETS + 10)


def begin(weather: str) -> list[Happening]:
    """Return what makes the path a clean one, where that lasts."""
    return [BECOME_CLEAN if weather == "clean" else Act(300, count=20)]


@given(acts=st.lists(ACTS, min_size=1, max_size=6), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_both_paths_do_the_same(acts: list[Act], seed: int) -> None:
    assert_all_the_same(acts, seed)


@pytest.mark.parametrize("weather", sorted(WEATHER))
def test_on_a_path_that_was_clean_for_long(weather: str) -> None:
    """Where acknowledgements may wait, and then the weather turns, and turns back."""
    acts = [
        BECOME_CLEAN,
        Act(1000, count=60, weather=weather),
        Act(200, count=30, pause=0.0),
        Act(700, count=30, both=False, pause=0.0005),
        Act(1000, count=60, weather="clean"),
        Act(9000, count=3),
        Act(600, count=20),
    ]
    for seed in range(2):
        assert_all_the_same(acts, seed)


@pytest.mark.parametrize("weather", ["clean", "narrow", "everything"])
def test_while_the_peer_moves(weather: str) -> None:
    """What was under way goes to where it was, and what follows is of another path."""
    acts: list[Happening] = [
        *begin(weather),
        Act(900, count=20, weather=weather, pause=0.0001),
        Move(),
        Act(1000, count=20, pause=0.0001),
        Act(4000, count=5, pause=0.002),
        Move(pause=0.02),
        Act(200, count=20, both=False),
        Move(),
        Act(1000, count=30, pause=0.02),
    ]
    told = assert_all_the_same(acts, 1)
    addresses = {link.address for view in snapshots(told) for link in view.connections}
    assert addresses >= {("alice", port) for port in (1, 2, 3, 4)}


@pytest.mark.parametrize("weather", ["clean", "everything"])
def test_while_keys_are_replaced(weather: str) -> None:
    acts = [
        *begin(weather),
        Act(900, count=60, weather=weather),
        Act(4000, count=10, pause=0.0),
        Act(300, count=20, delivery=Delivery.BULK, both=False),
        Act(700, count=20, pause=0.03),
    ]
    told = assert_all_the_same(acts, 1, rekey_seconds=0.05)
    assert min(snapshots(told)[-1].connections[0].epochs) > 10


@pytest.mark.parametrize("is_new_process", [False, True])
@pytest.mark.parametrize("weather", ["clean", "everything"])
def test_while_the_session_is_renewed(weather: str, is_new_process: bool) -> None:
    acts = [
        *begin(weather),
        Act(900, count=20, weather=weather, pause=0.0001),
        Renew(is_new_process=is_new_process, pause=0.0),
        Act(900, count=20, pause=0.0003),
        Act(4000, count=3, pause=0.3),
        Renew(is_new_process=not is_new_process),
        Act(900, count=20, weather=weather, pause=0.0),
        Act(900, count=20),
    ]
    told = assert_all_the_same(acts, 1)
    assert sum(isinstance(event, PeerConnected) for _, _, event in told.story) >= 6


FORGED_ACK = st.tuples(
    st.integers(-2, 40),
    st.sampled_from([0, 0, 1, 3, 20, 0xFFFF]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=3).map(tuple),
)
FORGED_SHARD = st.tuples(
    st.sampled_from([0, 0, 0, 0x80, 1, 2]),
    st.integers(-3, 3),
    st.sampled_from([0, 1, 223, 450, 900, 901, 1000, 4000, 65_537]),
    st.sampled_from([1, 1, 2, 2, 3, 4, 5, 60, 0]),
    st.integers(0, 5),
    st.sampled_from([0, 0, 0, 0, 1, -1]),
)
FORGED = st.builds(
    Forged,
    ack=st.one_of(st.none(), FORGED_ACK),
    shard=st.one_of(st.none(), FORGED_SHARD, FORGED_SHARD),
    between=st.sampled_from([b"", b"", b"", PING_FRAME, done_frame(0), b"\x08", b"\6x"]),
    pause=st.sampled_from([0.0, 0.0, 0.001, 0.03]),
)


@given(
    acts=st.lists(st.one_of(FORGED, FORGED, FORGED, FORGED, ACTS), min_size=2, max_size=16),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None)
def test_whatever_a_peer_with_the_right_keys_seals(acts: list[Happening], seed: int) -> None:
    assert_all_the_same([*acts, Act(900, count=3)], seed)


def test_a_peer_that_breaks_the_rules_on_a_clean_path() -> None:
    """Each rule, where the fast path is taken both ways and messages are in flight."""
    stale_ack = struct.pack("<BQHBH", ACK, 0, 0, 0, 0)
    forged = [
        (Forged(shard=(0, 1, 500, 1, 0, 1)),),  # of another size than it says
        (Forged(shard=(0, 1, 0, 2, 0, 0)),),  # nothing, in two
        (Forged(shard=(0, 1, 400, 2, 0, 0)),),  # smaller shards than any path asks for
        (Forged(shard=(0, 30_000, 500, 1, 0, 0)),),  # far ahead
        (Forged(shard=(0, -1, 500, 1, 0, 0)), Forged(shard=(0, -1, 900, 2, 1, 0))),  # again
        (
            Forged(shard=(0, 0, 900, 3, 0, 0)),
            Forged(shard=(0, 0, 900, 3, 0, 0)),  # twice
            Forged(shard=(0, 0, 899, 3, 1, 0)),  # of a message that changed
            Forged(shard=(1, 0, 900, 3, 1, 0)),  # as another class
            Forged(shard=(0, 0, 900, 2, 1, 0)),  # of a coarser cut
            Forged(shard=(0, 0, 900, 3, 3, 0)),  # parity
            Forged(shard=(0, 0, 900, 4, 1, 0)),  # of a finer cut, and back
            Forged(shard=(0, 0, 900, 3, 1, 0)),
            *(Forged(shard=(0x80, 0, 900, 4, index, 0)) for index in (3, 1, 0, 2, 2)),
        ),
        (Forged(ack=(0, 0, ())),),  # of what was never sent
        (Forged(ack=(-9, 40, ()), shard=(0, 2, 300, 1, 0, 0)),),
        (Forged(ack=(1, 0xFFFF, ())), Forged(ack=(1, 0, ((0xFFFF, 0),)))),  # below zero
        (Forged(ack=(30, 3, ())),),  # of what was acknowledged already
        (Forged(ack=(1, 0, ())), Forged(ack=(2, 9, ()))),  # leaving a hole, and filling it
        (Forged(ack=(1, 3, ((0, 1), (1, 1))), shard=(0, 2, 300, 1, 0, 0)),),
        (Forged(ack=(1, 0, ()), between=PING_FRAME), Forged(between=stale_ack)),
        (Forged(ack=(1, 0, ()), between=stale_ack),),  # two
        (Forged(between=b"\x09"), Forged()),  # no frame, and none at all
    ]
    burst = Act(900, count=4, pause=0.0)
    acts: list[Happening] = [BECOME_CLEAN]
    for group in forged:
        acts += [burst, *group, Act(900)]
    acts.append(Forged(between=close_frame("enough"), pause=0.01))
    told = assert_all_the_same(acts, 1)
    assert snapshots(told)[-1].counters.keys() >= {
        *("frame_malformed", "ack_of_unsent", "message_ahead"),
        *("shard_mismatch", "shard_too_small"),
    }
    assert not snapshots(told)[-1].connections


def test_the_fast_path_is_taken() -> None:
    """Else the comparison above would compare the general path with itself."""
    peers = Endpoints(1, CLEAN)
    alice, bob = peers.add("alice", config=FAST), peers.add("bob", config=FAST)
    peers.connect(alice, bob)
    peers.network.run(1)
    sender = peers.endpoints[alice]._by_peer[peers.node_id(bob)]._sender
    assert sender.send_few(b"x" * 1000, peers.network.now) == 0
    assert sender.send_few(b"x" * 4000, peers.network.now) == 1
    assert sender.send_few(b"x" * 20_000, peers.network.now) is None


RUN = st.tuples(st.integers(0, 2**40), st.integers(0, 2**16 - 1), st.floats(0, 1))
SHARD = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.integers(0, 6),
    st.integers(0, 6),
    st.binary(max_size=60),
    st.sampled_from([0, 1, 2, 0x80]),
)


@given(run=st.one_of(st.none(), RUN), shard=st.one_of(st.none(), SHARD), is_fit=st.booleans())
def test_plain_frames_are_read_as_all_frames_are(
    run: tuple[int, int, float] | None,
    shard: tuple[int, int, int, int, bytes, int] | None,
    is_fit: bool,
) -> None:
    frames = b""
    if run is not None:
        low, length, delay = run
        frames = ack_of_run(low, low + length, delay)
        assert frames == Ack(((low, low + length),), delay).encode(1000)
    if shard is not None:
        number, length, count, index, data, delivery = shard
        if is_fit and count:  # of the bytes that such a shard has
            size = -(-length // count)
            data = bytes(size if index != count - 1 else max(0, length - size * index))
        frames += shard_header(delivery, number, length, count, index) + data
    assert_read_alike(frames)


@given(frames=st.binary(max_size=60))
@example(frames=bytes([1]) + bytes(13))
@example(frames=bytes([7]) + bytes(11))
def test_what_is_no_plain_frame_is_left_alone(frames: bytes) -> None:
    assert_read_alike(frames)
    assert_read_alike(b"\x01" + frames)
    assert_read_alike(b"\x07" + frames)


def test_every_small_shard_is_read_as_all_frames_are() -> None:
    """Also those whose last one would be empty, which the general path refuses."""
    for delivery, length, count, index in product((0, 0x80, 1, 2), range(13), range(6), range(6)):
        for size in range(14):
            assert_read_alike(shard_header(delivery, 7, length, count, index) + bytes(size))


def test_a_packet_that_was_only_overtaken_leaves_the_fast_path_open() -> None:
    acts = [
        BECOME_CLEAN,
        Act(800, count=100, weather="reordering", pause=0.0005),
        Act(800, count=20, weather="clean", pause=0.3),
    ]
    assert_all_the_same(acts, 4)
    recovery = Recovery(FAST, 0.001)
    for number in range(6):
        recovery.sent(SentPacket(number, 0.0, 100, None, 0, 0, -1, False))
    recovery.receive_ack_untrusted(Ack(((5, 5),), 0.0), 6, 0.01)  # 0 to 4 are taken for lost
    recovery.receive_ack_untrusted(Ack(((0, 5),), 0.0), 6, 0.02)  # and were only late
    recovery.sent(SentPacket(6, 0.02, 100, None, 0, 0, -1, False))
    assert recovery.receive_run_untrusted(0, 6, 0.0, 0.03)
