"""The worker that watches a socket while it has nothing to compute."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from p2pnode.net import compute
from p2pnode.net.compute import ComputeWorker, Failed, Finished, Rest, Served, Watch


class Watcher:
    """A worker, the socket it watches, and what it tells the loop."""

    def __init__(self, receiver: socket.socket) -> None:
        self.receiver = receiver
        self.worker = ComputeWorker()
        self.moves: list[bool] = []
        self.outcomes: list[object] = []
        self.changed = trio.Event()
        self.loop_watches = threading.Event()
        self.served_by: list[str] = []
        self.found_nothing = self.rested = 0
        self.wants_loop = True
        self.next_timer: float | None = None
        self.react: Callable[[bytes], Callable[[], None] | None] = lambda data: None

    def serve(self) -> Served | None:
        try:
            data = self.receiver.recv(100)
        except BlockingIOError:
            self.found_nothing += 1
            return None
        self.served_by.append(threading.current_thread().name)
        return Served(self.react(data), self.wants_loop, is_answered=data == b"answered")

    def rest(self) -> Rest:
        self.rested += 1
        return Rest(self.next_timer, is_loop_wanted=False)

    def done(self, outcome: Finished[None] | Failed) -> None:
        self.outcomes.append(outcome)
        self.changed.set()

    def moved(self, watching: bool) -> None:
        self.moves.append(watching)
        if not watching:
            self.loop_watches.set()
        self.changed.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not reached():
                self.changed = trio.Event()
                await self.changed.wait()

    async def until_served(self, count: int) -> None:
        await self.until(lambda: len(self.served_by) >= count)


@pytest.fixture(name="sockets")
def _sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    with one, other:
        yield one, other


@asynccontextmanager
async def watching(receiver: socket.socket) -> AsyncIterator[Watcher]:
    watcher = Watcher(receiver)
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.worker.run)
        watcher.worker.watch(
            Watch(receiver.fileno(), watcher.serve, watcher.rest, watcher.done, watcher.moved)
        )
        await watcher.worker.compute(lambda: None)
        await watcher.until(lambda: watcher.moves[-1:] == [True])
        yield watcher
        nursery.cancel_scope.cancel()


Pair = tuple[socket.socket, socket.socket]


async def test_what_arrives_is_served_and_computed_in_the_thread(sockets: Pair) -> None:
    receiver, sender = sockets
    computed: list[str] = []
    async with watching(receiver) as watcher:

        def compute() -> None:
            assert watcher.loop_watches.wait(10)  # it does while the thread computes
            computed.append(threading.current_thread().name)

        watcher.react = lambda data: compute
        sender.send(b"work")
        await watcher.until(lambda: bool(watcher.outcomes) and watcher.moves[-1])
    assert watcher.served_by == computed == ["compute"]
    assert watcher.outcomes == [Finished(None)]


async def test_a_job_of_the_loop_interrupts_the_watch(sockets: Pair) -> None:
    async with watching(sockets[0]) as watcher:
        for number in range(50):
            assert await watcher.worker.compute(partial(abs, -number)) == number


async def test_what_is_no_work_is_told_and_the_watch_goes_on(sockets: Pair) -> None:
    receiver, sender = sockets
    async with watching(receiver) as watcher:
        for count in range(1, 20):
            sender.send(b"gossip")
            await watcher.until_served(count)
        assert watcher.moves[-1]


@pytest.mark.parametrize("kind", [b"answered", b"garbage"])
async def test_only_an_answered_datagram_is_worth_polling_for_the_next(
    sockets: Pair, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr(compute, "POLL_SECONDS", 10.0)  # whatever the machine's pace
    receiver, sender = sockets
    async with watching(receiver) as watcher:
        sender.send(kind)
        await watcher.until_served(1)
        with trio.fail_after(10):
            while watcher.rested < 2 and not watcher.found_nothing:  # it rests, or polls in vain
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert bool(watcher.found_nothing) == (kind == b"answered")
        watcher.worker.submit(lambda: None, watcher.done)  # ends the polling


async def test_the_watching_thread_keeps_the_timers(sockets: Pair) -> None:
    async with watching(sockets[0]) as watcher:
        watcher.next_timer = 0.001
        sockets[1].send(b"wake up")
        rested = watcher.rested
        with trio.fail_after(10):
            while watcher.rested < rested + 5:  # nothing arrives: only the timer wakes it
                await trio.testing.wait_all_tasks_blocked(0.001)


async def test_a_brief_job_begins_and_ends_without_a_word_to_the_loop(sockets: Pair) -> None:
    receiver, sender = sockets
    done = threading.Event()
    async with watching(receiver) as watcher:

        def compute() -> None:
            watcher.worker.unhurried()
            done.set()

        watcher.react = lambda data: compute
        watcher.wants_loop = False
        sender.send(b"work")
        assert await trio.to_thread.run_sync(done.wait, 10)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert watcher.outcomes == []
        assert watcher.moves[-1:] == [True]


async def test_a_bug_in_serving_reaches_the_loop(sockets: Pair) -> None:
    receiver, sender = sockets

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    async with watching(receiver) as watcher:
        watcher.react = fail
        sender.send(b"boom")
        await watcher.until(lambda: bool(watcher.outcomes))
        outcome = watcher.outcomes[0]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ZeroDivisionError)


async def test_a_watching_thread_stops_at_once(sockets: Pair) -> None:
    with trio.fail_after(1):
        async with watching(sockets[0]):
            pass
    for thread in threading.enumerate():
        if thread.name == "compute":
            thread.join(1)
            assert not thread.is_alive()
