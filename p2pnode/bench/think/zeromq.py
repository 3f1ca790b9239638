"""ZeroMQ: a REQ and a REP socket over TCP, blocking, elements as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from p2pnode.bench.think.contestant import (
    HOST,
    PATIENCE,
    CallByCall,
    Caller,
    Contestant,
    F16Array,
    Facts,
    Link,
    Ready,
    raw_codec,
)


def zeromq() -> Contestant:
    """The pattern of its guide for question and answer."""
    return Contestant("ZeroMQ", raw_codec, Link(_serve, _caller), ("zmq",), "zeromq")


def _serve(ready: Ready) -> None:
    zmq, codec = import_module("zmq"), raw_codec()
    with zmq.Context() as context, context.socket(zmq.REP) as server:
        ready({"port": server.bind_to_random_port(f"tcp://{HOST}")})
        while True:
            server.send(codec.encode(codec.decode(server.recv())))


@contextmanager
def _caller(facts: Facts) -> Iterator[Caller]:
    zmq, codec = import_module("zmq"), raw_codec()
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.RCVTIMEO, 1000 * PATIENCE)
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"tcp://{HOST}:{facts['port']}")

        def call(hidden: F16Array) -> F16Array:
            client.send(codec.encode(hidden))
            return codec.decode(client.recv())

        yield CallByCall(call)
