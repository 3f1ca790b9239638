"""The JSON of a request: bounded in bytes, seconds and depth, and an object that can be written."""

import asyncio
import json
import math
from typing import Any, Final, NoReturn

from starlette.requests import ClientDisconnect, Request

from p2pnode.interfaces.http.errors import ApiError

MOST_BYTES: Final = 4 * 2**20
"""Of a body. The control socket takes as much in a line."""

SECONDS: Final = 30.0
"""For a body to arrive: a slow writer holds a connection."""

MOST_NESTED: Final = 200
"""Objects and lists in each other: Python writes and reads no more than some hundreds. A schema of
a tool has ten."""


async def json_object(request: Request) -> dict[str, Any]:
    """Return the object that a request's body is.

    Raises:
        ApiError: It is none, too large, or too slow.
        ClientDisconnect: The client went away meanwhile.
    """
    try:
        async with asyncio.timeout(SECONDS):
            data = await _bytes(request)
    except TimeoutError as error:
        raise ApiError(
            408, f"the body did not arrive within {SECONDS:.0f} s", code="slow_request"
        ) from error
    try:
        body = _parsed(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            400, f"the body is not JSON: {_reason(error)}", code="malformed_json"
        ) from error
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object", code="malformed_json")
    return body


def _parsed(data: bytes) -> object:
    """Return what JSON says, if it can be said again: the node is told, and some clients, too.

    Raises:
        ValueError: It is no JSON, or has half a character or a number beyond all range.
        RecursionError: It is nested too deep.
    """
    # As text: of bytes, json guesses UTF-16 and UTF-32, too, and lets halves of characters pass.
    text = data.decode("utf-8-sig")
    body: object = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if data.count(b"[") + data.count(b"{") > MOST_NESTED:
        _refuse_deep(body)
    if b"\\u" in data:  # UTF-8 itself has no halves
        json.dumps(body, ensure_ascii=False).encode()
    return body


def _refuse_deep(body: object) -> None:
    level = [body] if isinstance(body, dict | list) else []
    for _ in range(MOST_NESTED):
        within = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for each in within for inner in each if isinstance(inner, dict | list)]
    if level:
        raise RecursionError


async def _bytes(request: Request) -> bytes:
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said[:20]) > MOST_BYTES:
        raise _too_large()
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise _too_large()
    return bytes(data)


def _too_large() -> ApiError:
    return ApiError(
        413, f"the body is larger than {MOST_BYTES >> 20} MiB", code="request_too_large"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeEncodeError):
        return "a string has half of a surrogate pair"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "a number is impossible"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


__all__ = ["MOST_BYTES", "SECONDS", "ClientDisconnect", "json_object"]
