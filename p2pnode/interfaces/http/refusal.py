"""Complete answers to those who are not served, so that a client's library can say why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from p2pnode.interfaces.http.errors import RETRY_AFTER

_LINGER_SECONDS = 1.0
_LINGER_BYTES = 2**20


def error_body(message: str, code: str, kind: str = "server_error") -> bytes:
    """Return an error as the OpenAI API writes it."""
    return json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode()


def whole_answer(status: int, message: str, code: str) -> bytes:
    """Return the bytes of an answer after which the connection ends."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = error_body(message, code, kind)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"date: {formatdate(usegmt=True)}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *([f"retry-after: {RETRY_AFTER}"] if status == 503 else []),
        "connection: close",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def overloaded() -> bytes:
    return whole_answer(503, "too many connections at once; ask again soon", "overloaded")


class Farewell:
    """Says the last word on a connection, and hears out what the client still sends.

    Closed at once, with bytes that nobody read, the kernel would reset the connection, and the
    client might never see the answer (RFC 9112, 9.6). So the way out is closed first, and the
    connection a second or a mebibyte later at most.
    """

    def __init__(self, transport: asyncio.Transport, answer: bytes) -> None:
        self._transport = transport
        self._heard = 0
        transport.write(answer)
        if transport.can_write_eof():
            transport.write_eof()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LINGER_SECONDS, transport.abort)

    def hear(self, size: int) -> None:
        self._heard += size
        if self._heard > _LINGER_BYTES:
            self._transport.abort()

    def cancel(self) -> None:
        """The connection is gone."""
        self._timer.cancel()


class RefusedConnection(asyncio.Protocol):
    """A connection for which there is no room: it is answered when it asks, and ended.

    One that asks nothing is answered a second after it came.
    """

    def __init__(self, on_end: Callable[[RefusedConnection], None]) -> None:
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._farewell: Farewell | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a connection is a stream")
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._answer)

    def data_received(self, data: bytes) -> None:
        self._answer()
        if self._farewell is not None:
            self._farewell.hear(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._farewell):
            if timer is not None:
                timer.cancel()
        self._on_end(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _answer(self) -> None:
        if self._farewell is None and self._transport is not None:
            self._farewell = Farewell(self._transport, overloaded())
