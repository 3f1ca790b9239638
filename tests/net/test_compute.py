"""The compute worker: order, results, failures, and a stop that never hangs."""

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from p2pnode.net.compute import ComputeWorker, Failed, Finished


@asynccontextmanager
async def working(worker: ComputeWorker) -> AsyncIterator[ComputeWorker]:
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        yield worker
        nursery.cancel_scope.cancel()


async def test_jobs_run_in_order_on_one_thread_of_their_own() -> None:
    ran: list[tuple[int, int]] = []
    async with working(ComputeWorker()) as worker:

        def job(number: int) -> None:
            ran.append((number, threading.get_ident()))

        for number in range(200):
            worker.submit(partial(job, number), lambda _: None)
        await worker.compute(lambda: None)
        assert worker.backlog == 0
    assert [number for number, _ in ran] == list(range(200))
    threads = {thread for _, thread in ran}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_results_come_back_on_the_loop() -> None:
    told: list[tuple[object, int]] = []
    async with working(ComputeWorker()) as worker:
        worker.submit(lambda: 6 * 7, lambda outcome: told.append((outcome, threading.get_ident())))
        assert await worker.compute(lambda: "next") == "next"
    assert told == [(Finished(42), threading.get_ident())]


async def test_what_a_job_raises_comes_back() -> None:
    told: list[object] = []
    async with working(ComputeWorker()) as worker:
        worker.submit(lambda: 1 / 0, told.append)
        with pytest.raises(ZeroDivisionError):
            await worker.compute(lambda: 1 / 0)
        with pytest.raises(KeyboardInterrupt):
            await worker.compute(interrupt)
        assert await worker.compute(lambda: 1) == 1
    assert isinstance(told[0], Failed)
    assert isinstance(told[0].error, ZeroDivisionError)


async def test_jobs_submitted_early_run_once_it_starts() -> None:
    worker = ComputeWorker()
    told: list[object] = []
    worker.submit(lambda: 1, told.append)
    async with working(worker):
        await worker.compute(lambda: 2)
    assert told == [Finished(1)]


async def test_a_stop_waits_for_the_job_under_way_and_drops_the_rest() -> None:
    release, started = threading.Event(), threading.Event()
    ended: list[str] = []

    def slow() -> None:
        started.set()
        assert release.wait(5)
        ended.append("slow")

    async def release_once_it_stops() -> None:
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            release.set()

    worker = ComputeWorker()
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        worker.submit(slow, lambda _: ended.append("told"))
        worker.submit(lambda: ended.append("never"), lambda _: None)
        await trio.to_thread.run_sync(started.wait)
        nursery.start_soon(release_once_it_stops)
        nursery.cancel_scope.cancel()
    assert ended == ["slow"]


async def test_a_stop_never_hangs_on_a_job_that_does() -> None:
    release, started = threading.Event(), threading.Event()

    def stuck() -> None:
        started.set()
        release.wait(5)

    worker = ComputeWorker(stop_grace=0.01)
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run)
            worker.submit(stuck, lambda _: None)
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()
    release.set()
    await gone("compute")


async def test_a_stopped_worker_leaves_nothing_behind() -> None:
    before = sys.getswitchinterval()
    async with working(ComputeWorker(name="fleeting")) as worker:
        await worker.compute(lambda: None)
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
    await gone("fleeting")


async def test_a_flood_of_results_is_handed_back_whole() -> None:
    told: list[object] = []
    async with working(ComputeWorker()) as worker:
        for _ in range(5000):
            worker.submit(lambda: None, told.append)
        await worker.compute(lambda: None)
    assert len(told) == 5000


def interrupt() -> None:
    raise KeyboardInterrupt


async def gone(name: str) -> None:
    """Wait until no thread of this name is left."""
    for thread in threading.enumerate():
        if thread.name == name:
            await trio.to_thread.run_sync(thread.join, 5)
            assert not thread.is_alive()
