"""The driver with a toy core: on real loopback sockets, and on fakes where time matters."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.net.driver import BATCH, REASONS, Driver
from p2pnode.net.udp import open_udp
from p2pnode.sansio import Address, Transmit

PEER = ("127.0.0.1", 9)


class Echo:
    """Answers every datagram, reports it, and keeps whatever timers it is told to."""

    def __init__(self) -> None:
        self.outbox: list[Transmit[Address]] = []
        self.events: list[str] = []
        self.timers: list[float] = []
        self.fired: list[float] = []

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        if data.startswith(b"bad"):
            raise RemoteProtocolError(f"malformed {data[3:].decode()}: {data.hex()}")
        if data == b"bug":
            raise LocalProtocolError("our own fault")
        self.outbox.append(Transmit(source, b"re: " + data))
        self.events.append(data.decode())

    def handle_timeout(self, now: float) -> None:
        while self.timers and min(self.timers) <= now:
            self.timers.remove(min(self.timers))
            self.fired.append(now)
            self.events.append("timer")

    def next_timeout(self) -> float | None:
        return min(self.timers, default=None)

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken, self.outbox = self.outbox, []
        return taken

    def take_events(self) -> list[str]:
        taken, self.events = self.events, []
        return taken


class FakeSocket:
    """A socket fed by the test."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Address]] = []
        self.sent: list[tuple[bytes, Address]] = []
        self.readable = trio.Event()

    async def wait_readable(self) -> None:
        await self.readable.wait()
        self.readable = trio.Event()

    def receive(self) -> tuple[bytes, Address] | None:
        return self.waiting.pop(0) if self.waiting else None

    def send(self, payload: bytes, destination: Address) -> bool:
        self.sent.append((payload, destination))
        return True

    def arrive(self, *payloads: bytes) -> None:
        self.waiting += [(payload, PEER) for payload in payloads]
        self.readable.set()


class Bench:
    """A driver, its core, its fake socket, and what it told us."""

    def __init__(self) -> None:
        self.core = Echo()
        self.socket = FakeSocket()
        self.told: list[str] = []
        self.react: Callable[[str], None] = lambda _: None
        self.driver = Driver(self.core, self.socket, self._on_event)

    def _on_event(self, event: str, now: float) -> None:
        self.told.append(event)
        self.react(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.driver.run)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


async def test_two_drivers_talk_over_real_sockets() -> None:
    server_socket, client_socket = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    heard = trio.Event()
    told: list[str] = []

    def on_client_event(event: str, now: float) -> None:
        told.append(event)
        heard.set()

    server = Driver(Echo(), server_socket, lambda event, now: None)
    client_core = Quiet()
    client = Driver(client_core, client_socket, on_client_event)
    async with running(server, client):
        client.call(lambda now: client_core.say(b"hello", server_socket.address))
        with trio.fail_after(5):
            await heard.wait()
    assert told == ["re: hello"]
    server_socket.close()
    client_socket.close()


async def test_an_answer_leaves_before_any_other_task_runs() -> None:
    bench = Bench()
    async with bench.running():
        bench.driver.deliver(b"hi", PEER)
        assert bench.socket.sent == [(b"re: hi", PEER)]
        assert bench.told == ["hi"]


async def test_a_command_is_sent_at_once_and_its_value_returned() -> None:
    bench = Bench()
    async with bench.running():

        def command(now: float) -> float:
            bench.core.outbox.append(Transmit(PEER, b"now"))
            return now

        assert bench.driver.call(command) == pytest.approx(trio.current_time(), abs=1)
        assert bench.socket.sent == [(b"now", PEER)]


async def test_a_command_may_be_given_before_the_driver_runs() -> None:
    bench = Bench()
    bench.driver.call(bench.core.timers.append)
    async with bench.running():
        assert bench.told == ["timer"]


async def test_a_command_from_within_an_event_is_carried_out_in_order() -> None:
    bench = Bench()

    def react(event: str) -> None:
        if event == "first":
            bench.driver.call(lambda now: bench.core.events.append("third"))
            bench.driver.call(lambda now: bench.core.outbox.append(Transmit(PEER, b"at once")))
            assert bench.socket.sent[-1] == (b"at once", PEER)

    bench.react = react
    async with bench.running():
        bench.driver.call(lambda now: bench.core.events.extend(["first", "second"]))
    assert bench.told == ["first", "second", "third"]


async def test_malformed_datagrams_are_counted_by_reason_and_never_fatal() -> None:
    bench = Bench()
    async with bench.running():
        bench.socket.arrive(b"bad length", b"bad length", b"bad seal", b"good")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.told == ["good"]
        assert bench.driver.counters == {
            "malformed: malformed  length": 2,
            "malformed: malformed  seal": 1,
        }


async def test_a_peer_cannot_fill_our_memory_with_reasons() -> None:
    bench = Bench()
    async with bench.running():
        for number in range(1000):
            bench.driver.deliver(b"bad%d" % number, PEER)
        assert len(bench.driver.counters) <= REASONS + 1
        assert bench.driver.counters.total() == 1000


async def test_our_own_fault_is_not_hidden() -> None:
    bench = Bench()
    with pytest.raises(LocalProtocolError):
        bench.driver.deliver(b"bug", PEER)


async def test_a_flood_is_drained_and_lets_others_run() -> None:
    bench = Bench()
    flood = [b"%d" % number for number in range(5 * BATCH + 1)]
    async with bench.running():
        bench.socket.arrive(*flood)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert 0 < len(bench.told) < len(flood)
        await trio.testing.wait_all_tasks_blocked()
    assert bench.told == [data.decode() for data in flood]


async def test_timers_fire_when_due(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    start = trio.current_time()
    bench.core.timers = [start + 7.0, start + 3.0]
    async with bench.running():
        await trio.sleep(10)
    assert bench.core.fired == [start + 3.0, start + 7.0]


async def test_a_timer_moved_earlier_fires_early(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    start = trio.current_time()
    bench.core.timers = [start + 100.0]
    async with bench.running():
        await trio.sleep(1)
        bench.driver.call(lambda now: bench.core.timers.append(now + 1.0))
        await trio.sleep(5)
    assert bench.core.fired == [start + 2.0]


async def test_a_timer_put_off_does_not_fire_early(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    start = trio.current_time()
    bench.core.timers = [start + 2.0]
    async with bench.running():
        await trio.sleep(1)
        bench.driver.call(lambda now: bench.core.timers.__setitem__(0, start + 4.0))
        await trio.sleep(10)
    assert bench.core.fired == [start + 4.0]


async def test_a_core_that_never_has_enough_does_not_starve_the_loop() -> None:
    bench = Bench()
    bench.react = lambda event: bench.core.timers.append(-math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.driver.run)
        bench.core.timers.append(-math.inf)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert len(bench.told) > 20
        nursery.cancel_scope.cancel()


async def test_lateness_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    assert bench.driver.loop_late_ms() == (0.0, 0.0)
    async with bench.running():
        await trio.sleep(2.9)
        autojump_clock.jump(1.0)  # as if something blocked the loop, whose next sample is due at 3
        await trio.sleep(1)
        assert bench.driver.loop_late_ms() == pytest.approx((0.0, 900.0))
        await trio.sleep(100)
        assert bench.driver.loop_late_ms() == pytest.approx((0.0, 0.0))


class Quiet(Echo):
    """An echo that does not answer, lest two of them never stop."""

    def say(self, payload: bytes, destination: Address) -> None:
        self.outbox.append(Transmit(destination, payload))

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self.events.append(data.decode())


@asynccontextmanager
async def running(*drivers: Driver[str]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for driver in drivers:
            nursery.start_soon(driver.run)
        yield
        nursery.cancel_scope.cancel()
