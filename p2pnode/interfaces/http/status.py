"""The state of a node: ``/health``, ``/snapshot``, ``/events``, ``/metrics``."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.metrics import CONTENT_TYPE, metrics_text
from p2pnode.interfaces.http.node_link import NodeLink
from p2pnode.interfaces.http.openai.writing import error_body
from p2pnode.interfaces.http.sse import server_sent

BETWEEN: Final = 1.0
"""Seconds between pictures of ``/events``."""

FRESH: Final = 0.25
"""Seconds that a picture is shown to whoever asks: a node takes few of itself, however many look.
``/health`` needs no key."""


class Status:
    """Shows a node's picture; it is the one that ``top`` draws."""

    def __init__(self, link: NodeLink) -> None:
        self._link = link
        self._asked: asyncio.Task[Any] | None = None
        self._asked_at = 0.0

    async def health(self, request: Request) -> Response:
        """Say whether the node answers, and whether its swarm covers each of its models."""
        try:
            picture = await self._picture()
        except ApiError as error:
            return JSONResponse(
                {"status": "unavailable", "reason": error.message}, 503, headers=error.headers
            )
        if reason := _lacking(picture):
            return JSONResponse({"status": "degraded", "reason": reason})
        return JSONResponse({"status": "ok"})

    async def snapshot(self, request: Request) -> Response:
        return JSONResponse(await self._picture())

    async def events(self, request: Request) -> Response:
        """Stream a picture a second; while the node is away, say that."""
        headers = {"cache-control": "no-store"}
        return StreamingResponse(self._pictures(), media_type="text/event-stream", headers=headers)

    async def metrics(self, request: Request) -> Response:
        picture, timings = await asyncio.gather(self._picture(), self._link.call("timings"))
        refusals = request.scope["state"]["refusals"]
        return Response(metrics_text(picture, timings, refusals), media_type=CONTENT_TYPE)

    async def _picture(self) -> Any:  # noqa: ANN401 -- JSON
        """Return the node's picture, as of a moment ago at most; many askers cost it one.

        Raises:
            ApiError: The node is not there, or says nothing.
        """
        now, asked = time.monotonic(), self._asked
        if asked is None or (asked.done() and now - self._asked_at > FRESH):
            asked = asyncio.create_task(self._link.call("snapshot"))
            asked.add_done_callback(_noticed)
            self._asked, self._asked_at = asked, now
        return await asyncio.shield(asked)

    async def _pictures(self) -> AsyncIterator[bytes]:
        while True:
            try:
                picture = await self._picture()
                yield server_sent(json.dumps(picture, separators=(",", ":")), "snapshot")
            except ApiError as error:
                yield server_sent(error_body(error), "error")
            await asyncio.sleep(BETWEEN)


def _lacking(picture: Mapping[str, Any]) -> str:
    """Say what keeps a node from answering; nothing where each of its models is complete."""
    if not picture["model"]:
        return "the node has no model"
    models = picture.get("models") or [picture]
    missing = [
        (f" of {one['name']}" if len(models) > 1 else "", one["missing_layers"])
        for one in models
        if one["missing_layers"]
    ]
    return "; ".join(
        f"nobody serves layers {', '.join(f'{first} to {stop - 1}' for first, stop in runs)}{name}"
        for name, runs in missing
    )


def _noticed(asked: asyncio.Task[Any]) -> None:
    """See what came of it: whoever asked may have gone."""
    if not asked.cancelled():
        asked.exception()
