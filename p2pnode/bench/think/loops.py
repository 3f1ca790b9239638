"""Callers that live in an asyncio loop: it stands still between their turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeAlias, TypeVar

from p2pnode.bench.think.contestant import PATIENCE, Caller, Echoes, F16Array

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
AsyncEcho: TypeAlias = Callable[[F16Array, int], Coroutine[Any, Any, Echoes]]
"""As :meth:`Caller.echo`, within a loop."""
T = TypeVar("T")


@contextmanager
def caller_in_loop(
    connecting: AbstractAsyncContextManager[AsyncEcho],
    new_loop: NewLoop = asyncio.new_event_loop,
) -> Iterator[Caller]:
    """Enter ``connecting`` in a new loop, and yield a caller that uses what it yields."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        stack = AsyncExitStack()
        echo = runner.run(_patient(stack.enter_async_context(connecting)))
        try:
            yield _InLoop(runner, echo)
        finally:
            runner.run(stack.aclose())


class PingPong:
    """Round trips of a protocol that tells of messages by callback, and sends without waiting.

    The next message leaves within the callback of the last one's return: no task is switched to.
    """

    def __init__(self, send: Callable[[F16Array], None]) -> None:
        self._send = send
        self._finished: asyncio.Future[None] | None = None
        self._is_lost = False
        self._seconds: list[float] = []
        self._left = 0

    async def echo(self, hidden: F16Array, count: int) -> Echoes:
        """Send ``hidden`` and wait for its return, ``count`` times.

        Raises:
            OSError: The connection is lost.
        """
        if self._is_lost:
            raise OSError("the connection was lost")
        self._hidden, self._seconds, self._left = hidden, [], count
        self._finished = asyncio.get_running_loop().create_future()
        self._next()
        await self._finished
        return Echoes(self._seconds, self._last)

    def returned(self, hidden: F16Array) -> None:
        """Take what came back."""
        self._seconds.append(time.perf_counter() - self._began)
        self._last = hidden
        self._left -= 1
        if self._left:
            self._next()
        elif self._finished is not None:
            self._finished.set_result(None)

    def lost(self) -> None:
        """Nothing will come back any more."""
        self._is_lost = True
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(OSError("the connection was lost"))

    def _next(self) -> None:
        self._began = time.perf_counter()
        self._send(self._hidden)


class _InLoop:
    def __init__(self, runner: asyncio.Runner, echo: AsyncEcho) -> None:
        self._runner = runner
        self._echo = echo

    def echo(self, hidden: F16Array, count: int) -> Echoes:
        return self._runner.run(_patient(self._echo(hidden, count)))


async def _patient(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await work
