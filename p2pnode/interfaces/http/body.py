"""The JSON of a request: bounded in bytes, seconds, parts and depth, and writable again."""

import asyncio
import json
import math
from typing import Final, NoReturn

from starlette.requests import Request

from p2pnode.interfaces.http.aside import aside
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.structure import Structure, structure_of

MOST_BYTES: Final = 4 * 2**20
"""Of a body. The control socket takes as much in a line."""

SECONDS: Final = 30.0
"""For a body to arrive: a slow writer holds a connection."""

_SIZE: Final = f"is larger than {MOST_BYTES >> 20} MiB"
_MOST_DIGITS: Final = 400  # of a whole number: the largest that is read as a float has 309

MOST_NESTED: Final = 200
"""Objects and lists in each other: Python writes and reads no more than some hundreds. A schema of
a tool has ten."""

MOST: Final = Structure(parts=65_536, values=262_144)
"""In a body: enough for thousands of messages, or for two long contexts in tokens."""

LARGE: Final = 65_536
"""Bytes of a body above which a thread reads it, so that others get their turn. A smaller one
takes a few milliseconds, whatever it has."""


async def fields_of(request: Request) -> Fields:
    """Return the parameters of a request: the object that its body is.

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
    is_large = len(data) > LARGE
    try:
        body = await aside(lambda: _bounded(data)) if is_large else _parsed(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            400, f"the body is not JSON: {_reason(error)}", code="malformed_json"
        ) from error
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object", code="malformed_json")
    return Fields(body, is_large=is_large)


def _bounded(data: bytes) -> object:
    found = structure_of(data, MOST)
    if found.parts > MOST.parts:
        raise _too_large(f"has more than {MOST.parts:,} objects, lists and names in objects")
    if found.values > MOST.values:
        raise _too_large(f"has more than {MOST.values:,} values")
    return _parsed(data)


def _parsed(data: bytes) -> object:
    """Return what JSON says, if it can be said again: the node is told, and some clients, too.

    Raises:
        ValueError: It is no JSON, or has half a character or a number beyond all range.
        RecursionError: It is nested too deep.
    """
    # As text: of bytes, json guesses UTF-16 and UTF-32, too, and lets halves of characters pass.
    text = data.decode("utf-8-sig")
    body: object = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
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
        raise _too_large(_SIZE)
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise _too_large(_SIZE)
    return bytes(data)


def _too_large(why: str) -> ApiError:
    return ApiError(413, f"the body {why}", code="request_too_large")


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


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:  # the time to read one grows with the square of its digits
        raise ValueError(text)
    return int(text)
