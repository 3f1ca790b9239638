"""The app that every server gets: streams, waits, reads, fails, and tells what it saw.

It watches for the client's end as starlette does for a stream: one task waits at ``receive``, the
other one works. What it saw it tells with a moment of the monotonic clock, which all processes of
a machine share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import parse_qs

import anyio
import anyio.lowlevel

from p2pnode.bench.http.contestant import App, Message, Receive, Send

Tell: TypeAlias = Callable[[dict[str, object]], None]

FOREVER = 60.0
"""Seconds that a handler waits for what never comes: longer than anybody looks at it."""

_GLANCE = 0.02
_BLOCK = b"x" * 16384
_MOST_FLOODED = 256 * 2**20
_EVENTS = ((b"content-type", b"text/event-stream"),)


def make_app(tell: Tell) -> App:
    """Return the app; ``tell`` is called with what a handler saw."""
    tellers = _Handlers(tell)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await tellers.serve(scope, receive, send)
        elif scope["type"] == "websocket":  # refused, as starlette refuses it
            await send({"type": "websocket.close"})
        elif scope["type"] == "lifespan":  # some servers begin no other way
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})

    return app


class _Request:
    """One request, and whether its handler's end was told."""

    def __init__(self, scope: Message, receive: Receive, send: Send, tell: Tell) -> None:
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        self._query = {name: values[-1] for name, values in query.items()}
        self._tell = tell
        self._has_told = False
        self.receive, self.send = receive, send

    def number(self, name: str, default: float) -> float:
        return float(self._query.get(name, default))

    def saw(self, how: str) -> None:
        """Tell how the handler learnt of its end, the first time."""
        if not self._has_told and "id" in self._query:
            self._tell({"id": self._query["id"], "saw": how, "at": time.monotonic()})
        self._has_told = True

    async def begin(self, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def body(self, data: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def text(self, data: bytes) -> None:
        await self.begin(headers=((b"content-length", b"%d" % len(data)),))
        await self.body(data)


class _Handlers:
    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._running = 0
        self._flooded = 0
        self._routes: dict[str, Callable[[_Request], Awaitable[None]]] = {
            "/tiny": lambda request: request.text(b"ok"),
            "/stream": lambda request: _watched(request, self._stream),
            "/wait": lambda request: _watched(request, _wait),
            "/poll": _poll,
            "/flood": lambda request: _watched(request, self._flood),
            "/body": _read_body,
            "/facts": self._facts,
            "/raise-before": _raise_before,
            "/raise-amid": _raise_amid,
            "/silent": _say_nothing,
            "/injected": _inject,
        }

    async def serve(self, scope: Message, receive: Receive, send: Send) -> None:
        request = _Request(scope, receive, send, self._tell)
        self._running += 1
        try:
            await self._routes.get(scope["path"], _unknown)(request)
        finally:
            self._running -= 1

    async def _facts(self, request: _Request) -> None:
        """Answer how many handlers run besides this one, and what was sent of the flood."""
        facts = {"running": self._running - 1, "flooded": self._flooded}
        await request.text(json.dumps(facts).encode())

    async def _stream(self, request: _Request) -> None:
        seconds = request.number("seconds", 0)
        await request.begin(headers=_EVENTS)
        for _ in range(int(request.number("tokens", 1))):
            await request.body(b"data: %020.9f\n\n" % time.monotonic(), more=True)
            if seconds:
                await anyio.sleep(seconds)
        await request.body(b"")

    async def _flood(self, request: _Request) -> None:
        self._flooded = 0
        await request.begin()
        while self._flooded < _MOST_FLOODED:
            await request.body(_BLOCK, more=True)
            self._flooded += len(_BLOCK)
            await (
                anyio.lowlevel.checkpoint()
            )  # a server that only gathers would starve its own loop


async def _watched(request: _Request, work: Callable[[_Request], Awaitable[None]]) -> None:
    """Work until the client is gone."""
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            request.saw("receive")
            tasks.cancel_scope.cancel()

        tasks.start_soon(listen)
        try:
            await work(request)
            request.saw("the end")
        except OSError:
            request.saw("send")
        except anyio.get_cancelled_exc_class():
            request.saw("cancelled")
            raise
        tasks.cancel_scope.cancel()


async def _wait(request: _Request) -> None:
    await anyio.sleep(FOREVER)
    await request.text(b"late")


async def _poll(request: _Request) -> None:
    """Ask now and then whether the client is gone, as starlette's ``is_disconnected`` does."""
    with anyio.move_on_after(FOREVER):
        while True:
            with anyio.CancelScope() as at_once:
                at_once.cancel()
                if (await request.receive())["type"] == "http.disconnect":
                    request.saw("receive")
                    return
            await anyio.sleep(_GLANCE)


async def _read_body(request: _Request) -> None:
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            request.saw("receive")
            return
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await request.text(b"%d" % size)


async def _raise_before(_request: _Request) -> None:
    raise RuntimeError("before the answer")


async def _raise_amid(request: _Request) -> None:
    await request.begin(headers=_EVENTS)
    await request.body(b"data: 1\n\n", more=True)
    raise RuntimeError("amid the answer")


async def _say_nothing(_request: _Request) -> None:
    pass


async def _inject(request: _Request) -> None:
    await request.begin(headers=((b"x-name", b"a\r\nx-injected: b"),))
    await request.body(b"")


async def _unknown(request: _Request) -> None:
    await request.begin(404, ((b"content-length", b"0"),))
    await request.body(b"")
