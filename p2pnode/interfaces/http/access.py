"""Who may ask: the Host that was meant, the key, and the pages of other sites.

A page of any site can send requests to this machine. Those that resolve their own name to it (DNS
rebinding) say that name as Host; the others say where they come from (Origin). Both are refused
unless they were named.
"""

import hashlib
import hmac
import ipaddress
import json
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pnode.interfaces.http.dialects import told
from p2pnode.interfaces.http.errors import ApiError

OPEN: Final = frozenset({"/", "/health", "/chat", "/swarm"})
"""Paths that need no key: pages that know nothing, and whether anybody is there."""

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[^:\[\]/@\s]{1,253})(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
        key: What a client must know; empty for no key.
        hosts: Names that a request may be for, besides addresses and this machine's own.
        origins: Other sites whose pages may ask, e.g. ``https://chat.example``; ``*`` for any.
    """

    key: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class AccessGuard:
    """An ASGI app around another, which turns away who may not ask."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._hosts = frozenset(_own_names()) | {name.casefold() for name in access.hosts}
        self._key = _digest(access.key.encode()) if access.key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._objection(scope)) is not None:
            await _refuse(scope, send, error)
        else:
            await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) > 1 or (hosts and not self._is_ours(hosts[0])):
            return ApiError(
                421,
                "this server is not called that; name it with --allow-host to let requests in",
                code="unknown_host",
            )
        origin = headers.get("origin")
        if origin is not None and not self._may_ask(origin, hosts[0] if hosts else ""):
            return ApiError(
                403,
                "pages of that site may not ask here; name it with --cors to let them",
                code="foreign_origin",
            )
        if self._key is None or scope["path"] in OPEN or scope["method"] == "OPTIONS":
            return None
        if any(hmac.compare_digest(self._key, _digest(said)) for said in _keys(headers)):
            return None
        return ApiError(
            401,
            "a key is needed: send it as 'Authorization: Bearer KEY'",
            type="authentication_error",
            code="invalid_api_key",
        )

    def _is_ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].casefold().rstrip(".")
        return name in self._hosts or name.endswith(".localhost") or _is_address(name.strip("[]"))

    def _may_ask(self, origin: str, host: str) -> bool:
        if "*" in self._access.origins or origin in self._access.origins:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.casefold() == host.casefold()
        except ValueError:
            return False


def _own_names() -> Iterable[str]:
    name = socket.gethostname().casefold()
    return "localhost", name, f"{name}.local", f"{name.split('.')[0]}.local"


def _is_address(name: str) -> bool:
    """Whether it is an address: nobody resolves one to another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _keys(headers: Headers) -> list[bytes]:
    """Return the keys that a client says: as OpenAI has them, and as Anthropic has."""
    said = headers.get("authorization", "")
    scheme, _, bearer = said.partition(" ")
    keys = [bearer.strip()] if scheme.casefold() == "bearer" else []
    return [key.encode("latin-1", "replace") for key in (*keys, headers.get("x-api-key", ""))]


def _digest(key: bytes) -> bytes:
    """Return what is compared: of one length, whatever was said, so that time tells nothing."""
    return hashlib.sha256(key).digest()


async def _refuse(scope: Scope, send: Send, error: ApiError) -> None:
    status, body = told(error, scope["path"], Headers(scope=scope))
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-length": f"{len(data)}"}
    lines = [
        (name.encode(), value.encode()) for name, value in {**headers, **error.headers}.items()
    ]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": data, "more_body": False})
