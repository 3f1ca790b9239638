"""The worker that watches a socket while it has nothing to compute."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from p2pnode.net.compute import ComputeWorker, Failed, Finished, Served, Watch


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
        self.found_nothing = 0
        self.react: Callable[[bytes], Callable[[], None] | None] = lambda data: None

    def serve(self) -> Served | None:
        try:
            data = self.receiver.recv(100)
        except BlockingIOError:
            self.found_nothing += 1
            return None
        self.served_by.append(threading.current_thread().name)
        return Served(self.react(data), is_loop_wanted=True)

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
        watcher.worker.watch(Watch(receiver.fileno(), watcher.serve, watcher.done, watcher.moved))
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
