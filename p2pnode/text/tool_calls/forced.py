"""A call that a model must make: an answer held to a JSON schema, and read back.

The answer is the bare call, ``{"name": ..., "arguments": {...}}``, without the marks that a model
puts around one by itself: a schema knows nothing of control tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from p2pnode.text.tool_calls.call_json import call_of, object_text
from p2pnode.text.tool_calls.offered import Choice, Json, Tool, ToolChoice
from p2pnode.text.tool_calls.pieces import ToolCall

_GUIDANCE: Final = {
    # As models see calls in their templates. Free white space tempts small ones to go on with it.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # A schema made for another implementation is followed as far as it can be, as an unforced call
    # follows it only as far as the model does.
    "lenient": True,
    "coerce_one_of": True,
}
_NO_PARAMETERS: Final = {"type": "object", "properties": {}, "additionalProperties": False}
_NOTES: Final = frozenset({"title", "description", "examples", "default", "$comment"})
"""What a schema says to readers. The model has read it among the tools; here it is only size."""
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_DATA: Final = frozenset({"const", "enum"})
_OWN: Final = frozenset({"$id", "$schema", "$anchor"})  # of a schema that stands by itself


def schema_of(tools: Sequence[Tool], choice: ToolChoice) -> dict[str, Json] | None:
    """Return the schema of a call of one of ``tools``; None if ``choice`` forces none.

    Whether it can be followed, whoever compiles it says: it may be too large, or ask for what is
    not supported.
    """
    if choice.choice is not Choice.REQUIRED:
        return None
    wanted = [tool for tool in tools if choice.name in (None, tool.name)]
    if len(wanted) == 1:
        return {"x-guidance": _GUIDANCE, **_schema_of_call(wanted[0], "#")}
    calls = [_schema_of_call(tool, f"#/anyOf/{number}") for number, tool in enumerate(wanted)]
    return {"x-guidance": _GUIDANCE, "anyOf": calls}


def parse_forced(text: str) -> list[ToolCall]:
    """Return the call that an answer held to such a schema is; nothing if it was cut off."""
    written = object_text(text)
    call = None if written is None else call_of(written, marked=False)
    return [] if call is None else [call]


def _schema_of_call(tool: Tool, place: str) -> dict[str, Json]:
    parameters = tool.parameters if tool.parameters is not None else _NO_PARAMETERS
    moved = _moved(parameters, f"{place}/properties/arguments")
    if not moved.keys() & {"type", "$ref", "anyOf", "allOf", "oneOf"}:
        moved = {"type": "object", **moved}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": moved},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Mapping[str, Json], place: str) -> dict[str, Json]:
    """Return a schema as it must read at ``place`` of another: its references start there."""
    return {
        key: _moved_value(key, value, place)
        for key, value in schema.items()
        if key not in _NOTES and not (key in _OWN and isinstance(value, str))
    }


def _moved_value(key: str, value: Json, place: str) -> Json:
    if key == "$ref" and isinstance(value, str):
        return place + value[1:] if value == "#" or value.startswith("#/") else value
    if key in _DATA:
        return value
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _moved_any(inner, place) for name, inner in value.items()}
    return _moved_any(value, place)


def _moved_any(value: Json, place: str) -> Json:
    if isinstance(value, Mapping):
        return _moved(value, place)
    if isinstance(value, list):
        return [_moved_any(inner, place) for inner in value]
    return value
