"""Everyone who takes part, in the order of the table."""

from __future__ import annotations

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

INSTALL = "pip install '.[bench]' in a clone"

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
    """Return the contestants of these names, or all for no name.

    Raises:
        UserError: There is no such contestant.
    """
    known = {contestant.name: contestant for contestant in everyone()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"nothing called {unknown[0]!r} takes part", hint="one of: " + "; ".join(known)
        )
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())


def reason_to_skip(contestant: Contestant) -> str | None:
    """Say why a contestant cannot take part here, and what to do about it; None if it can."""
    missing = [module for module in contestant.needs if find_spec(module) is None]
    return f"needs {', '.join(missing)}: {INSTALL}" if missing else None
