"""What of a node can be looked at: ``/health``, ``/snapshot``, ``/events``, ``/metrics``."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from p2pnode.interfaces.http.asking import NodeLink
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.metrics import CONTENT_TYPE, metrics_text
from p2pnode.interfaces.http.openai.writing import error_body
from p2pnode.interfaces.http.spoken import server_sent

BETWEEN: Final = 1.0
"""Seconds between pictures of ``/events``."""


class Looks:
    """Shows a node's picture; it is the one that ``top`` draws."""

    def __init__(self, link: NodeLink) -> None:
        self._link = link

    async def health(self, request: Request) -> Response:
        """Say whether the node answers, and whether its swarm covers the model."""
        try:
            picture = await self._link.call("snapshot")
        except ApiError as error:
            return JSONResponse(
                {"status": "unavailable", "reason": error.message}, 503, headers=error.headers
            )
        missing = picture["missing_layers"]
        if not picture["model"] or missing:
            runs = ", ".join(f"{first} to {stop - 1}" for first, stop in missing)
            reason = f"nobody serves layers {runs}" if missing else "the node has no model"
            return JSONResponse({"status": "degraded", "reason": reason})
        return JSONResponse({"status": "ok"})

    async def snapshot(self, request: Request) -> Response:
        return JSONResponse(await self._link.call("snapshot"))

    async def events(self, request: Request) -> Response:
        """Stream a picture a second; while the node is away, say that."""
        headers = {"cache-control": "no-store"}
        return StreamingResponse(self._pictures(), media_type="text/event-stream", headers=headers)

    async def metrics(self, request: Request) -> Response:
        picture, timings = await asyncio.gather(
            self._link.call("snapshot"), self._link.call("timings")
        )
        return Response(metrics_text(picture, timings), media_type=CONTENT_TYPE)

    async def _pictures(self) -> AsyncIterator[bytes]:
        while True:
            try:
                picture = await self._link.call("snapshot")
                yield server_sent(json.dumps(picture, separators=(",", ":")), "snapshot")
            except ApiError as error:
                yield server_sent(error_body(error), "error")
            await asyncio.sleep(BETWEEN)
