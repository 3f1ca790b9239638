"""Clients that vanish: how long until the handler that works for them knows."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from p2pnode.bench.http.child import Child
from p2pnode.bench.http.wire import ask, connected, get, post, reply, reset

MOST = 5.0
"""Seconds after which a handler is said never to know. What is wanted is one second."""

_FLOODING = 1.5
"""Seconds that a reader who never reads is flooded for."""

_SETTLING = 0.2
"""Seconds for a request to reach its handler, and for buffers to fill."""

_SMALL = 16384
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to vanish.

    Attributes:
        name: What the table calls it.
        request: What is sent, given the request's number.
        wait_for: What must have come before the client vanishes; may be empty.
        vanish: What the client does.
    """

    name: str
    request: Callable[[int], bytes]
    wait_for: bytes
    vanish: Callable[[socket.socket], None]


def _stream(number: int) -> bytes:
    return get(f"/stream?tokens=1000&seconds=0.05&id={number}")


def _wait(number: int) -> bytes:
    return get(f"/wait?id={number}")


def _poll(number: int) -> bytes:
    return get(f"/poll?id={number}")


def _half_body(number: int) -> bytes:
    return post(f"/body?id={number}", b"content-length: 2000\r\n", b"x" * 1000)


def _flood(number: int) -> bytes:
    return get(f"/flood?id={number}")


def _halve(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def _ask_again_and_close(client: socket.socket) -> None:
    client.sendall(get("/tiny"))
    time.sleep(_SETTLING)
    client.close()


WAYS = (
    Way("closes amid the stream", _stream, b"data", socket.socket.close),
    Way("resets amid the stream", _stream, b"data", reset),
    Way("half-closes amid the stream", _stream, b"data", _halve),
    Way("closes before the first token", _wait, b"", socket.socket.close),
    Way("resets before the first token", _wait, b"", reset),
    Way("half-closes before the first token", _wait, b"", _halve),
    Way("asks again, then closes", _wait, b"", _ask_again_and_close),
    Way("closes while the handler polls", _poll, b"", socket.socket.close),
    Way("closes amid its body", _half_body, b"", socket.socket.close),
    Way("resets amid its body", _half_body, b"", reset),
    Way("closes with full buffers", _flood, b"", socket.socket.close),
    Way("resets with full buffers", _flood, b"", reset),
)


def vanish(child: Child, way: Way) -> dict[str, Any]:
    """Vanish in one way.

    Returns:
        ``ms`` until the handler knew, None for never, and ``how`` it came to know.
    """
    number = next(_numbers)
    client = connected(child.port, buffer=_SMALL if way.request is _flood else 0)
    with client:
        client.sendall(way.request(number))
        if way.wait_for:
            reply(client, MOST, enough=way.wait_for)
        time.sleep(_SETTLING)
        began = time.monotonic()
        way.vanish(client)
        if way.vanish is _ask_again_and_close:
            began += _SETTLING
        told = child.saw(number, MOST)
    if told is None or told["saw"] == "the end":
        return {"ms": None, "how": "never"}
    return {"ms": round(1000 * max(0.0, told["at"] - began), 1), "how": told["saw"]}


def hold_back(child: Child) -> dict[str, Any]:
    """Ask for a flood and read nothing of it.

    Returns:
        ``sent_mib``, what the handler could send, and ``grown_mib`` of memory meanwhile.
    """
    before, number = child.memory(), next(_numbers)
    with connected(child.port, buffer=_SMALL) as client:
        client.sendall(_flood(number))
        time.sleep(_FLOODING)
        grown = child.memory() - before
        flooded = facts(child)["flooded"]
    child.saw(number, MOST)
    return {"sent_mib": _mib(flooded), "grown_mib": _mib(grown)}


def facts(child: Child) -> dict[str, Any]:
    """Ask the app how many handlers run, and what it sent of a flood."""
    answered: dict[str, Any] = json.loads(ask(child.port, "/facts").body)
    return answered


def _mib(size: int) -> float:
    return round(size / 2**20, 2)
