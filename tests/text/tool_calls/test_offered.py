"""Tools and choices of requests: what is taken, and what is refused by name."""

from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.text.tool_calls.json_scan import MOST_NESTED
from p2pnode.text.tool_calls.offered import (
    MOST_OFFERED,
    MOST_TOOLS,
    Choice,
    Tool,
    ToolChoice,
    checked_choice,
    checked_tools,
)


def tool(name: object = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def nested(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object"}
    for _ in range(levels - 1):
        made = {"type": "object", "properties": made}
    return made


def test_tools_come_back_as_they_are_offered() -> None:
    given = [
        tool("a_1", description="Does a.", parameters={"type": "object", "properties": {}}),
        tool("B-2", parameters={}),
        tool("c", description=None, parameters=None, strict=True),
    ]
    tools = checked_tools(given)
    assert tools == [
        Tool("a_1", "Does a.", {"type": "object", "properties": {}}),
        Tool("B-2", "", {}),
        Tool("c", "", None),
    ]
    assert [one.as_offered() for one in tools] == [given[0], given[1], tool("c")]
    assert checked_tools(None) == checked_tools([]) == []


def test_as_many_and_as_deep_as_may_be_are_taken() -> None:
    assert len(checked_tools([tool(f"f{number}") for number in range(MOST_TOOLS)])) == MOST_TOOLS
    assert checked_tools([tool("x" * 64, parameters=nested(MOST_NESTED))])


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ("f", "tools is not a list"),
        ({"f": 1}, "tools is not a list"),
        ([tool(str(number)) for number in range(MOST_TOOLS + 1)], "129 tools"),
        (["f"], r"tools\[0\] is not a tool"),
        ([tool(), {"type": "retrieval"}], r"tools\[1\] is not a tool"),
        ([{"type": "function"}], r"tools\[0\]\.function is not an object"),
        ([tool("")], r"tools\[0\]\.function\.name"),
        ([tool("x" * 65)], r"tools\[0\]\.function\.name"),
        ([tool("a b")], r"tools\[0\]\.function\.name"),
        ([tool("\u00e9")], r"tools\[0\]\.function\.name"),
        ([tool("f\n")], r"tools\[0\]\.function\.name"),
        ([tool(7)], r"tools\[0\]\.function\.name"),
        ([tool(description=7)], r"tools\[0\]\.function\.description"),
        ([tool(), tool("g", parameters=[])], r"tools\[1\]\.function\.parameters is not an object"),
        ([tool(parameters={"type": "array"})], r"parameters describes no object"),
        ([tool(parameters=nested(MOST_NESTED + 1))], "nested deeper"),
        ([tool(parameters=nested(50_000))], "nested deeper"),
        ([tool("a"), tool("b"), tool("a")], r"tools\[2\] has the name of tools\[0\], 'a'"),
        ([tool(description="x" * MOST_OFFERED)], "characters of JSON"),
        ([tool(parameters={"default": float("nan")})], "cannot be written as JSON"),
        ([tool(parameters={"default": {1, 2}})], "cannot be written as JSON"),
    ],
    ids=lambda one: str(one)[:30] if not isinstance(one, list) else None,
)
def test_what_is_no_list_of_tools_is_refused_by_place(tools: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked_tools(tools)


TOOLS = checked_tools([tool("f"), tool("g")])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice(Choice.AUTO)),
        ("auto", ToolChoice(Choice.AUTO)),
        ("none", ToolChoice(Choice.NONE)),
        ("required", ToolChoice(Choice.REQUIRED)),
        (tool("g"), ToolChoice(Choice.REQUIRED, "g")),
    ],
)
def test_a_choice_is_read(choice: object, expected: ToolChoice) -> None:
    assert checked_choice(choice, TOOLS) == expected


@pytest.mark.parametrize("choice", [None, "none"])
def test_without_tools_none_is_called(choice: object) -> None:
    assert checked_choice(choice, []) == ToolChoice(Choice.NONE)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("any", "tool_choice is not known"),
        (7, "tool_choice is not known"),
        ({"type": "function"}, "tool_choice is not known"),
        ({"type": "function", "function": {"name": []}}, "tool_choice is not known"),
        ({"type": "allowed_tools"}, "tool_choice is not known"),
        (tool("h"), "wants 'h', which is not among the tools"),
    ],
    ids=str,
)
def test_a_choice_that_is_none_is_refused(choice: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked_choice(choice, TOOLS)


def test_a_call_cannot_be_required_of_no_tools() -> None:
    with pytest.raises(UserError, match="no tools are offered"):
        checked_choice("required", [])
