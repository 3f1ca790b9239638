"""What the driver does in the thread that computes, called here from one thread in virtual time."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeGuard

import trio
import trio.testing
from hypothesis import given, strategies as st

from p2pnode.net.driver import STUCK_SECONDS, Driver
from p2pnode.sansio import Address, Transmit

PEER = ("127.0.0.1", 9)


class Core:
    """Answers datagrams, and does work for those that say so."""

    def __init__(self) -> None:
        self.outbox: list[Transmit[Address]] = []
        self.events: list[str] = []
        self.due: float | None = None
        self.times: list[float] = []

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self.times.append(now)
        self.events.append(data.decode())
        self.outbox.append(Transmit(source, b"re: " + data))

    def handle_timeout(self, now: float) -> None:
        self.times.append(now)
        self.events.append("timer")
        self.due = None

    def next_timeout(self) -> float | None:
        return self.due

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken, self.outbox = self.outbox, []
        return taken

    def take_events(self) -> list[str]:
        taken, self.events = self.events, []
        return taken


class Socket:
    """A socket fed by the test; nobody is told when it becomes readable."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Address]] = []
        self.log: list[str] = []

    async def wait_readable(self) -> None:
        await trio.sleep_forever()

    def receive(self) -> tuple[bytes, Address] | None:
        return self.waiting.pop(0) if self.waiting else None

    def send(self, payload: bytes, destination: Address) -> bool:
        self.log.append(payload.decode())
        return True


class Bench:
    """A driver whose socket is watched elsewhere."""

    def __init__(self) -> None:
        self.core = Core()
        self.socket = Socket()
        self.told: list[str] = []
        self.driver = Driver(self.core, self.socket, lambda event, now: self.told.append(event))

    @asynccontextmanager
    async def watched_elsewhere(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.driver.run)
            await trio.testing.wait_all_tasks_blocked()
            self.driver.let_worker_watch(True)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


def is_work(event: str) -> TypeGuard[str]:
    return event == "work"


async def test_work_begins_before_anything_is_sent_unless_it_is_due() -> None:
    bench = Bench()
    async with bench.watched_elsewhere():
        bench.socket.waiting.append((b"work", PEER))
        received = bench.driver.receive_in_worker(is_work)
        assert received is not None
        assert received.work == "work"
        assert not received.is_loop_wanted
        assert bench.socket.log == []
        bench.core.due = trio.current_time()
        bench.socket.waiting.append((b"work", PEER))
        received = bench.driver.receive_in_worker(is_work)
        assert received is not None
        assert received.is_loop_wanted


async def test_what_is_no_work_is_answered_and_told_to_the_loop() -> None:
    bench = Bench()
    async with bench.watched_elsewhere():
        assert bench.driver.receive_in_worker(is_work) is None
        bench.socket.waiting.append((b"news", PEER))
        received = bench.driver.receive_in_worker(is_work)
        assert received is not None
        assert received.work is None
        assert received.is_loop_wanted
        assert bench.socket.log == ["re: news"]
        assert bench.told == []
        bench.driver.flush()
        assert bench.told == ["news"]


async def test_events_are_handed_over_before_anything_is_sent() -> None:
    bench = Bench()
    async with bench.watched_elsewhere():

        def finish(now: float) -> None:
            bench.core.events.append("token")
            bench.core.outbox.append(Transmit(PEER, b"states"))

        bench.driver.call_from_worker(finish, lambda: bench.socket.log.append("loop woken"))
        assert bench.socket.log == ["loop woken", "states"]
        bench.driver.flush()
        assert bench.told == ["token"]


async def test_a_rest_fires_what_is_due_and_lasts_until_the_next_timer() -> None:
    bench = Bench()
    async with bench.watched_elsewhere():
        bench.core.due = trio.current_time() - 1
        rest = bench.driver.rest_in_worker()
        assert rest.seconds is None
        assert rest.is_loop_wanted
        bench.driver.flush()
        assert bench.told == ["timer"]
        bench.core.due = trio.current_time() + 5
        rest = bench.driver.rest_in_worker()
        assert rest.seconds is not None
        assert 4 < rest.seconds <= 5


async def test_the_loop_fires_a_kept_timer_only_when_it_is_very_late(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with bench.watched_elsewhere():
        due = bench.core.due = trio.current_time() + 5
        bench.driver.rest_in_worker()
        bench.driver.flush()
        await trio.sleep(10)
        (fired,) = bench.core.times
        assert math.isclose(fired, due + STUCK_SECONDS, abs_tol=1e-6)


async def test_a_timer_earlier_than_those_kept_is_the_loops(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with bench.watched_elsewhere():
        bench.core.due = trio.current_time() + 5
        bench.driver.rest_in_worker()
        sooner = trio.current_time() + 1

        def command(now: float) -> None:
            bench.core.due = sooner

        bench.driver.call(command)
        await trio.sleep(3)
        assert [math.isclose(moment, sooner, abs_tol=1e-6) for moment in bench.core.times] == [True]


async def test_what_waits_in_the_socket_is_taken_before_a_timer_fires(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with bench.watched_elsewhere():
        bench.socket.waiting.append((b"late", PEER))
        bench.driver.call(lambda now: setattr(bench.core, "due", now + 1))
        await trio.sleep(2)
        assert bench.told == ["late", "timer"]


@given(st.lists(st.sampled_from([b"work", b"news"]), max_size=20))
def test_the_core_never_sees_time_run_backwards(datagrams: list[bytes]) -> None:
    bench = Bench()

    async def run() -> None:
        async with bench.watched_elsewhere():
            for number, data in enumerate(datagrams):
                bench.socket.waiting.append((data, PEER))
                if number % 2:
                    bench.driver.receive_in_worker(is_work)
                else:
                    bench.driver.deliver(data, PEER)

    trio.run(run)
    assert bench.core.times == sorted(bench.core.times)
