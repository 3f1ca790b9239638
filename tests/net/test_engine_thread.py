"""A thread of its own: what wakes it, and a stop that never hangs."""

import sys
import threading

import trio
import trio.testing

from p2pnode.net.engine_thread import EngineThread


async def test_loop_and_thread_wake_each_other() -> None:
    slept: list[tuple[bool, float]] = []

    def body(thread: EngineThread) -> None:
        while not thread.is_stopping:
            slept.append(thread.sleep(None))
            thread.wake_loop()

    thread = EngineThread(body)
    async with thread.running():
        for count in range(1, 20):
            thread.wake()
            with trio.fail_after(5):
                await thread.loop_woken()
            assert len(slept) >= count
    assert not any(arrived for arrived, _ in slept)


async def test_a_wake_before_the_sleep_is_not_lost() -> None:
    ready, ended = threading.Event(), threading.Event()

    def body(thread: EngineThread) -> None:
        assert ready.wait(5)
        thread.sleep(None)
        ended.set()

    thread = EngineThread(body)
    async with thread.running():
        thread.wake()
        ready.set()
        assert await trio.to_thread.run_sync(ended.wait, 5)


async def test_a_sleep_may_be_longer_than_the_kernel_can_count() -> None:
    slept: list[bool] = []

    def body(thread: EngineThread) -> None:
        slept.append(thread.sleep(1e12)[0])
        thread.wake_loop()

    thread = EngineThread(body)
    async with thread.running():
        thread.wake()
        await thread.loop_woken()
    assert slept == [False]


async def test_a_stop_never_hangs_on_a_body_that_does() -> None:
    release, started = threading.Event(), threading.Event()

    def stuck(thread: EngineThread) -> None:
        started.set()
        release.wait(10)

    with trio.fail_after(5):
        async with EngineThread(stuck, name="stuck", stop_grace=0.01).running():
            await trio.to_thread.run_sync(started.wait)
    release.set()
    await gone("stuck")


async def test_a_stopped_thread_leaves_nothing_behind() -> None:
    before = sys.getswitchinterval()

    def body(thread: EngineThread) -> None:
        while not thread.is_stopping:
            thread.sleep(None)

    async with EngineThread(body, name="fleeting").running():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
    await gone("fleeting")


async def gone(name: str) -> None:
    """Wait until no thread of this name is left."""
    for thread in threading.enumerate():
        if thread.name == name:
            await trio.to_thread.run_sync(thread.join, 5)
            assert not thread.is_alive()
