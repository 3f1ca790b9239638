"""What stands around the app: heads that h11 lets pass and we do not, and handlers that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect

from p2pnode.interfaces.http.errors import RETRY_AFTER
from p2pnode.interfaces.http.limits import HttpLimits, Reason, Refusals
from p2pnode.interfaces.http.refusal import error_body

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI app."""

logger = logging.getLogger(__name__)

_VERSIONS = {"1.0", "1.1"}
_LINE_MARKS = len(": \r\n")


class Guard:
    """An ASGI app around another, which answers in its stead where it must not or cannot.

    The other finds what was counted in the state of its scope, as ``refusals``.
    """

    def __init__(self, app: App, limits: HttpLimits, refusals: Refusals) -> None:
        self._app = app
        self._limits = limits
        self._refusals = refusals

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted_send(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                self._refusals.statuses[message["status"]] += 1
            await send(message)
            has_begun = True

        objection = self._objection(scope)
        if objection is not None:
            status, reason, code = objection
            self._refusals.add(reason)
            await _answer(noted_send, status, str(reason), code)
            return
        scope["state"] = {**scope.get("state", {}), "refusals": self._refusals}
        try:
            await self._app(scope, receive, noted_send)
        except asyncio.CancelledError:
            self._refusals.add(Reason.STOPPING)
            if has_begun:
                raise
            await _answer(noted_send, 503, str(Reason.STOPPING), "stopping")
        except ClientDisconnect:
            pass  # amid its own request: no handler failed, and nobody is left to be answered
        except Exception as error:
            self._refusals.add(Reason.FAILED)
            logger.error("a handler of %s failed", scope["path"][:200], exc_info=error)  # noqa: TRY400
            if has_begun:
                raise  # uvicorn ends the connection amid the answer: the client can tell
            await _answer(noted_send, 500, str(Reason.FAILED), "internal_error")

    def _objection(self, scope: Message) -> tuple[int, Reason, str] | None:
        names = {name for name, _ in scope["headers"]}
        if scope["http_version"] not in _VERSIONS:
            return 505, Reason.MALFORMED, "http_version"
        if {b"content-length", b"transfer-encoding"} <= names:
            # One of a chain of servers may believe the one, and another the other: RFC 9112, 6.1.
            return 400, Reason.MALFORMED, "malformed_request"
        if _size_of_head(scope) > self._limits.head_bytes:
            return 431, Reason.LARGE_HEAD, "malformed_request"
        return None


def _size_of_head(scope: Message) -> int:
    lines = sum(len(name) + len(value) + _LINE_MARKS for name, value in scope["headers"])
    return lines + len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])


async def _answer(send: Send, status: int, message: str, code: str) -> None:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = error_body(message, code, kind)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
