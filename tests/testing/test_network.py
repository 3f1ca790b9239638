"""Cores on the virtual network: time, faults, and the same story for the same seed."""

from dataclasses import dataclass

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import Address, Transmit
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link
from p2pnode.testing.network import Clock, VirtualNetwork

A: Address = ("10.0.0.1", 1)
B: Address = ("10.0.0.2", 1)
C: Address = ("10.0.0.3", 1)


@dataclass(frozen=True, slots=True)
class Heard:
    payload: bytes
    at: float


class Parrot:
    """Sends a numbered ping every ``interval`` seconds, and tells what it hears."""

    def __init__(self, friend: Address | None = None, interval: float = 1.0) -> None:
        self._friend = friend
        self._interval = interval
        self._next = 0.0
        self._number = 0
        self._outbox: list[Transmit[Address]] = []
        self._events: list[Heard] = []
        self.wakes: list[float] = []

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        if data == b"nonsense":
            raise RemoteProtocolError("nonsense")
        self._events.append(Heard(data, now))

    def handle_timeout(self, now: float) -> None:
        assert now >= self._next
        self.wakes.append(now)
        self._next += self._interval
        self.say(now)

    def say(self, now: float) -> None:
        if self._friend is not None:
            self._outbox.append(Transmit(self._friend, self._number.to_bytes(4, "big")))
            self._number += 1

    def next_timeout(self) -> float | None:
        return None if self._friend is None else self._next

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken, self._outbox = self._outbox, []
        return taken

    def take_events(self) -> list[Heard]:
        taken, self._events = self._events, []
        return taken


Parrots = VirtualNetwork[Address, Heard]


def two_parrots(seed: int = 1, link: Link | None = None, interval: float = 1.0) -> Parrots:
    network = Parrots(seed, link)
    network.attach(A, Parrot(B, interval))
    network.attach(B, Parrot(A, interval))
    return network


def heard(network: Parrots, by: Address) -> list[bytes]:
    return [event.payload for _, address, event in network.story if address == by]


def test_time_jumps_from_one_event_to_the_next() -> None:
    network = two_parrots(link=Link(latency=(0.25, 0.25)))
    network.run(seconds=3)
    assert [at for at, address, _ in network.story if address == B] == [0.25, 1.25, 2.25]
    assert network.now == 3


def test_run_goes_on_where_it_stopped() -> None:
    whole, parts = two_parrots(), two_parrots()
    whole.run(seconds=10)
    for _ in range(40):
        parts.run(seconds=0.25)
    assert whole.story == parts.story
    assert whole.trace_hash() == parts.trace_hash()


WEATHERS = st.builds(
    Link,
    loss=st.one_of(
        st.builds(Bernoulli, st.floats(0, 1)),
        st.builds(GilbertElliott, st.floats(0.01, 1), st.floats(0.01, 1)),
    ),
    latency=st.tuples(st.floats(0, 0.1), st.floats(0.1, 2)),
    reorder=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    corrupt=st.floats(0, 1),
    rate=st.none() | st.floats(10, 10_000),
    queue=st.integers(0, 1000),
)


@given(seed=st.integers(0, 2**32), link=WEATHERS)
def test_the_same_seed_tells_the_same_story(seed: int, link: Link) -> None:
    first, second = two_parrots(seed, link, 0.1), two_parrots(seed, link, 0.1)
    first.run(seconds=10)
    second.run(seconds=10)
    assert first.story == second.story
    assert first.trace_hash() == second.trace_hash()


@given(link=WEATHERS)
def test_every_datagram_is_accounted_for(link: Link) -> None:
    network = two_parrots(5, link, 0.1)
    network.run(seconds=5)
    network.detach(A)
    network.detach(B)
    network.run(seconds=100)
    seen = network.statistics()
    arrived = seen.delivered + seen.dropped.get("absent", 0)
    vanished = sum(count for reason, count in seen.dropped.items() if reason != "absent")
    copies = arrived + vanished - seen.sent
    assert 0 <= copies <= seen.sent
    assert link.duplicate or not copies


def test_another_seed_tells_another_story() -> None:
    hashes = set()
    for seed in range(5):
        network = two_parrots(seed, Link(loss=Bernoulli(0.5)))
        network.run(seconds=50)
        hashes.add(network.trace_hash())
    assert len(hashes) == 5


def test_the_trace_hash_is_the_same_in_every_process() -> None:
    """A frozen value: it changes only when the network's behaviour does."""
    network = two_parrots(42, Link(loss=Bernoulli(0.2), latency=(0.01, 0.03), corrupt=0.1))
    network.run(seconds=30)
    assert network.trace_hash() == "ef0dd699d4279208a4fd6bec5135ec23"


def test_a_newcomer_leaves_the_weather_of_others_alone() -> None:
    link = Link(loss=Bernoulli(0.5), latency=(0.01, 0.3))
    alone, joined = two_parrots(3, link), two_parrots(3, link)
    joined.attach(C, Parrot(A))
    alone.run(seconds=60)
    joined.run(seconds=60)
    assert heard(alone, B) == heard(joined, B)


def test_a_partition_may_be_one_way() -> None:
    network = two_parrots()
    network.partition([A], [B], one_way=True)
    network.run(seconds=4.5)
    assert heard(network, B) == []
    assert len(heard(network, A)) == 5
    network.partition([A], [B])
    network.run(seconds=5)
    assert len(heard(network, A)) == 5
    network.heal()
    network.run(seconds=5)
    assert len(heard(network, B)) == 5
    assert network.statistics().dropped["partition"] == 15


def test_a_crashed_node_is_silent_and_may_come_back() -> None:
    network = two_parrots()
    network.run(seconds=2.5)
    network.detach(B)
    network.call(B, lambda now: pytest.fail("a crashed node does nothing"))
    network.run(seconds=3)
    assert len(heard(network, A)) == 3
    assert network.statistics().dropped["absent"] == 3
    network.attach(B, Parrot())
    network.run(seconds=2)
    assert heard(network, B)[-1] == (7).to_bytes(4, "big")


def test_hostile_bytes_are_counted_and_never_fatal() -> None:
    network = two_parrots()
    network.send(("6.6.6.6", 6), A, b"nonsense")
    network.run(seconds=1.5)
    assert network.statistics().malformed == 1
    assert len(heard(network, A)) == 2


def test_each_direction_has_its_own_link() -> None:
    network = two_parrots()
    network.run(seconds=0.5)
    network.set_link(A, B, Link(loss=Bernoulli(1)))
    network.run(seconds=5)
    assert (len(heard(network, A)), len(heard(network, B))) == (6, 1)
    network.set_links(A, B, Link(latency=(0.3, 0.3)))
    network.run(seconds=1)
    assert network.story[-1][2].at == pytest.approx(6.3)


@pytest.mark.parametrize("clock", [Clock(1e6), Clock(-50, 1.001), Clock(0.1, 1 / 3)])
def test_a_node_lives_by_its_own_clock(clock: Clock) -> None:
    network = Parrots(1)
    parrot = Parrot(B)
    parrot._next = clock.read(0.0) + 1
    network.attach(A, parrot, clock=clock)
    network.attach(B, Parrot())
    network.run(seconds=31)
    assert len(parrot.wakes) == pytest.approx(31 * clock.rate, abs=1.01)
    assert parrot.wakes == pytest.approx([clock.offset + n + 1 for n in range(len(parrot.wakes))])


def test_commands_and_callbacks_are_collected() -> None:
    network = Parrots(1)
    parrot = Parrot(A, interval=1e9)
    network.attach(B, parrot)

    def answer(event: Heard, now: float) -> None:
        if event.payload == b"say it":
            parrot.say(now)  # straight into the core
            network.after(2.0, lambda moment: network.call(B, parrot.say))  # as a computation

    network.attach(B, parrot, on_event=answer)
    network.attach(A, Parrot())
    network.run(seconds=1)
    network.send(A, B, b"say it")
    network.run(seconds=5)
    assert [round(at) for at, address, _ in network.story if address == A] == [0, 1, 3]


def test_a_stalled_node_does_nothing_and_its_buffer_fills() -> None:
    network = Parrots(1)
    network.attach(A, Parrot(B, interval=0.01))
    parrot = Parrot(A)
    network.attach(B, parrot, receive_buffer=30 * (1115 + 4))
    network.run(seconds=0.005)
    network.stall(B, 2.0)
    said: list[float] = []
    network.call(B, said.append)
    network.run(seconds=1.9)
    assert len(heard(network, B)) == 1
    assert said == []
    network.run(seconds=0.2)
    assert said == [pytest.approx(2.005)]
    assert parrot.wakes == [0.0, pytest.approx(2.005), pytest.approx(2.005)]  # 1.0 and 2.0, late
    backlog = [event.at for _, address, event in network.story if address == B][1:31]
    assert backlog == [pytest.approx(2.005)] * 30
    assert network.statistics().dropped["buffer"] == pytest.approx(170, abs=3)


def test_run_until_stops_at_the_moment_it_holds() -> None:
    network = two_parrots()
    assert network.run_until(lambda: len(heard(network, B)) == 3, limit_seconds=10)
    assert network.now == pytest.approx(2.001)
    assert not network.run_until(lambda: False, limit_seconds=1)
    assert network.now == pytest.approx(3.001)


def test_one_particular_datagram_can_be_hit() -> None:
    network = two_parrots()
    third = (2).to_bytes(4, "big")
    network.intercept = lambda source, _, payload: (source, payload) != (A, third)
    network.run(seconds=5)
    assert len(heard(network, B)) == 4
    assert third not in heard(network, B)


class Postponing(Parrot):
    """Pushes its one timer back with every datagram, as retransmission timers are."""

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self._next = now + 1
        self._outbox.append(Transmit(source, data))

    def take_events(self) -> list[Heard]:
        return []


def test_a_timer_that_moves_leaves_no_trail_in_the_agenda() -> None:
    network = Parrots(1)
    network.attach(A, Postponing(B))
    network.attach(B, Postponing(A))
    network.run(seconds=30)
    assert network.statistics().delivered > 20_000
    assert len(network._agenda) < 10


def test_a_core_that_spins_is_our_bug() -> None:
    network = Parrots(1)
    network.attach(A, Parrot(B, interval=0.0))
    with pytest.raises(LocalProtocolError, match="for ever"):
        network.run(seconds=1)


def test_what_says_it_is_bulk_needs_no_datagram() -> None:
    """Membership hands large exchanges to a reliable layer; alone on the network, so do we."""

    class Bulk(Transmit[Address]):
        bulk = True

    class Sender(Parrot):
        def datagrams_to_send(self) -> list[Transmit[Address]]:
            return [Bulk(t.destination, bytes(50_000)) for t in super().datagrams_to_send()]

    network = Parrots(1, Link(loss=Bernoulli(0.5)))
    network.attach(A, Sender(B))
    network.attach(B, Parrot())
    network.run(seconds=9.5)
    assert [len(payload) for payload in heard(network, B)] == [50_000] * 10


def test_payload_bytes_are_counted_by_peer() -> None:
    network = two_parrots()
    network.run(seconds=9.5)
    seen = network.statistics()
    assert (seen.bytes_sent[A], seen.bytes_delivered[B]) == (40, 40)
    assert seen.sent == seen.delivered == 20
