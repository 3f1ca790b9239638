"""gRPC without security, elements as bytes: nothing to compile, nothing to serialise.

Generic handlers and channels without serializers pass bytes through, so that no protobuf message
is paid for. Of asyncio and threads each row has what was quicker: for one call a message the
threaded API at both ends, for one long stream asyncio at both.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from importlib import import_module

from p2pnode.bench.think.contestant import (
    HOST,
    PATIENCE,
    CallByCall,
    Caller,
    Contestant,
    Echoes,
    F16Array,
    Facts,
    Foreign,
    Link,
    Ready,
    raw_codec,
)
from p2pnode.bench.think.loops import AsyncEcho, caller_in_loop

_SERVICE, _METHOD = "think", "Echo"
_PATH = f"/{_SERVICE}/{_METHOD}"


def grpc_stream() -> Contestant:
    """One bidirectional stream for all messages; grpc.aio."""
    link = Link(_serve_stream, _stream_caller)
    return Contestant("gRPC stream", raw_codec, link, ("grpc",), "grpc-stream")


def grpc_unary() -> Contestant:
    """A call for each message, over one channel; threads."""
    link = Link(_serve_unary, _unary_caller)
    return Contestant("gRPC unary", raw_codec, link, ("grpc",), "grpc-unary")


def _serve_unary(ready: Ready) -> None:
    grpc, codec = import_module("grpc"), raw_codec()

    def answer(request: bytes, context: object) -> bytes:
        return codec.encode(codec.decode(request))

    server = grpc.server(ThreadPoolExecutor(4))
    _register(grpc, server, grpc.unary_unary_rpc_method_handler(answer))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    ready({"port": port})
    server.wait_for_termination()


@contextmanager
def _unary_caller(facts: Facts) -> Iterator[Caller]:
    grpc, codec = import_module("grpc"), raw_codec()
    with grpc.insecure_channel(f"{HOST}:{facts['port']}") as channel:
        send: Callable[..., bytes] = channel.unary_unary(_PATH)
        yield CallByCall(lambda hidden: codec.decode(send(codec.encode(hidden), timeout=PATIENCE)))


def _serve_stream(ready: Ready) -> None:
    import asyncio

    asyncio.run(_serve_stream_in_loop(ready))


async def _serve_stream_in_loop(ready: Ready) -> None:
    grpc, aio, codec = import_module("grpc"), import_module("grpc.aio"), raw_codec()

    async def answer(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield codec.encode(codec.decode(request))

    server = aio.server()
    _register(grpc, server, grpc.stream_stream_rpc_method_handler(answer))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    ready({"port": port})
    await server.wait_for_termination()


def _stream_caller(facts: Facts) -> AbstractContextManager[Caller]:
    return caller_in_loop(_connected(facts["port"]))


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[AsyncEcho]:
    codec = raw_codec()
    async with import_module("grpc.aio").insecure_channel(f"{HOST}:{port}") as channel:
        stream = channel.stream_stream(_PATH)()

        async def echo(hidden: F16Array, count: int) -> Echoes:
            clock, seconds = time.perf_counter, []
            for _ in range(count):
                began = clock()
                await stream.write(codec.encode(hidden))
                last = codec.decode(await stream.read())
                seconds.append(clock() - began)
            return Echoes(seconds, last)

        try:
            yield echo
        finally:
            stream.cancel()


def _register(grpc: Foreign, server: Foreign, handler: object) -> None:
    methods = grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})
    server.add_generic_rpc_handlers((methods,))
