"""Everyone who takes part, in the order of the table."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec

from p2pnode.bench.think.contestant import Contestant
from p2pnode.bench.think.floor import udp
from p2pnode.bench.think.frames import sealed_frame
from p2pnode.bench.think.grpc_calls import grpc_stream, grpc_unary
from p2pnode.bench.think.msgpack_tcp import msgpack_asyncio, msgpack_uvloop
from p2pnode.bench.think.ours import p2pnode
from p2pnode.bench.think.over_http import (
    json_http,
    json_http_anew,
    orjson_http,
    raw_http,
)
from p2pnode.bench.think.quic import quic
from p2pnode.bench.think.zeromq import zeromq
from p2pnode.errors import UserError
from p2pnode.installing import install_extra

_EVERYONE = (
    p2pnode,
    sealed_frame,
    udp,
    msgpack_uvloop,
    msgpack_asyncio,
    zeromq,
    grpc_stream,
    grpc_unary,
    quic,
    raw_http,
    orjson_http,
    json_http,
    json_http_anew,
)


def everyone() -> list[Contestant]:
    return [describe() for describe in _EVERYONE]


def choose(names: tuple[str, ...]) -> list[Contestant]:
    """Return the contestants of these names in the order given, or all for no name.

    A name is that of the table, a short one (``grpc-stream``), or a word of short ones (``grpc``).

    Raises:
        UserError: There is no such contestant.
    """
    if not names:
        return everyone()
    chosen = (one for name in names for one in _of_name(name))
    return list({one.name: one for one in chosen}.values())


def _of_name(name: str) -> list[Contestant]:
    wanted = name.strip().lower()
    for matches in (_is_called, _has_word):
        found = [one for one in everyone() if matches(one, wanted)]
        if found:
            return found
    known = [one.short for one in everyone()]
    words = {word for short in known for word in short.split("-")}
    close = get_close_matches(wanted, [*known, *sorted(words)], 1)
    meant = f"--only {close[0]}; " if close else ""
    raise UserError(
        f"nothing called {name!r} takes part", hint=f"{meant}the names are {', '.join(known)}"
    )


def _is_called(one: Contestant, wanted: str) -> bool:
    return wanted in {one.name.lower(), one.short}


def _has_word(one: Contestant, wanted: str) -> bool:
    return wanted in one.short.split("-")


def reason_to_skip(contestant: Contestant) -> str | None:
    """Say why a contestant cannot take part here, and what to do about it; None if it can."""
    missing = [module for module in contestant.needs if find_spec(module) is None]
    return f"needs {', '.join(missing)}: {install_extra('bench')}" if missing else None
