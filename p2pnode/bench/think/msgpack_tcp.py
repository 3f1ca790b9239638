"""msgpack over TCP: maps with the fields that a V-Frame has too, one after another.

asyncio protocols (twice as quick as streams) and msgpack's own streaming reader, which finds where
a message ends. asyncio and uvloop both switch Nagle's algorithm off by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from itertools import count
from typing import Any, cast

from p2pnode.bench.think.contestant import (
    HOST,
    Caller,
    Codec,
    Contestant,
    F16Array,
    Facts,
    Link,
    Ready,
    as_hidden,
)
from p2pnode.bench.think.loops import AsyncEcho, NewLoop, PingPong, caller_in_loop


def msgpack_asyncio() -> Contestant:
    """On the standard library's loop."""
    link = _link(asyncio.new_event_loop)
    return Contestant("msgpack over TCP (asyncio)", _codec, link, ("msgpack",), "msgpack-asyncio")


def msgpack_uvloop() -> Contestant:
    """On uvloop's."""
    link = _link(lambda: import_module("uvloop").new_event_loop())
    needs = ("msgpack", "uvloop")
    return Contestant("msgpack over TCP (uvloop)", _codec, link, needs, "msgpack-uvloop")


def _link(new_loop: NewLoop) -> Link:
    return Link(partial(_serve, new_loop), partial(_caller, new_loop))


def _codec() -> Codec:
    msgpack = import_module("msgpack")
    numbers, packb, unpackb = count(), msgpack.packb, msgpack.unpackb

    def encode(hidden: F16Array) -> bytes:
        message = {
            "stream": 1,
            "seq": next(numbers),
            "dtype": "f16",
            "shape": hidden.shape,
            "data": hidden.tobytes(),
        }
        packed: bytes = packb(message)
        return packed

    return Codec(encode, lambda data: _hidden_of(unpackb(data)))


def _hidden_of(message: dict[str, Any]) -> F16Array:
    return as_hidden(message["data"]).reshape(message["shape"])


class _Messages(asyncio.Protocol):
    """One connection; ``heard(hidden, transport)`` is called for each message.

    ``lost()`` is called at its end.
    """

    def __init__(
        self,
        heard: Callable[[F16Array, asyncio.Transport], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._heard = heard
        self._lost = lost
        self._unpacker = import_module("msgpack").Unpacker()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's says nothing of its kind

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._heard(_hidden_of(message), self._transport)


def _serve(new_loop: NewLoop, ready: Ready) -> None:
    encode = _codec().encode

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Messages(lambda hidden, transport: transport.write(encode(hidden))), HOST, 0
        )
        ready({"port": server.sockets[0].getsockname()[1]})
        await server.serve_forever()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def _caller(new_loop: NewLoop, facts: Facts) -> AbstractContextManager[Caller]:
    return caller_in_loop(_connected(facts["port"]), new_loop)


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[AsyncEcho]:
    encode = _codec().encode
    rounds = PingPong(lambda hidden: transport.write(encode(hidden)))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        lambda: _Messages(lambda hidden, _: rounds.returned(hidden), rounds.lost), HOST, port
    )
    try:
        yield rounds.echo
    finally:
        transport.close()
