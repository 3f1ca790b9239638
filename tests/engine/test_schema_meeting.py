"""Patterns that one text must match together are counted before the library multiplies them."""

import json
import time
from typing import Any

import pytest

from p2pnode.engine.sampling.schema import check_schema
from p2pnode.engine.sampling.schema_meeting import MOST_MEETING
from p2pnode.engine.sampling.schema_text import compact_schema
from p2pnode.errors import ConfigError, UserError

MANY = 20
Schema = dict[str, Any]


def pattern(number: int) -> Schema:
    return {"type": "string", "pattern": f".*{chr(97 + number)}"}


def nested(key: str) -> Schema:
    inner = pattern(0)
    for number in range(1, MANY):
        inner = {**pattern(number), key: [inner]}
    return inner


def all_of(make: Any) -> Schema:
    return {"allOf": [make(pattern(number)) for number in range(MANY)]}


def chain() -> Schema:
    steps = {str(at): {**pattern(at), "$ref": f"#/$defs/{at + 1}"} for at in range(MANY)}
    return {"$defs": steps | {str(MANY): pattern(MANY)}, "$ref": "#/$defs/0"}


def doubling() -> Schema:
    """Return one in which each definition refers twice to the next: a million ways."""
    last = {"20": {"allOf": [pattern(number) for number in range(MOST_MEETING + 1)]}}
    steps = {str(at): {"anyOf": [{"$ref": f"#/$defs/{at + 1}"}] * 2} for at in range(20)}
    return {"$defs": steps | last, "$ref": "#/$defs/0"}


def long_chain() -> Schema:
    """Return one whose definitions refer each to the next, more often than Python's stack bears."""
    steps = {str(at): {"$ref": f"#/{at + 1}"} for at in range(550)}
    return {"properties": {str(at): pattern(at) for at in range(MOST_MEETING + 1)}, **steps}


@pytest.mark.parametrize(
    "schema",
    [
        long_chain(),
        all_of(lambda one: one),
        all_of(lambda one: {"type": "object", "properties": {"x": one}}),
        all_of(lambda one: {"type": "object", "properties": {"allOf": one}}),
        all_of(lambda one: {"type": "object", "additionalProperties": one}),
        all_of(lambda one: {"type": "array", "items": one}),
        all_of(lambda one: {"anyOf": [one, {"type": "integer"}]}),
        {"enum": ["a"], **all_of(lambda one: one)},
        {"properties": {"deep": {"items": all_of(lambda one: one)}}},
        nested("anyOf"),
        nested("oneOf"),
        nested("allOf"),
        chain(),
        {**chain(), "$ref": "#/%24defs/0"},
        doubling(),
        {"$ref": "#named", "$defs": {"a": {"$anchor": "named", **all_of(lambda one: one)}}},
        {
            "$defs": {"a": {**pattern(0), "items": {**pattern(1), "$ref": "#/$defs/a"}}},
            "anyOf": [{"$ref": "#/$defs/a"}, *map(pattern, range(2, MANY))],
        },
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
def test_too_many_patterns_of_one_text_are_refused_at_once(schema: Schema) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match="too many patterns"):
        compact_schema(json.dumps(schema))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {str(number): pattern(number) for number in range(MANY)}},
        {"anyOf": [pattern(number) for number in range(MANY)]},
        {
            "$defs": {"a": {"properties": {"id": pattern(0)}}},
            "allOf": [{"$ref": "#/$defs/a"}],
            "properties": {str(number): pattern(number) for number in range(MANY)},
        },
        {
            "properties": {
                "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
                **{str(number): pattern(number) for number in range(MOST_MEETING)},
            }
        },
        {"allOf": [{"type": "string", "pattern": "^a*$"}] * MANY},
        {"$ref": "#/nowhere/5/x", "pattern": "a"},
        {"pattern": 5, "allOf": {}, "anyOf": "x", "$ref": []},
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
def test_patterns_of_different_texts_are_no_matter(schema: Schema) -> None:
    compact_schema(json.dumps(schema))


def test_what_is_let_through_is_looked_at_in_a_moment() -> None:
    for rest in ("", ".{20}$", ".{900}$"):
        met = [{"type": "string", "pattern": f".*{one}{rest}"} for one in "abcdefgh"]
        text = compact_schema(json.dumps({"allOf": met[:MOST_MEETING]}))
        began = time.process_time()
        with pytest.raises(UserError, match="cannot be followed"):
            check_schema(text)
        assert time.process_time() - began < 3
