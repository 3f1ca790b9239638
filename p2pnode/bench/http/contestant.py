"""What takes part: a server of ASGI apps, or a bare loop that such a server cannot be quicker than.

Each runs in a process of its own and is told its listening socket, as the API's server is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

from p2pnode.errors import UserError
from p2pnode.installing import install_extra

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
Foreign: TypeAlias = Any
"""Something of a package that may not be installed, so that no type of it can be named."""

_SERVERS = "p2pnode.bench.http.servers"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to serve.

    Attributes:
        name: What the table calls it.
        short: What a person calls it on the command line.
        serve: ``module:function``, called in the process with the app and the socket; it blocks.
        needs: The modules that must be there, beyond those that p2pnode has anyway.
        distribution: The package whose version the figures depend on.
        is_bare: It knows streams and tiny answers alone: a floor, no server.
    """

    name: str
    short: str
    serve: str
    needs: tuple[str, ...] = ()
    distribution: str = ""
    is_bare: bool = False


EVERYONE = (
    Contestant("uvicorn, h11", "uvicorn-h11", f"{_SERVERS}:uvicorn_h11", (), "uvicorn"),
    Contestant(
        "uvicorn, httptools",
        "uvicorn-httptools",
        f"{_SERVERS}:uvicorn_httptools",
        ("httptools",),
        "httptools",
    ),
    Contestant(
        "hypercorn, asyncio",
        "hypercorn-asyncio",
        f"{_SERVERS}:hypercorn_asyncio",
        ("hypercorn",),
        "hypercorn",
    ),
    Contestant(
        "hypercorn, trio",
        "hypercorn-trio",
        f"{_SERVERS}:hypercorn_trio",
        ("hypercorn",),
        "hypercorn",
    ),
    Contestant("anycorn, trio", "anycorn", f"{_SERVERS}:anycorn_trio", ("anycorn",), "anycorn"),
    Contestant("bare asyncio", "bare-asyncio", f"{_SERVERS}:bare_asyncio", is_bare=True),
    Contestant("bare trio", "bare-trio", f"{_SERVERS}:bare_trio", is_bare=True),
)


def choose(names: tuple[str, ...], everyone: tuple[Contestant, ...]) -> list[Contestant]:
    """Return the contestants of these names in the order of the table, or all for no name.

    A name is that of the table, a short one (``hypercorn-trio``), or a word of short ones.

    Raises:
        UserError: There is no such contestant.
    """
    for name in names:
        if not any(_is_meant(one, name) for one in everyone):
            known = ", ".join(one.short for one in everyone)
            raise UserError(f"nothing called {name!r} takes part", hint=f"the names are {known}")
    return [one for one in everyone if not names or any(_is_meant(one, name) for name in names)]


def reason_to_skip(contestant: Contestant) -> str | None:
    """Say why a contestant cannot take part here, and what to do about it; None if it can."""
    missing = [module for module in contestant.needs if find_spec(module) is None]
    return f"needs {', '.join(missing)}: {install_extra('bench')}" if missing else None


def _is_meant(one: Contestant, name: str) -> bool:
    wanted = name.strip().lower()
    return wanted in {one.name.lower(), one.short, *one.short.split("-")}
