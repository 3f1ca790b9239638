"""The reactor without an engine thread: on real sockets, and on toys where time matters."""

import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from p2pnode.errors import LocalProtocolError, UserError
from p2pnode.net.jobs import Failed, Finished
from p2pnode.net.pump import REASONS
from p2pnode.net.reactor import BATCH, Reactor
from p2pnode.net.udp import open_udp
from p2pnode.sansio import Address, Transmit
from tests.net.toys import PEER, Guard, ToyCore, ToySocket


class Bench:
    """A reactor, its core, its toy socket, and what it told us."""

    def __init__(self) -> None:
        self.core = ToyCore()
        self.socket = ToySocket()
        self.told: list[str] = []
        self.react: Callable[[str], None] = lambda _: None
        self.reactor: Reactor[ToyCore, str] = Reactor(self.core, self.socket, self._on_event)

    def _on_event(self, event: str, now: float) -> None:
        self.told.append(event)
        self.react(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.reactor.run)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


async def test_two_reactors_talk_over_real_sockets() -> None:
    server_socket, client_socket = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    heard = trio.Event()
    told: list[str] = []

    def on_client_event(event: str, now: float) -> None:
        told.append(event)
        heard.set()

    server: Reactor[ToyCore, str] = Reactor(ToyCore(), server_socket, lambda event, now: None)
    client = Reactor(Quiet(), client_socket, on_client_event)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await nursery.start(client.run)
        client.call(lambda core, now: core.say(b"hello", server_socket.address))
        with trio.fail_after(5):
            await heard.wait()
        nursery.cancel_scope.cancel()
    assert told == ["re: hello"]
    server_socket.close()
    client_socket.close()


async def test_an_answer_leaves_as_soon_as_its_datagram_is_taken() -> None:
    bench = Bench()
    sent: list[object] = []
    bench.react = lambda event: sent.append(len(bench.socket.sent))
    async with bench.running():
        bench.socket.arrive(b"one", b"two", b"three")
        await trio.testing.wait_all_tasks_blocked()
    assert bench.socket.sent == [(b"re: one", PEER), (b"re: two", PEER), (b"re: three", PEER)]
    assert sent == [0, 1, 1]  # the first was answered before the next was asked for


async def test_a_command_is_sent_at_once_and_its_value_returned() -> None:
    bench = Bench()
    async with bench.running():

        def command(core: ToyCore, now: float) -> float:
            core.outbox.append(Transmit(PEER, b"now"))
            return now

        assert bench.reactor.call(command) == pytest.approx(trio.current_time(), abs=1)
        assert bench.socket.sent == [(b"now", PEER)]


async def test_a_command_may_be_given_before_the_reactor_runs() -> None:
    bench = Bench()
    bench.reactor.call(lambda core, now: core.timers.append(now))
    async with bench.running():
        assert bench.told == ["timer"]


async def test_a_command_from_within_an_event_is_carried_out_in_order() -> None:
    bench = Bench()

    def react(event: str) -> None:
        if event == "first":
            bench.reactor.call(lambda core, now: core.events.append("third"))
            bench.reactor.call(lambda core, now: core.outbox.append(Transmit(PEER, b"at once")))
            assert bench.socket.sent[-1] == (b"at once", PEER)

    bench.react = react
    async with bench.running():
        bench.reactor.call(lambda core, now: core.events.extend(["first", "second"]))
    assert bench.told == ["first", "second", "third"]


async def test_what_a_command_raises_is_its_callers_and_the_reactor_lives_on() -> None:
    bench = Bench()

    def command(core: ToyCore, now: float) -> None:
        core.outbox.append(Transmit(PEER, b"before"))
        raise UserError("no such peer")

    async with bench.running():
        with pytest.raises(UserError, match="no such peer"):
            bench.reactor.call(command)
        assert bench.socket.sent == [(b"before", PEER)]
        bench.socket.arrive(b"on")
        await trio.testing.wait_all_tasks_blocked()
    assert bench.told == ["on"]


async def test_malformed_datagrams_are_counted_by_reason_and_never_fatal() -> None:
    bench = Bench()
    async with bench.running():
        bench.socket.arrive(b"bad length", b"bad length", b"bad seal", b"good")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.told == ["good"]
        assert bench.reactor.counters == {
            "malformed: malformed  length": 2,
            "malformed: malformed  seal": 1,
        }


async def test_a_peer_cannot_fill_our_memory_with_reasons() -> None:
    bench = Bench()
    async with bench.running():
        bench.socket.arrive(*(b"bad%d" % number for number in range(1000)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(bench.reactor.counters) <= REASONS + 1
        assert bench.reactor.counters.total() == 1000


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
        bench.reactor.call(lambda core, now: core.timers.append(now + 1.0))
        await trio.sleep(5)
    assert bench.core.fired == [start + 2.0]


async def test_a_timer_put_off_does_not_fire_early(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    start = trio.current_time()
    bench.core.timers = [start + 2.0]
    async with bench.running():
        await trio.sleep(1)
        bench.reactor.call(lambda core, now: core.timers.__setitem__(0, start + 4.0))
        await trio.sleep(10)
    assert bench.core.fired == [start + 4.0]


async def test_a_core_that_never_has_enough_does_not_starve_the_loop() -> None:
    bench = Bench()
    bench.react = lambda event: bench.reactor.call(lambda core, now: core.timers.append(-math.inf))
    bench.core.timers.append(-math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.reactor.run)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert len(bench.told) > 20
        nursery.cancel_scope.cancel()


async def test_lateness_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    assert bench.reactor.loop_late_ms() == (0.0, 0.0)
    async with bench.running():
        await trio.sleep(2.9)
        autojump_clock.jump(1.0)  # as if something blocked the loop, whose next sample is due at 3
        await trio.sleep(1)
        assert bench.reactor.loop_late_ms() == pytest.approx((0.0, 900.0))
        await trio.sleep(100)
        assert bench.reactor.loop_late_ms() == pytest.approx((0.0, 0.0))


# What raises


async def test_a_core_that_raises_ends_the_run_with_that_error_alone() -> None:
    bench = Bench()
    bench.socket.arrive(b"bug")
    with trio.fail_after(5), pytest.raises(LocalProtocolError, match="our own fault"):
        await bench.reactor.run()
    assert isinstance(bench.reactor.failure, LocalProtocolError)


async def test_a_callback_that_raises_ends_the_run_and_not_whoever_gave_the_command() -> None:
    bench = Bench()

    def react(event: str) -> None:
        raise ZeroDivisionError(event)

    bench.react = react
    async with trio.open_nursery() as nursery:
        ended = trio.Event()
        nursery.start_soon(ends_with_zero_division, bench.reactor, ended)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.reactor.call(lambda core, now: core.events.append("first")) is None
        assert bench.reactor.failure is not None
        with pytest.raises(LocalProtocolError):  # the core is left alone from now on
            bench.reactor.call(lambda core, now: core.events.append("second"))
        with trio.fail_after(5):
            await ended.wait()
    assert bench.told == ["first"]


async def test_what_raised_before_the_run_ends_it_at_once() -> None:
    bench = Bench()
    bench.core.timers.append(-math.inf)

    def react(event: str) -> None:
        raise ZeroDivisionError

    bench.react = react
    bench.reactor.call(lambda core, now: None)
    with trio.fail_after(5), pytest.raises(ZeroDivisionError):
        await bench.reactor.run()


# Off the loop


async def test_an_offloaded_task_runs_elsewhere_and_its_result_is_a_command() -> None:
    bench = Bench()
    guard: Any = Guard(bench.core)
    bench.reactor = Reactor(guard, bench.socket, bench._on_event)
    guard.holds(bench.reactor._monitor._lock)
    ran_in: list[int] = []
    done_in: list[int] = []
    finished = trio.Event()

    def task() -> int:
        ran_in.append(threading.get_ident())
        return 42

    def done(core: ToyCore, outcome: Finished[int] | Failed, now: float) -> None:
        done_in.append(threading.get_ident())
        core.finished(outcome.unwrap())
        finished.set()

    async with bench.running():
        bench.reactor.offload(task, done)
        with trio.fail_after(5):
            await finished.wait()
        assert bench.socket.sent == [(b"result", PEER)]
    assert bench.core.results == [42]
    assert ran_in != done_in == [threading.get_ident()]
    assert guard.faults == []


async def test_what_an_offloaded_task_raises_is_handed_back() -> None:
    bench = Bench()
    outcomes: list[object] = []
    finished = trio.Event()

    def done(core: ToyCore, outcome: Finished[float] | Failed, now: float) -> None:
        outcomes.append(outcome)
        finished.set()

    async with bench.running():
        bench.reactor.offload(lambda: 1 / 0, done)
        with trio.fail_after(5):
            await finished.wait()
    (outcome,) = outcomes
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ZeroDivisionError)


async def test_an_event_may_offload_at_once_and_a_stop_does_not_wait_for_it() -> None:
    bench = Bench()
    release, started = threading.Event(), threading.Event()

    def task() -> None:
        started.set()
        release.wait(10)

    bench.core.events.append("plan")
    bench.react = lambda event: bench.reactor.offload(task, lambda core, outcome, now: None)
    with trio.fail_after(5):
        async with bench.running():
            assert await trio.to_thread.run_sync(started.wait, 5)
    release.set()


async def test_nothing_is_offloaded_by_a_reactor_that_does_not_run() -> None:
    with pytest.raises(LocalProtocolError):
        Bench().reactor.offload(lambda: 1, lambda core, outcome, now: None)


async def ends_with_zero_division(reactor: Reactor[ToyCore, str], ended: trio.Event) -> None:
    with pytest.raises(ZeroDivisionError, match="first"):
        await reactor.run()
    ended.set()


class Quiet(ToyCore):
    """An echo that does not answer, lest two of them never stop."""

    def say(self, payload: bytes, destination: Address) -> None:
        self.outbox.append(Transmit(destination, payload))

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self.events.append(data.decode())


async def test_a_command_from_another_thread_is_refused_and_harms_nothing() -> None:
    """It would have set the loop's alarm from outside of the loop, and left the node deaf."""
    bench = Bench()
    async with bench.running():
        with pytest.raises(LocalProtocolError, match="thread of the loop"):
            await trio.to_thread.run_sync(bench.reactor.call, lambda core, now: None)
        bench.reactor.call(lambda core, now: None)
