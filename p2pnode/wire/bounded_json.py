"""JSON as it may travel: UTF-8, small, shallow, and nothing that JSON does not have."""

import json
import math
import re
from collections.abc import Mapping
from typing import NoReturn

from p2pnode.errors import LocalProtocolError, RemoteProtocolError

MAX_BYTES = 65_000
"""The most bytes of JSON text: what fits in a frame, near enough."""
MAX_DEPTH = 16
"""The deepest nesting. A guess; a capability has 3, and Python's parser dies at about 1000."""


def dump_json(body: Mapping[str, object]) -> bytes:
    """Return the UTF-8 text of a JSON object.

    Raises:
        LocalProtocolError: It is no JSON (NaN, bytes, ...), or too long or deep to be read.
    """
    try:
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"not JSON: {error}") from error
    if len(data) > MAX_BYTES:
        raise LocalProtocolError(f"{len(data)} bytes of JSON; the most is {MAX_BYTES}")
    if _depth(data) > MAX_DEPTH:
        raise LocalProtocolError(f"JSON nested deeper than {MAX_DEPTH}")
    return data


def load_json_untrusted(data: bytes | memoryview) -> dict[str, object]:
    """Parse the UTF-8 text of one JSON object.

    Raises:
        RemoteProtocolError: It is not that, or is too long or deep, or holds NaN, an infinity,
            an integer beyond 64 bits, or half a surrogate pair.
    """
    if len(data) > MAX_BYTES:
        raise RemoteProtocolError(f"{len(data)} bytes of JSON; the most is {MAX_BYTES}")
    raw = bytes(data)
    if _depth(raw) > MAX_DEPTH:
        raise RemoteProtocolError(f"JSON nested deeper than {MAX_DEPTH}")
    try:
        body = json.loads(
            raw.decode(),
            parse_int=_whole_untrusted,
            parse_float=_finite_untrusted,
            parse_constant=_no_constant,
        )
        if _SURROGATE_ESCAPE.search(raw):
            json.dumps(body, ensure_ascii=False).encode()  # fails on half a pair
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RemoteProtocolError("JSON, but not an object")
    return body


def _depth(raw: bytes) -> int:
    # Counted before parsing, since the parser recurses. Broken text may count wrong, and then
    # does not parse either.
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    for token in _TOKENS.findall(raw):
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest


def _whole_untrusted(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
        raise RemoteProtocolError("an integer in JSON beyond 64 bits")
    return int(text)


def _finite_untrusted(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RemoteProtocolError("a number in JSON beyond a float's range")
    return value


def _no_constant(text: str) -> NoReturn:
    raise RemoteProtocolError(f"{text} is not JSON")


# A string, or what is left of one that never closes: every quote starts a match, so no start is
# tried twice and the scan stays linear.
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
