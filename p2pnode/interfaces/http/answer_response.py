"""The answer to a request, streamed or whole, for as long as its client is there."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from p2pnode.interfaces.http.disconnect import while_there
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.node_link import NodeLink
from p2pnode.net.control_lines import Rendered

Body: TypeAlias = dict[str, Any]

SILENCE: Final = 10.0
"""Seconds without a word after which a stream says that it is alive; proxies cut what is silent."""


class Writer(Protocol):
    """Writes answers as one API has them. It is for one request.

    Attributes:
        media_type: Of a stream.
        heartbeat: What a stream says so as not to be silent; empty for nothing.
    """

    media_type: str
    heartbeat: bytes

    def opening(self) -> bytes:
        """Return what a stream begins with."""

    def event(self, number: int, event: Body) -> bytes:
        """Return what an event of an answer looks like; may be empty."""

    def closing(self, facts: Sequence[Body]) -> bytes:
        """Return what a stream ends with, when all answers are complete."""

    def failure(self, error: ApiError) -> bytes:
        """Return what a stream ends with that cannot go on."""

    def whole(self, facts: Sequence[Body]) -> object:
        """Return all answers as one JSON value."""

    def error(self, error: ApiError) -> object:
        """Return an error as one JSON value."""

    def status(self, error: ApiError) -> int:
        """Return the status of HTTP that an error has."""


class AnswerResponse(Response):
    """Asks, and writes what comes of it; a client that goes away ends its answers."""

    def __init__(
        self,
        link: NodeLink,
        questions: Sequence[Rendered],
        writer: Writer,
        *,
        is_stream: bool,
    ) -> None:
        super().__init__()
        self._link = link
        self._questions = questions
        self._writer = writer
        self._is_stream = is_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        speak = self._streamed(send) if self._is_stream else self._whole(scope, receive, send)
        with suppress(ClientDisconnect):
            await while_there(receive, speak)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        try:
            facts = await self._link.answers(self._questions, _nothing)
            response = JSONResponse(self._writer.whole(facts))
        except ApiError as error:
            response = self._refusal(error)
        await response(scope, receive, send)

    def _refusal(self, error: ApiError) -> Response:
        body, status = self._writer.error(error), self._writer.status(error)
        return JSONResponse(body, status, headers=error.headers)

    async def _streamed(self, send: Send) -> None:
        stream = _Stream(send, self._writer)
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(stream.keep_alive())
            try:
                facts = await self._link.answers(self._questions, stream.tell)
                await stream.say(self._writer.closing(facts))
            except ApiError as error:
                await stream.fail(error)
            beating.cancel()
        await stream.end()


class _Stream:
    """What of a streamed response was sent. It begins with the first event of an answer.

    Before that an error is one of HTTP, with its own status.
    """

    def __init__(self, send: Send, writer: Writer) -> None:
        self._send = send
        self._writer = writer
        self._turn = asyncio.Lock()
        self._has_begun = False
        self._spoke_at = 0.0

    async def tell(self, number: int, event: Body) -> None:
        await self.say(self._writer.event(number, event))

    async def say(self, data: bytes) -> None:
        async with self._turn:
            if not self._has_begun:
                await self._begin(200, self._writer.media_type, {"cache-control": "no-store"})
                data = self._writer.opening() + data
            if data:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
                self._spoke_at = asyncio.get_running_loop().time()

    async def fail(self, error: ApiError) -> None:
        if self._has_begun:
            await self.say(self._writer.failure(error))
            return
        async with self._turn:
            await self._begin(self._writer.status(error), "application/json", error.headers)
            body = json.dumps(self._writer.error(error)).encode()
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def keep_alive(self) -> None:
        """Break silences, once the stream has begun."""
        while self._writer.heartbeat:
            await asyncio.sleep(SILENCE / 2)
            now = asyncio.get_running_loop().time()
            if self._has_begun and now - self._spoke_at > SILENCE:
                await self.say(self._writer.heartbeat)

    async def _begin(self, status: int, media_type: str, headers: Mapping[str, str]) -> None:
        self._has_begun = True
        self._spoke_at = asyncio.get_running_loop().time()
        named = {"content-type": media_type, **headers}
        lines = [(name.encode(), value.encode()) for name, value in named.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})


async def _nothing(number: int, event: Body) -> None:
    """Events of an answer that is sent whole."""
