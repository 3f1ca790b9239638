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
from p2pnode.interfaces.http.asking import NodeLink
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.look import Looks
from p2pnode.interfaces.http.openai.api import OpenAi
from p2pnode.interfaces.http.openai.writing import error_body

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_PAGES: Final = {"/": "about.html", "/swarm": "swarm.html", "/chat": "chat.html"}
_PAGE_HEADERS: Final = {
    # What a model or a peer says is text, whatever it looks like: no page runs anything else.
    "content-security-policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def make_app(link: NodeLink, access: Access) -> ASGIApp:
    """Return the app that answers for the node behind ``link``."""
    looks, openai = Looks(link), OpenAi(link)
    routes = [
        Route("/health", looks.health),
        Route("/snapshot", looks.snapshot),
        Route("/events", looks.events),
        Route("/metrics", looks.metrics),
        *openai.routes(),
        *(Route(path, _page(name)) for path, name in _PAGES.items()),
    ]
    app: ASGIApp = Starlette(
        routes=routes,
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
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


async def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error_body(error), error.status, headers=error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer a path or a method that there is not."""
    if not isinstance(error, HTTPException):
        raise error
    asked = f"{request.method} {request.url.path[:100]}"
    told = ApiError(error.status_code, f"there is no {asked} here", code="not_found", param=None)
    return JSONResponse(error_body(told), error.status_code, headers=error.headers)
