"""What serving costs: a token on its way, processor time a token, the first byte, tiny answers."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from p2pnode.bench.http.child import Child
from p2pnode.bench.http.wire import PATIENCE, connected, get, reply
from p2pnode.errors import UserError

PACED = 200
"""Tokens a round that are sent 5 ms apart, as a quick model would."""

BURST = 5000
"""Tokens a round that are sent as fast as the server takes them."""

FIRST_BYTES = 40
TINY = 300

_PACE = 0.005
_TOKEN = re.compile(rb"data: ([\d.]{20})\n")
_END = b"0\r\n\r\n"


@dataclass(slots=True)
class Speed:
    """What was measured of one server, in seconds.

    Attributes:
        token: From the moment the handler sent a token to that at which a client had it.
        cpu: Of processor time, a token of a burst.
        first_byte: From a client's connecting to the first token of a stream.
        tiny: A tiny answer on a connection that stays open.
    """

    token: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    first_byte: list[float] = field(default_factory=list)
    tiny: list[float] = field(default_factory=list)


def take_turn(child: Child, speed: Speed) -> None:
    """Measure everything once more."""
    speed.token += _paced(child.port)
    speed.cpu.append(_burst(child))
    for _ in range(FIRST_BYTES):
        began = time.monotonic()
        with connected(child.port) as client:
            client.sendall(get(_stream(1, 0)))
            reply(client, PATIENCE, enough=b"data: ")
            speed.first_byte.append(time.monotonic() - began)
    speed.tiny += _tiny(child.port)


def _paced(port: int) -> list[float]:
    waits: list[float] = []
    rest = b""
    with connected(port) as client:
        client.sendall(get(_stream(PACED, _PACE)))
        while len(waits) < PACED:
            data = client.recv(65536)
            now = time.monotonic()
            if not data:
                raise UserError("a stream ended early")
            rest += data
            found = list(_TOKEN.finditer(rest))
            waits += [now - float(one[1]) for one in found]
            rest = rest[found[-1].end() :] if found else rest
    return waits


def _burst(child: Child) -> float:
    with connected(child.port) as client:
        before = child.cpu_seconds()
        client.sendall(get(_stream(BURST, 0)))
        rest = b""
        while not rest.endswith(_END):
            data = client.recv(2**18)
            if not data:
                raise UserError("a burst ended early")
            rest = (rest + data)[-len(_END) :]
        return (child.cpu_seconds() - before) / BURST


def _tiny(port: int) -> list[float]:
    seconds = []
    request = get("/tiny")
    with connected(port) as client:
        for _ in range(TINY):
            began = time.monotonic()
            client.sendall(request)
            while not client.recv(4096).endswith(b"ok"):
                pass
            seconds.append(time.monotonic() - began)
    return seconds


def _stream(tokens: int, seconds: float) -> str:
    return f"/stream?tokens={tokens}&seconds={seconds}"
