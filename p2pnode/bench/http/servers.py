"""The contestants themselves, each as its own documentation has it started from a program.

Each answers no faster than it would for us: no access log, no lifespan, the default event loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module

from p2pnode.bench.http.contestant import App, Foreign

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TINY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_LAST = b"connection: close"
_QUERY = re.compile(rb"GET /stream\?tokens=(\d+)&seconds=([\d.]+)")


def uvicorn_h11(app: App, listener: socket.socket) -> None:
    _uvicorn(app, listener, "h11")


def uvicorn_httptools(app: App, listener: socket.socket) -> None:
    _uvicorn(app, listener, "httptools")


def hypercorn_asyncio(app: App, listener: socket.socket) -> None:
    serve = import_module("hypercorn.asyncio").serve
    asyncio.run(serve(app, _corn_config("hypercorn", listener)))


def hypercorn_trio(app: App, listener: socket.socket) -> None:
    trio = import_module("trio")
    trio.run(import_module("hypercorn.trio").serve, app, _corn_config("hypercorn", listener))


def anycorn_trio(app: App, listener: socket.socket) -> None:
    trio = import_module("trio")
    trio.run(import_module("anycorn").serve, app, _corn_config("anycorn", listener))


def bare_asyncio(_app: App, listener: socket.socket) -> None:
    """Streams of asyncio: heads are looked at for what is asked, and no further."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        with suppress(ConnectionError):
            while head := await reader.read(65536):
                await _answer(head, send, asyncio.sleep)
                if _LAST in head:
                    break
        writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(answer, sock=listener) as server:
            await server.serve_forever()

    asyncio.run(serve())


def bare_trio(_app: App, listener: socket.socket) -> None:
    """The same on trio."""
    trio = import_module("trio")

    async def answer(stream: Foreign) -> None:
        # A client that is gone is no reason for the others to go.
        with suppress(trio.BrokenResourceError):
            async with stream:
                while head := await stream.receive_some(65536):
                    await _answer(head, stream.send_all, trio.sleep)
                    if _LAST in head:
                        break

    async def serve() -> None:
        opened = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await trio.serve_listeners(answer, [opened])

    trio.run(serve)


async def _answer(
    head: bytes,
    send: Callable[[bytes], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    asked = _QUERY.match(head)
    if asked is None:
        await send(_TINY)
        return
    await send(_HEAD)
    for _ in range(int(asked[1])):
        token = b"data: %020.9f\n\n" % time.monotonic()
        await send(b"%x\r\n%b\r\n" % (len(token), token))
        if seconds := float(asked[2]):
            await sleep(seconds)
    await send(b"0\r\n\r\n")


def _uvicorn(app: App, listener: socket.socket, http: str) -> None:
    uvicorn = import_module("uvicorn")
    config = uvicorn.Config(
        app,
        http=http,
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="warning",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _corn_config(package: str, listener: socket.socket) -> Foreign:
    config = import_module(f"{package}.config").Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    return config
