"""Work for a client, which ends where the client goes away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

_Made = TypeVar("_Made")


async def while_there(receive: Receive, making: Coroutine[Any, Any, _Made]) -> _Made:
    """Return what is made for a client; one that goes away ends it.

    ``receive`` is of a request whose body was read.

    Raises:
        ClientDisconnect: The client went away before.
    """
    work = asyncio.ensure_future(making)
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.wait((work, gone))
    if work.cancelled():
        raise ClientDisconnect
    return work.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
