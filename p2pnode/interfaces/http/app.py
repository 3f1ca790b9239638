"""The HTTP API of a node: routes, and what every request goes through first."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from p2pnode.interfaces.http.access import Access, AccessGuard
from p2pnode.interfaces.http.anthropic.api import Anthropic
from p2pnode.interfaces.http.dialects import is_anthropic, told
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.node_link import NodeLink
from p2pnode.interfaces.http.ollama.api import Ollama
from p2pnode.interfaces.http.openai.api import OpenAi
from p2pnode.interfaces.http.status import Status

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_PAGES: Final = {"/": "about.html", "/swarm": "swarm.html", "/chat": "chat.html"}
_PAGE_HEADERS: Final = {
    # What a model or a peer says is text, whatever it status like: no page runs anything else.
    "content-security-policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_INSTEAD: Final = {"/api/pull": "on the node's machine, p2pnode models pull NAME fetches models"}
"""What is done in place of what programs often ask for, and is not here."""


def make_app(link: NodeLink, access: Access) -> ASGIApp:
    """Return the app that answers for the node behind ``link``."""
    status, openai, anthropic = Status(link), OpenAi(link), Anthropic(link)
    routes = [
        Route("/health", status.health),
        Route("/snapshot", status.snapshot),
        Route("/events", status.events),
        Route("/metrics", status.metrics),
        Route("/v1/models", _by_version(anthropic.models, openai.models)),
        Route("/v1/models/{name:path}", _by_version(anthropic.model, openai.model)),
        *openai.routes(),
        *anthropic.routes(),
        *Ollama(link).routes(),
        *(Route(path, _page(name)) for path, name in _PAGES.items()),
    ]
    app: ASGIApp = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            Exception: _our_fault,
        },
    )
    if access.origins:
        app = CORSMiddleware(
            app, access.origins, allow_methods=("GET", "POST"), allow_headers=("*",)
        )
    return AccessGuard(app, access)


def _page(name: str) -> Endpoint:
    text = files(__package__).joinpath("pages", name).read_text("utf-8")

    async def page(request: Request) -> Response:
        return HTMLResponse(text, headers=_PAGE_HEADERS)

    return page


def _by_version(anthropic: Endpoint, openai: Endpoint) -> Endpoint:
    """Return what answers on a path that two APIs have."""

    async def either(request: Request) -> Response:
        endpoint = anthropic if is_anthropic(request.url.path, request.headers) else openai
        return await endpoint(request)

    return either


async def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    status, body = told(error, request.url.path, request.headers)
    return JSONResponse(body, status, headers=error.headers)


async def _our_fault(request: Request, error: Exception) -> Response:
    """Answer for a handler that failed; whoever stands around the app notes why."""
    why = "the fault is ours; the node's log says more"
    failed = ApiError(500, why, type="server_error", code="internal_error")
    status, body = told(failed, request.url.path, request.headers)
    return JSONResponse(body, status)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer a path or a method that there is not."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    asked = f"there is no {request.method} {path[:100]} here"
    taken = (error.headers or {}).get("Allow", "")
    hint = f"ask with {taken}" if taken else _INSTEAD.get(path, "the page / lists what there is")
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    absent = ApiError(error.status_code, f"{asked}: {hint}", code=code)
    status, body = told(absent, path, request.headers)
    return JSONResponse(body, status, headers=error.headers)
