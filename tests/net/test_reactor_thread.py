"""The reactor with an engine thread, on a real socket: who computes, who waits, who is told."""

import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from p2pnode.errors import LocalProtocolError
from p2pnode.net.engine_thread import EngineThread
from p2pnode.net.engine_turns import POLL_SECONDS
from p2pnode.net.monitor import TURNS
from p2pnode.net.reactor import Reactor
from p2pnode.net.waiter import Waiter
from p2pnode.sansio import Address
from tests.net.toys import PEER, Guard, ToyCore, job_of, spin


class PairSocket:
    """One end of a pair of datagram sockets."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.fileno = raw.fileno()
        self.sent: list[bytes] = []

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._raw)

    def receive(self) -> tuple[bytes, Address] | None:
        try:
            return self._raw.recv(100), PEER
        except BlockingIOError:
            return None

    def send(self, payload: bytes, destination: Address, *, is_probe: bool = False) -> bool:
        self.sent.append(payload)
        return True


class Bench:
    """A reactor at one end of a pair of sockets; the test has the other."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.far = far
        self.socket = PairSocket(near)
        self.core = ToyCore()
        self.told: list[str] = []
        self.changed = trio.Event()
        self.computed_in: list[str] = []
        self.release = threading.Event()
        self.run: Callable[[str], object] = str
        self.units: Callable[[str], float] = lambda _: 0.0
        self.reactor: Reactor[Any, str] = self.make(self.core)

    def make(self, core: Any, *, poll: float = POLL_SECONDS) -> Reactor[Any, str]:
        socket, job_of = self.socket, self._job_of
        return Reactor(core, socket, self._on_event, job_of=job_of, stop_grace=5.0, poll=poll)

    def _job_of(self, event: str) -> Any:
        return job_of(event, self._compute, self.units)

    def _compute(self, event: str) -> object:
        self.computed_in.append(threading.current_thread().name)
        return self.run(event)

    def _on_event(self, event: str, now: float) -> None:
        self.told.append(event)
        self.changed.set()

    @property
    def waiter(self) -> Waiter:
        return self.reactor._monitor.waiter

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.reactor.run)
            await until(lambda: self.waiter is Waiter.THREAD and not self.reactor._gate.is_set())
            try:
                yield
            finally:
                self.release.set()
            nursery.cancel_scope.cancel()


def _emit(event: str, core: ToyCore, now: float) -> None:
    core.events.append(event)


async def until(reached: Callable[[], bool]) -> None:
    """Let threads and tasks get on until ``reached``."""
    with trio.fail_after(20):
        while not reached():
            await trio.testing.wait_all_tasks_blocked(0.001)


@pytest.fixture(name="bench")
async def _bench() -> AsyncIterator[Bench]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with near, far:
        yield Bench(near, far)


# Who computes


async def test_what_arrives_is_taken_and_computed_in_the_thread(bench: Bench) -> None:
    async with bench.running():
        bench.far.send(b"work 1")
        await until(lambda: bench.core.results == ["work 1"])
    assert bench.computed_in == ["engine"]
    assert bench.socket.sent == [b"re: work 1", b"result"]
    assert bench.told == []


async def test_jobs_keep_their_order_and_their_thread_wherever_they_come_from(
    bench: Bench,
) -> None:
    wanted = [f"work {number}" for number in range(200)]
    async with bench.running():
        for event in wanted:
            bench.reactor.call(partial(_emit, event))
        await until(lambda: len(bench.core.results) == len(wanted))
    assert bench.core.results == wanted
    assert set(bench.computed_in) == {"engine"}


async def test_a_job_that_the_core_had_before_the_run_is_computed(bench: Bench) -> None:
    bench.core.events.append("work early")
    async with bench.running():
        await until(lambda: bench.core.results == ["work early"])


async def test_what_is_no_work_is_told_to_the_loop_and_the_thread_waits_on(bench: Bench) -> None:
    async with bench.running():
        for count in range(1, 20):
            bench.far.send(b"gossip")
            await until(lambda count=count: len(bench.told) == count)  # type: ignore[misc]
        assert bench.waiter is Waiter.THREAD


async def test_a_job_that_is_not_wanted_any_more_is_not_begun(bench: Bench) -> None:
    bench.core.unwanted.add("work off")
    async with bench.running():
        bench.far.send(b"work off")
        bench.far.send(b"work on")
        await until(lambda: bench.core.results == ["work on"])
    assert len(bench.computed_in) == 1


# Who waits


async def test_others_are_heard_during_a_long_job_that_follows_a_brief_one(bench: Bench) -> None:
    bench.units = lambda event: 1.0 if "brief" in event else 1e6

    def run(event: str) -> str:
        if "long" in event:
            assert bench.release.wait(20)
        return event

    bench.run = run
    async with bench.running():
        for count in range(1, 4):
            bench.far.send(b"work brief")
            await until(lambda count=count: len(bench.core.results) == count)  # type: ignore[misc]
        bench.far.send(b"work long")
        bench.far.send(b"news")
        await until(lambda: "news" in bench.told)  # the loop reads it: the thread is busy
        assert bench.waiter is Waiter.LOOP
        assert len(bench.core.results) == 3
        bench.release.set()
        await until(lambda: bench.waiter is Waiter.THREAD)


async def test_the_loop_takes_over_from_a_job_that_was_thought_to_be_brief(bench: Bench) -> None:
    bench.run = lambda event: bench.release.wait(20)
    async with bench.running():
        bench.far.send(b"work endless")
        await until(lambda: bool(bench.computed_in))
        assert bench.waiter is not Waiter.THREAD
        bench.far.send(b"news")
        await until(lambda: "news" in bench.told)
        assert bench.waiter is Waiter.LOOP


async def test_the_waiting_thread_keeps_the_timers(bench: Bench) -> None:
    class Ticking(ToyCore):
        def handle_timeout(self, now: float) -> None:
            self.timers = [now + 0.001]
            fired_in.append(threading.current_thread().name)

    fired_in: list[str] = []
    bench.core = Ticking()
    bench.reactor = bench.make(bench.core)
    bench.core.timers = [-math.inf]
    async with bench.running():
        await until(lambda: fired_in.count("engine") > 5)


async def taken(bench: Bench, count: int) -> None:
    """Wait until so many datagrams were taken, malformed ones too."""
    await until(lambda: len(bench.core.heard) + sum(bench.reactor.counters.values()) == count)


@pytest.mark.parametrize("kind", [b"answered", b"bad"])
async def test_only_an_answered_datagram_is_worth_polling_for_the_next(
    bench: Bench, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    has_arrived = EngineThread.has_arrived

    def look(thread: EngineThread) -> bool:
        nonlocal looks
        looks += 1
        return has_arrived(thread)

    monkeypatch.setattr(EngineThread, "has_arrived", look)
    bench.reactor = bench.make(bench.core, poll=20.0)  # outlasts any pause of a busy machine
    async with bench.running():
        for count in (1, 2):
            assert looks == 0
            bench.far.send(kind)
            await taken(bench, count)
        if kind == b"answered":
            await until(lambda: looks > 10)
        else:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert looks == 0
        bench.reactor.call(lambda core, now: core.events.append("work"))  # ends the polling


async def test_a_thread_that_polls_keeps_the_timers_too(bench: Bench) -> None:
    class Timing(ToyCore):
        def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
            super().receive_datagram(data, source, now)
            self.timers = [now + 0.005]

        def handle_timeout(self, now: float) -> None:
            super().handle_timeout(now)
            fired_in.append(threading.current_thread().name)

    fired_in: list[str] = []
    bench.core = Timing()
    bench.reactor = bench.make(bench.core, poll=20.0)
    async with bench.running():
        for count in range(1, 6):
            bench.far.send(b"answered")
            await taken(bench, count)
            await until(lambda: bench.core.timers == [])
        bench.reactor.call(lambda core, now: core.events.append("work"))  # ends the polling
    assert fired_in == ["engine"] * 5


async def test_a_heap_of_garbage_is_taken_without_a_look_at_the_timers_for_each(
    bench: Bench,
) -> None:
    class Counting(ToyCore):
        looks = 0

        def next_timeout(self) -> float | None:
            self.looks += 1
            return super().next_timeout()

    core = Counting()
    bench.core, bench.reactor = core, bench.make(core)
    bench.run = lambda event: bench.release.wait(20)
    bench.units = lambda event: 1.0 if event == "work" else 0.0
    async with bench.running():
        bench.reactor._monitor._pace.learn(1.0, 1e-4)
        bench.far.send(b"work")
        await until(lambda: bool(bench.computed_in))
        for number in range(TURNS):
            bench.far.send(b"bad %d" % number)
        core.looks = 0
        bench.release.set()
        await until(lambda: sum(bench.reactor.counters.values()) == TURNS)
        assert core.looks < TURNS / 2


# The lock


async def test_the_core_is_never_touched_without_the_lock(bench: Bench) -> None:
    guard = Guard(bench.core)
    bench.reactor = bench.make(guard)
    guard.holds(bench.reactor._monitor._lock)
    bench.units = lambda _: 1e6

    def command(core: Any, now: float) -> None:
        core.timers.append(now + 0.001)
        core.events.extend(["work from the loop", "event"])

    async with bench.running():
        for number in range(1, 30):
            bench.far.send(b"work")
            bench.far.send(b"news")
            bench.reactor.call(command)
            bench.reactor.offload(int, lambda core, outcome, now: core.finished(outcome.unwrap()))
            await until(lambda number=number: len(bench.core.results) == 3 * number)  # type: ignore[misc]
    assert guard.faults == []
    assert bench.core.times == sorted(bench.core.times)


async def test_loop_and_thread_never_meet_in_the_core(bench: Bench) -> None:
    """The loop's alarm rings while the thread changes what it looks at."""

    class Table(ToyCore):
        def __init__(self) -> None:
            super().__init__()
            self.inside = 0
            self.met = 0

        def _enter(self) -> None:
            self.met += self.inside
            self.inside += 1
            spin(0.0001)
            self.inside -= 1

        def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
            self._enter()

        def next_timeout(self) -> float | None:
            self._enter()
            return super().next_timeout()

        def handle_timeout(self, now: float) -> None:
            self.timers = [now + 0.002]

    core = Table()
    core.timers = [-math.inf]
    bench.reactor = bench.make(core)
    async with bench.running():
        for _ in range(200):
            bench.far.send(b"x")
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert core.met == 0


# What raises


@pytest.mark.parametrize("data", [b"bug", b"work fails", b"work and job_of raises"])
async def test_what_raises_in_the_thread_ends_the_run_with_that_error_once(
    bench: Bench, data: bytes
) -> None:
    def run(event: str) -> object:
        raise LocalProtocolError("our own fault")

    def units(event: str) -> float:
        if "raises" in event:
            raise LocalProtocolError("our own fault")
        return 0.0

    bench.run, bench.units = run, units
    bench.far.send(data)
    with trio.fail_after(20), pytest.raises(LocalProtocolError, match="our own fault"):
        await bench.reactor.run()
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


async def test_what_fails_on_the_loop_ends_the_thread_and_no_result_reaches_the_core(
    bench: Bench,
) -> None:
    release, started = threading.Event(), threading.Event()

    def run(event: str) -> str:
        started.set()
        assert release.wait(20)
        return event

    async def ends() -> None:
        with pytest.raises(ZeroDivisionError):
            await bench.reactor.run()

    bench.run = run
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends)
            bench.far.send(b"work of long ago")
            bench.far.send(b"work after it")
            await trio.to_thread.run_sync(started.wait)
            bench.reactor._fail(ZeroDivisionError())
            heard = list(bench.core.heard)
            release.set()
    assert bench.core.results == []
    assert bench.core.heard == heard
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


# The end


async def test_a_stop_waits_for_the_job_under_way_and_drops_the_rest(bench: Bench) -> None:
    release, started = threading.Event(), threading.Event()

    def run(event: str) -> None:
        started.set()
        assert release.wait(20)

    async def release_once_it_stops() -> None:
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            release.set()

    bench.run = run
    async with trio.open_nursery() as nursery, bench.running():
        bench.far.send(b"work slow")
        bench.far.send(b"work never")
        await trio.to_thread.run_sync(started.wait)
        nursery.start_soon(release_once_it_stops)
    assert bench.computed_in == ["engine"]
    assert bench.core.results == []  # the socket may be closed: nobody is left to be told


async def test_an_idle_reactor_stops_at_once(bench: Bench) -> None:
    with trio.fail_after(5):
        async with bench.running():
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


async def test_a_command_after_the_end_is_sent_and_wakes_nobody(bench: Bench) -> None:
    async with bench.running():
        pass
    bench.reactor.call(lambda core, now: core.events.append("work"))
    bench.reactor.call(lambda core, now: core.finished("farewell"))
    assert bench.socket.sent == [b"result"]


async def test_a_flood_of_jobs_leaves_the_loop_alive(bench: Bench) -> None:
    bench.run = lambda event: time.sleep(0)
    async with bench.running():
        bench.reactor.call(lambda core, now: core.events.extend(["work"] * 5000))
        await until(lambda: len(bench.core.results) == 5000)
