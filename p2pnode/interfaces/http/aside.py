"""Work on large bodies, beside the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

_Made = TypeVar("_Made")

_WORKER: Final = ThreadPoolExecutor(1, "large bodies")
"""One thread: several would take the interpreter's lock from each other, and the loop would wait
for all of them."""


async def aside(work: Callable[[], _Made]) -> _Made:
    """Return what ``work`` makes in a thread, in which one after the other has its turn."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, work)
