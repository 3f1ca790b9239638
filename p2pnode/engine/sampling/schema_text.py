"""The text of a JSON schema, as far as it can be judged without compiling it."""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from math import inf, isinf, lcm
from typing import Final

from p2pnode.engine.sampling.schema_meeting import MOST_MEETING, most_meeting
from p2pnode.errors import ConfigError

MOST_SCHEMA: Final = 16_384
"""Bytes of a schema, written as a JSON string: it shares a control message of 65,000 bytes with up
to 8,192 tokens of the past."""

MOST_NESTED: Final = 64
"""Braces and brackets within each other; a level of objects takes two. The compiler's own limit is
some 120, where it ends in its parser's recursion."""

MOST_MULTIPLE: Final = 2_000
"""What ``multipleOf`` may come to, all of a schema together: the least common multiple, in units of
the finest of them. The library builds a state for each remainder before its limits count: 1 s and
100 MB for 99,991, 10 s and 600 MB for 999,983 (measured)."""

_MOST_MULTIPLES: Final = 40

ANY_OBJECT: Final = '{"type":"object"}'
"""JSON mode, as OpenAI's API has it: any object."""

# A string, or what is left of one that never closes: then no start is tried twice.
_TOKENS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)


def compact_schema(text: str) -> str:
    """Return a schema without the space that means nothing.

    Raises:
        ConfigError: It is no JSON object, or too large, or nested too deep.
    """
    check_schema_text(text, most=64 * MOST_SCHEMA)
    compact = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    check_schema_text(compact)
    return compact


def check_schema_text(text: str, most: int = MOST_SCHEMA) -> None:
    """Look at a schema before anybody compiles it.

    Raises:
        ConfigError: It is no JSON object, or too large, or nested too deep.
    """
    size = len(text) if len(text) > most else len(json.dumps(text))
    if size > most:
        raise ConfigError(
            f"the schema has {size} bytes, and {most} are the most",
            hint="leave out descriptions and examples, or split the question",
        )
    if _depth(text) > MOST_NESTED:
        raise ConfigError(f"the schema is nested deeper than {MOST_NESTED} braces and brackets")
    try:
        body = json.loads(text, parse_constant=_no_constant)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the schema is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(
            "the schema is JSON, but not an object", hint=f"for instance {ANY_OBJECT}"
        )
    _check_multiples(body)
    _check_references(body)
    if most_meeting(body) > MOST_MEETING:
        raise ConfigError(
            "the schema asks of one text to match too many patterns at once",
            hint=f"at most {MOST_MEETING}: use fewer patterns and formats, or join them into one",
        )


def _check_multiples(body: dict[str, object]) -> None:
    multiples = list(_multiples(body))
    if len(multiples) <= _MOST_MULTIPLES and not any(
        isinf(one) or one > MOST_MULTIPLE or (one and one < 1 / MOST_MULTIPLE) for one in multiples
    ):
        exact = [Fraction(str(one)) for one in multiples if one > 0]
        units = lcm(*(one.denominator for one in exact))
        if lcm(*(int(one * units) for one in exact)) <= MOST_MULTIPLE:
            return
    raise ConfigError(
        "the schema's multipleOf would take too much memory",
        hint=f"use few and small ones: together they may come to {MOST_MULTIPLE}",
    )


def _check_references(body: dict[str, object]) -> None:
    """Refuse a ``$ref`` that leads only to itself: it says nothing, and no token would be allowed.

    What has other keys beside ``$ref``, or is no reference within the schema, is left alone.
    """
    left: list[object] = [body]
    checked: set[str] = set()
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            path: list[str] = []
            while (reference := _only_reference(value)) and reference not in checked:
                if reference in path:
                    raise ConfigError(
                        f"the schema's $ref {reference[:60]!r} leads only to itself",
                        hint="let it lead to what describes a value",
                    )
                path.append(reference)
                value = _referred(body, reference)
            checked.update(path)
        elif isinstance(value, list):
            left += value


def _only_reference(value: object) -> str:
    reference = value.get("$ref") if isinstance(value, dict) and len(value) == 1 else None
    return reference if isinstance(reference, str) else ""


def _referred(body: object, reference: str) -> object:
    """Return what a reference within a schema leads to (RFC 6901); None for any other."""
    head, *names = reference.split("/")
    if head != "#":
        return None
    for name in names:
        key = name.replace("~1", "/").replace("~0", "~")
        body = body.get(key) if isinstance(body, dict) else None
    return body


def _multiples(body: dict[str, object]) -> Iterator[float]:
    """Yield every number under ``multipleOf``, however deep."""
    left: list[object] = [body]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            number = value.get("multipleOf")
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield abs(float(number)) if abs(number) < 1e18 else inf
        elif isinstance(value, list):
            left += value


def _depth(text: str) -> int:
    deepest = depth = 0
    for mark in _TOKENS.findall(text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
