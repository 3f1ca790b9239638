"""Calls that must be made: their schemas are followed by the library that follows schemas."""

import json
from typing import Any

import pytest

from p2pnode.engine.sampling.schema import Constraints, Matcher, check_schema
from p2pnode.engine.sampling.schema_text import MOST_SCHEMA, compact_schema
from p2pnode.text.tool_calls.forced import parse_forced, schema_of
from p2pnode.text.tool_calls.offered import Choice, Tool, ToolChoice
from p2pnode.text.tool_calls.pieces import ToolCall

REQUIRED = ToolChoice(Choice.REQUIRED)
BYTES = Constraints([*(bytes([byte]) for byte in range(256)), b""], 256)

WEATHER = Tool(
    "get_weather",
    "The weather.",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weather",
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "title": {"$ref": "#/$defs/Unit"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["C", {"description": "kept"}], "default": "C"}},
    },
)
TREE = Tool(
    "plant",
    "",
    {
        "properties": {
            "value": {"type": "integer", "format": "int32"},
            "left": {"$ref": "#"},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        },
        "additionalProperties": False,
    },
)
NOTHING = Tool("list_files", "", None)
ANYTHING = Tool("run", "", {})


def matcher(*tools: Tool, choice: ToolChoice = REQUIRED) -> Matcher:
    schema = compact_schema(json.dumps(schema_of(tools, choice)))
    check_schema(schema)
    return BYTES.matcher(schema)


def follows(matcher: Matcher, answer: str) -> bool:
    """Whether an answer may be this, and be over there."""
    walker = matcher.copy()
    for byte in answer.encode():
        if byte not in walker.allowed([256]):
            return False
        walker.take([byte])
    return 256 in walker.allowed([256])


@pytest.mark.parametrize(
    ("tools", "answer", "may"),
    [
        ([WEATHER], '{"name": "get_weather", "arguments": {"city": "Oslo"}}', True),
        ([WEATHER], '{"name": "get_weather", "arguments": {"city": "Oslo", "title": "C"}}', True),
        ([WEATHER], '{"name": "get_weather", "arguments": {"city": "Oslo", "title": "X"}}', False),
        ([WEATHER], '{"name": "get_weather", "arguments": {}}', False),
        ([WEATHER], '{"name": "get_time", "arguments": {"city": "Oslo"}}', False),
        ([WEATHER], '{"name":  "get_weather", "arguments": {"city": "Oslo"}}', False),
        ([NOTHING], '{"name": "list_files", "arguments": {}}', True),
        ([NOTHING], '{"name": "list_files", "arguments": {"a": 1}}', False),
        ([ANYTHING], '{"name": "run", "arguments": {"a": [1, "b"]}}', True),
        ([ANYTHING], '{"name": "run", "arguments": [1]}', False),
        ([TREE], '{"name": "plant", "arguments": {"value": 1, "left": {"value": 2}}}', True),
        ([TREE], '{"name": "plant", "arguments": {"left": {"left": {"value": "2"}}}}', False),
        (
            [NOTHING, TREE, WEATHER],
            '{"name": "get_weather", "arguments": {"city": "Oslo", "title": "C"}}',
            True,
        ),
        (
            [NOTHING, TREE, WEATHER],
            '{"name": "plant", "arguments": {"left": {"left": {"value": 2}}}}',
            True,
        ),
        ([NOTHING, TREE, WEATHER], '{"name": "list_files", "arguments": {"city": "x"}}', False),
    ],
)
def test_a_forced_call_is_one_of_the_tools(tools: list[Tool], answer: str, may: bool) -> None:
    assert follows(matcher(*tools), answer) is may
    if may:
        (call,) = parse_forced(answer)
        assert json.loads(answer) == {"name": call.name, "arguments": json.loads(call.arguments)}


def test_a_named_tool_is_the_only_one() -> None:
    named = matcher(NOTHING, WEATHER, choice=ToolChoice(Choice.REQUIRED, "get_weather"))
    assert follows(named, '{"name": "get_weather", "arguments": {"city": ""}}')
    assert not follows(named, '{"name": "list_files", "arguments": {}}')


@pytest.mark.parametrize("choice", [Choice.AUTO, Choice.NONE])
def test_a_call_that_is_not_forced_has_no_schema(choice: Choice) -> None:
    assert schema_of([WEATHER], ToolChoice(choice)) is None


def test_what_a_schema_says_to_readers_takes_no_room_and_the_rest_stays() -> None:
    described = {f"p{number}": {"type": "string", "description": "x" * 300} for number in range(99)}
    tool = Tool("f", "", {"type": "object", "properties": described})
    assert len(compact_schema(json.dumps(schema_of([tool], REQUIRED)))) < MOST_SCHEMA
    schema: Any = schema_of([WEATHER], REQUIRED)
    arguments = schema["properties"]["arguments"]
    assert arguments["properties"] == {
        "city": {"type": "string"},
        "title": {"$ref": "#/properties/arguments/$defs/Unit"},
    }
    assert arguments["$defs"] == {"Unit": {"enum": ["C", {"description": "kept"}]}}
    assert "$schema" not in arguments
    assert "title" not in arguments
    assert WEATHER.parameters is not None
    assert WEATHER.parameters["properties"]["title"] == {"$ref": "#/$defs/Unit"}


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ('{"name": "f", "arguments": {"a": 1.50}}', [ToolCall("f", '{"a":1.50}')]),
        (' {"name": "f", "arguments": {}}\n', [ToolCall("f", "{}")]),
        ('{"name": "f", "arguments": {"a": "cut o', []),
        ('{"name": "f", "arguments": []}', []),
        ('{"name": "f"}', []),
        ("no JSON", []),
        ("", []),
        ('{"name": "f", "arguments": {}} and', []),
        ("{" * 100_000, []),
    ],
    ids=lambda one: str(one)[:30],
)
def test_a_forced_call_is_read_back_or_it_is_none(answer: str, calls: list[ToolCall]) -> None:
    assert parse_forced(answer) == calls
