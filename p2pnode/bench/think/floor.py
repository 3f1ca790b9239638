"""The floor: the same number of bytes through two plain UDP sockets, looked at by nobody.

Nothing is coded, sealed or repaired, and a lost datagram ends it: what the kernel alone takes,
and so the least that anything over UDP can take.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

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
)
from p2pnode.bench.think.frames import encode_think

_MOST = 65536


def udp() -> Contestant:
    """Blocking sockets that return a finished frame as it is."""
    return Contestant("udp", None, Link(_serve, _caller), short="udp")


def _serve(ready: Ready) -> None:
    with _bound() as server:
        ready({"port": server.getsockname()[1]})
        while True:
            data, source = server.recvfrom(_MOST)
            server.sendto(data, source)


@contextmanager
def _caller(facts: Facts) -> Iterator[Caller]:
    with _bound() as client:
        client.connect((HOST, facts["port"]))
        # A timeout of Python's would make the socket non-blocking, with a poll before each
        # datagram; the kernel's own costs nothing.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
        frame = b""

        def call(hidden: F16Array) -> F16Array:
            nonlocal frame
            frame = frame or encode_think(hidden, 0)
            client.send(frame)
            if len(client.recv(_MOST)) != len(frame):
                raise OSError("a datagram came back with another length")
            return hidden

        yield CallByCall(call)


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((HOST, 0))
    return bound
