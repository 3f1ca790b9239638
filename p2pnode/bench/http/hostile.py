"""Requests that no client sends, and handlers that fail: what comes back, and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from p2pnode.bench.http.child import Child
from p2pnode.bench.http.vanish import facts
from p2pnode.bench.http.wire import (
    Reply,
    ask,
    connected,
    get,
    post,
    reply,
    send_all,
)
from p2pnode.errors import UserError

_PATIENCE = 1.5
"""Seconds for an answer or an end; a server that gives neither hangs, as far as this goes."""

SLOWEST = 15.0
"""Seconds for which a slow writer is watched: a header timeout beyond it is as good as none."""

_DYING = 3.0
"""Seconds for a process that no longer answers to end, and to write why."""

_IDLE = 500
_ENDLESS = 16 * 2**20
_LINE = b"x-line: " + b"x" * 1000 + b"\r\n"
_PARAGRAPH = _LINE * 64
_HOST = b"host: localhost\r\n"


@dataclass(frozen=True, slots=True)
class Attack:
    """Something to send, and which answers are sound.

    Attributes:
        name: What the report calls it.
        data: The bytes.
        is_sound: Judges what came back.
    """

    name: str
    data: bytes
    is_sound: Callable[[Reply], bool]


def _refused(found: Reply) -> bool:
    return 400 <= found.status < 600 or (found.is_closed and not found.status)


def _ended(found: Reply) -> bool:
    return bool(found.status) or found.is_closed


def _spoke(found: Reply) -> bool:
    """HTTP/2 is no answer that HTTP/1.1 knows, but one."""
    return bool(found.data) or found.is_closed


def _failed(found: Reply) -> bool:
    return found.status == 500


def _cut(found: Reply) -> bool:
    """The client can tell that the stream is not complete."""
    return found.is_closed and not found.data.endswith(b"0\r\n\r\n")


def _both(found: Reply) -> bool:
    return found.data.count(b"HTTP/1.1 200") == 2


def _not_injected(found: Reply) -> bool:
    return b"\nx-injected" not in found.data.lower() and _ended(found)


def _of(headers: bytes, body: bytes = b"") -> bytes:
    return post("/body", headers, body)


_UPGRADE = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: bWVhc3VyZWQgYnkgdXMuLg==\r\n"
)
_CHUNKED = b"transfer-encoding: chunked\r\n"
ATTACKS = (
    Attack("no request line", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", _refused),
    Attack("no version", b"GET /tiny\r\n\r\n", _refused),
    Attack("version 9.9", b"GET /tiny HTTP/9.9\r\n" + _HOST + b"\r\n", _refused),
    Attack("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", _spoke),
    Attack("no host", b"GET /tiny HTTP/1.1\r\n\r\n", _refused),
    Attack("two hosts", get("/tiny", _HOST), _refused),
    Attack("two lengths", _of(b"content-length: 4\r\ncontent-length: 9\r\n", b"GET /"), _refused),
    Attack("length and chunked", _of(b"content-length: 4\r\n" + _CHUNKED, b"0\r\n\r\n"), _refused),
    Attack("unknown coding", _of(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"), _refused),
    Attack(
        "chunked, then gzip", _of(b"transfer-encoding: chunked, gzip\r\n", b"0\r\n\r\n"), _refused
    ),
    Attack("negative length", _of(b"content-length: -1\r\n"), _refused),
    Attack("length with a sign", _of(b"content-length: +5\r\n", b"hello"), _refused),
    Attack("length of 40 digits", _of(b"content-length: " + b"9" * 40 + b"\r\n"), _refused),
    Attack("negative chunk", _of(_CHUNKED, b"-1\r\n\r\n"), _refused),
    Attack("chunk of no number", _of(_CHUNKED, b"zz\r\nhello\r\n0\r\n\r\n"), _refused),
    Attack("chunk of 40 digits", _of(_CHUNKED, b"f" * 40 + b"\r\n"), _refused),
    Attack("1 MB of chunk extension", _of(_CHUNKED, b"1;" + b"x" * 10**6), _refused),
    Attack("1 MB of trailers", _of(_CHUNKED, b"0\r\n" + _PARAGRAPH * 16), _refused),
    Attack("NUL in a header", get("/tiny", b"x-name: a\x00b\r\n"), _refused),
    Attack("NUL in the target", b"GET /ti\x00ny HTTP/1.1\r\n" + _HOST + b"\r\n", _refused),
    Attack("space before the colon", get("/tiny", b"x-name : a\r\n"), _refused),
    Attack("folded header", get("/tiny", b"x-name: a\r\n b\r\n"), _ended),
    Attack("bare line feeds", get("/tiny").replace(b"\r\n", b"\n"), _ended),
    Attack("target of 100 kB", get("/" + "x" * 10**5), _refused),
    Attack("header of 1 MB", get("/tiny", b"x-name: " + b"x" * 10**6 + b"\r\n"), _refused),
    Attack("60 kB of headers", get("/tiny", _PARAGRAPH[: 60 * len(_LINE)]), _refused),
    Attack("10,000 headers", get("/tiny", b"x-name: a\r\n" * 10_000), _refused),
    Attack("CONNECT", b"CONNECT localhost:1 HTTP/1.1\r\n" + _HOST + b"\r\n", _ended),
    Attack("upgrade", get("/tiny", _UPGRADE), _ended),
    Attack("upgrade with more behind it", get("/tiny", _UPGRADE) + b"x", _ended),
    Attack("two at once", get("/tiny") + get("/tiny", b"connection: close\r\n"), _both),
    Attack(
        "body that breaks amid the answer",
        post("/stream?tokens=40&seconds=0.01", _CHUNKED, b"zz\r\n"),
        _ended,
    ),
    Attack("handler raises before", get("/raise-before"), _failed),
    Attack("handler raises amid", get("/raise-amid"), _cut),
    Attack("handler says nothing", get("/silent"), _failed),
    Attack("handler's header with a line feed", get("/injected"), _not_injected),
)


def attack(child: Child) -> dict[str, Any]:
    """Send everything once.

    Returns:
        ``answers``, a status each, 0 for an end without one, None for neither; ``unsound``, the
        names of those that were not; ``traced``, those that showed a traceback to the client.
    """
    answers: dict[str, int | None] = {}
    unsound, traced = [], []
    for one in ATTACKS:
        found = _answer(child, one)
        if not _still_serves(child):
            child.wait_for_end(_DYING)
            raise UserError(f"it crashed at {one.name!r}: {child.last_line()}")
        answers[one.name] = found.status if _ended(found) else None
        if not one.is_sound(found):
            unsound.append(one.name)
        if b"Traceback" in found.data or b"RuntimeError" in found.data:
            traced.append(one.name)
    return {"answers": answers, "unsound": unsound, "traced": traced}


def _answer(child: Child, one: Attack) -> Reply:
    with connected(child.port) as client:
        send_all(client, one.data)
        return reply(client, _PATIENCE, enough=_enough(one))


def _still_serves(child: Child) -> bool:
    """Ask: a process that is about to end still has its connections taken by the kernel."""
    try:
        return ask(child.port, "/tiny").status == 200
    except OSError:
        return False


def _enough(one: Attack) -> bytes:
    """Return what ends the wait: most answers need not be read to their end."""
    return b"" if one.is_sound in {_cut, _both, _not_injected} else b"\r\n\r\n"


def crowd(child: Child) -> dict[str, Any]:
    """Ask once while 500 connections say nothing: ``ms`` it took, None for no answer."""
    with ExitStack() as stack:
        try:
            for _ in range(_IDLE):
                stack.enter_context(connected(child.port))
            began = time.monotonic()
            status = ask(child.port, "/tiny").status
        except OSError:
            status = 0
        seconds = time.monotonic() - began
    return {"ms": round(1000 * seconds, 1) if status else None, "status": status}


def is_bounded(child: Child) -> bool:
    """Send headers without end, and return whether the server hung up before 16 MiB of them."""
    sent = 0
    with connected(child.port) as client:
        try:
            client.sendall(b"GET /tiny HTTP/1.1\r\n" + _HOST)
            while sent < _ENDLESS:
                client.sendall(_LINE)
                sent += len(_LINE)
        except OSError:
            return True
    return False


def slow_writers(children: dict[str, Child]) -> dict[str, float | None]:
    """Write a byte of a header each second, to all at once: seconds until each hung up, or None."""
    cut: dict[str, float | None] = dict.fromkeys(children)
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(connected(child.port)) for name, child in children.items()
        }
        for client in clients.values():
            client.sendall(b"GET /tiny HTTP/1.1\r\n" + _HOST + b"x-name: ")
        began = time.monotonic()
        while clients and time.monotonic() - began < SLOWEST:
            time.sleep(1.0)
            for name, client in list(clients.items()):
                send_all(client, b"x")
                if reply(client, 0.02).is_closed:
                    cut[name] = round(time.monotonic() - began, 1)
                    del clients[name]
    return cut


def left_over(child: Child, seconds: float = 3.0) -> int:
    """Return how many handlers still run after ``seconds`` in which none was asked for."""
    until = time.monotonic() + seconds
    while (running := int(facts(child)["running"])) and time.monotonic() < until:
        time.sleep(0.05)
    return running
