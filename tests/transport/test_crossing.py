"""Two nodes with two addresses each end in one session on the same keys, whoever dials where."""

import heapq
import itertools
from dataclasses import dataclass, field
from random import Random

import pytest

from p2pnode import CORES
from p2pnode.errors import RemoteProtocolError
from p2pnode.sansio import Address
from p2pnode.testing.pair import SECRET, identity_of
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import (
    Delivery,
    DialFailed,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    Successor,
    TransportEvent,
)

REDIAL = 3.0  # seconds, as a node does for addresses given by hand
FAMILIES = ("four", "six")


@dataclass
class Home:
    """An endpoint with one address of each family."""

    name: str
    endpoint: Endpoint
    events: list[TransportEvent] = field(default_factory=list)

    def at(self, family: str) -> Address:
        return f"{self.name} {family}", 1

    @property
    def received(self) -> list[bytes]:
        return [event.payload for event in self.events if isinstance(event, MessageReceived)]

    @property
    def ends(self) -> list[PeerDisconnected]:
        return [event for event in self.events if isinstance(event, PeerDisconnected)]


class Homes:
    """Two of them, and the ways between: datagrams are delayed, lost and put out of order."""

    def __init__(
        self, seed: int, *, loss: float = 0.0, delays: tuple[float, float] = (0.0005, 0.0005)
    ) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.loss = loss
        self.delays = delays
        names = ["ann", "bob"]
        self.rng.shuffle(names)  # either may have the lower node id
        self.one, self.other = (self._home(name) for name in names)
        self._agenda: list[tuple[float, int, Home, str, bytes]] = []
        self._number = itertools.count()

    def _home(self, name: str) -> Home:
        return Home(name, self._endpoint(name, self.rng.random()))

    def _endpoint(self, name: str, seed: float) -> Endpoint:
        config = TransportConfig.simulation()
        return Endpoint(config, identity_of(name), SECRET, Random(seed), self.now)

    def start_anew(self, home: Home) -> None:
        home.endpoint = self._endpoint(home.name, self.now + 1)
        home.events.clear()

    @property
    def lower_first(self) -> tuple[Home, Home]:
        one, other = self.one, self.other
        is_lower = identity_of(one.name).node_id < identity_of(other.name).node_id
        return (one, other) if is_lower else (other, one)

    def peer_of(self, home: Home) -> Home:
        return self.other if home is self.one else self.one

    def dial(self, home: Home, family: str, *, knows_peer: bool = False) -> None:
        peer = self.peer_of(home)
        expected = identity_of(peer.name).node_id if knows_peer else None
        home.endpoint.connect(peer.at(family), self.now, peer=expected)
        self._collect(home)

    def send(self, home: Home, payload: bytes) -> None:
        peer = identity_of(self.peer_of(home).name).node_id
        home.endpoint.send(peer, payload, Delivery.LATENCY, self.now)
        self._collect(home)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (moment := self._next()) <= end:
            self.now = max(self.now, moment)
            for home in (self.one, self.other):
                due = home.endpoint.next_timeout()
                if due is not None and due <= self.now:
                    home.endpoint.handle_timeout(self.now)
                    self._collect(home)
            while self._agenda and self._agenda[0][0] <= self.now:
                _, _, target, family, payload = heapq.heappop(self._agenda)
                try:
                    source = self.peer_of(target).at(family)
                    target.endpoint.receive_datagram(payload, source, self.now)
                except RemoteProtocolError:
                    pass
                self._collect(target)
        self.now = end

    def are_connected(self) -> bool:
        return all(
            home.endpoint.is_connected(identity_of(self.peer_of(home).name).node_id)
            for home in (self.one, self.other)
        )

    def carries(self) -> bool:
        """Whether something arrives both ways: then both have the same keys."""
        if not self.are_connected():
            return False
        word = b"%d" % next(self._number)
        for home in (self.one, self.other):
            self.send(home, word)
        for _ in range(16):  # half a second each: what is lost is sent again, ever more rarely
            self.run(0.5)
            if all(word in home.received for home in (self.one, self.other)):
                return True
        return False

    def _next(self) -> float:
        dues = (home.endpoint.next_timeout() for home in (self.one, self.other))
        moments = [due for due in dues if due is not None]
        return min([*moments, *(entry[0] for entry in self._agenda[:1])], default=float("inf"))

    def _collect(self, home: Home) -> None:
        peer = self.peer_of(home)
        for transmit in home.endpoint.datagrams_to_send():
            if self.rng.random() < self.loss:
                continue
            (family,) = (one for one in FAMILIES if peer.at(one) == transmit.destination)
            arrival = self.now + self.rng.uniform(*self.delays)
            entry = (arrival, next(self._number), peer, family, transmit.payload)
            heapq.heappush(self._agenda, entry)
        home.events += home.endpoint.take_events()


@pytest.mark.parametrize("knows_peer", [False, True], ids=["XX", "IK"])
@pytest.mark.parametrize("delays", [(0.0005, 0.0005), (0.02, 0.02), (0.0, 0.05)])
def test_two_dials_of_one_end_make_one_session(
    knows_peer: bool, delays: tuple[float, float]
) -> None:
    homes = Homes(1, delays=delays)
    for family in FAMILIES:
        homes.dial(homes.one, family, knows_peer=knows_peer)
    homes.run(1)
    assert homes.carries()
    for home in (homes.one, homes.other):
        assert len([one for one in home.events if isinstance(one, PeerConnected)]) == 1
        assert home.ends == []


def test_the_dial_that_is_given_up_says_why() -> None:
    homes = Homes(2)
    for family in FAMILIES:
        homes.dial(homes.one, family)
    homes.run(1)
    (failure,) = [one for one in homes.one.events if isinstance(one, DialFailed)]
    assert "has just answered at" in failure.reason
    assert failure.is_needless
    assert failure.peer == identity_of(homes.other.name).node_id


@pytest.mark.parametrize("knowing", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("delay", [0.0005, 0.02, 0.1])
def test_dials_that_cross_at_two_addresses_make_one_session(
    knowing: tuple[bool, bool], delay: float
) -> None:
    homes = Homes(3, delays=(delay, delay))
    homes.dial(homes.one, "four", knows_peer=knowing[0])
    homes.dial(homes.other, "six", knows_peer=knowing[1])
    homes.run(1)
    assert homes.carries()
    crossed = sum(
        home.endpoint.snapshot(homes.now).counters.get("handshake_crossed", 0)
        for home in (homes.one, homes.other)
    )
    ended = [*homes.one.ends, *homes.other.ends]
    assert crossed or not ended
    assert {end.successor for end in ended} <= {Successor.SAME_PROCESS}


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of an instance")
def test_of_an_end_that_confirms_two_dials_the_first_confirmed_stays() -> None:
    """Nodes of before do that: the answerer keeps its first connection, the dialler follows."""
    homes = Homes(4)
    half_open = homes.one.endpoint._establishing._half_open
    half_open.answered_by = lambda *_, **__: None  # type: ignore[method-assign]
    for family in FAMILIES:
        homes.dial(homes.one, family)
    homes.run(1)
    assert homes.carries()
    assert homes.other.ends == []


def dial_at_random(homes: Homes, weather: Random, slowest: float) -> None:
    """Let both dial, wherever, as nodes do until somebody is there; then let it settle."""
    for _ in range(4):  # rounds, as a node redials until somebody is there
        dials = list(itertools.product((homes.one, homes.other), FAMILIES))
        weather.shuffle(dials)
        for home, family in dials[: weather.randint(1, 4)]:
            homes.dial(home, family, knows_peer=weather.random() < 0.4)
            homes.run(weather.choice([0.0, weather.uniform(0, 3 * slowest)]))
        homes.run(REDIAL)
        if homes.are_connected():
            break
    homes.run(3)


@pytest.mark.parametrize("seed", range(300))
def test_any_dials_at_any_addresses_end_in_one_session_on_the_same_keys(seed: int) -> None:
    weather = Random(seed)
    slowest = weather.choice([0.001, 0.02, 0.1, 0.3])
    homes = Homes(
        seed,
        loss=weather.choice([0.0, 0.05, 0.2]),
        delays=(weather.uniform(0, slowest), slowest),
    )
    dial_at_random(homes, weather, slowest)
    assert homes.carries()
    for home in (homes.one, homes.other):
        connected = [one for one in home.events if isinstance(one, PeerConnected)]
        assert len(connected) == len(home.ends) + 1
        assert all(end.successor is Successor.SAME_PROCESS for end in home.ends)
    homes.loss = 0.0
    before = [len(home.ends) for home in (homes.one, homes.other)]
    homes.run(30)
    assert before == [len(home.ends) for home in (homes.one, homes.other)]


@pytest.mark.parametrize("seed", [861, 1573, *range(40)])
def test_after_one_of_them_starts_anew_they_end_in_one_session_too(seed: int) -> None:
    weather = Random(seed)
    slowest = weather.choice([0.001, 0.02, 0.1, 0.3])
    homes = Homes(
        seed,
        loss=weather.choice([0.0, 0.05, 0.2]),
        delays=(weather.uniform(0, slowest), slowest),
    )
    homes.dial(homes.one, "four")
    homes.run(6)
    assert homes.are_connected()
    homes.run(weather.choice([0, 4]))
    home = weather.choice((homes.one, homes.other))
    homes.start_anew(home)
    dial_at_random(homes, weather, slowest)
    assert homes.carries()
