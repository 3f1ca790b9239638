"""Pictures of a node, one after another."""

from collections.abc import Callable
from typing import Self

import trio

from p2pnode.node.snapshot import NodeSnapshot


class Watch:
    """An iterator of pictures; it may be left at any time, and needs no closing."""

    def __init__(self, interval: float, picture: Callable[[], NodeSnapshot | None]) -> None:
        """``picture`` returns None once the node has ended."""
        self._interval = interval
        self._picture = picture
        self._due: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NodeSnapshot:
        """Wait until one is due, and return it; those that nobody waited for are left out."""
        now = trio.current_time()
        self._due = now if self._due is None else max(now, self._due + self._interval)
        await trio.sleep_until(self._due)
        taken = self._picture()
        if taken is None:
            raise StopAsyncIteration
        return taken
