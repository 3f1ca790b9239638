"""The tools that a request offers a model, and which of them it must call."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from p2pnode.errors import UserError
from p2pnode.text.tool_calls.json_scan import MOST_NESTED

Json: TypeAlias = Any

MOST_TOOLS: Final = 128
MOST_OFFERED: Final = 262_144
"""Characters of all tools, written as JSON."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EXAMPLE: Final = (
    'a tool is {"type": "function", "function": {"name": "...", "description": "...", '
    '"parameters": {"type": "object", ...}}}'
)
_CHOICES: Final = '"none", "auto", "required" or {"type": "function", "function": {"name": "..."}}'


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call.

    Attributes:
        name: 1 to 64 letters, digits, ``_`` and ``-``.
        description: What it does; may be empty.
        parameters: The JSON schema of its arguments, an object's; None if it takes none.
    """

    name: str
    description: str
    parameters: Mapping[str, Json] | None

    def as_offered(self) -> dict[str, Json]:
        """Return the tool as chat templates read it, which is OpenAI's form."""
        function: dict[str, Json] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        if self.parameters is not None:
            function["parameters"] = dict(self.parameters)
        return {"type": "function", "function": function}


class Choice(Enum):
    """How far a model may choose whether it calls a tool."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What of the tools is wanted.

    Attributes:
        choice: Whether the model may, or must, call a tool.
        name: The only one that it may call, if ``choice`` is ``REQUIRED``; None: any.
    """

    choice: Choice
    name: str | None = None


def checked_tools(tools: object) -> list[Tool]:
    """Return the tools of a request in OpenAI's form; None counts as none.

    Raises:
        UserError: They are not of that form, too many or too large; names the place.
    """
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise UserError("tools is not a list", hint=_EXAMPLE)
    if len(tools) > MOST_TOOLS:
        raise UserError(f"tools has {len(tools)} tools, and {MOST_TOOLS} are the most")
    checked = [_tool(f"tools[{number}]", tool) for number, tool in enumerate(tools)]
    first: dict[str, int] = {}
    for number, tool in enumerate(checked):
        if first.setdefault(tool.name, number) != number:
            raise UserError(
                f"tools[{number}] has the name of tools[{first[tool.name]}], {tool.name!r}",
                hint="give each its own",
            )
    _check_size(tools)
    return checked


def checked_choice(choice: object, tools: Sequence[Tool]) -> ToolChoice:
    """Return what a request's ``tool_choice`` in OpenAI's form asks; None is the usual.

    Raises:
        UserError: It is not of that form, or wants a tool that is not offered.
    """
    if choice is None:
        return ToolChoice(Choice.AUTO if tools else Choice.NONE)
    name = _wanted(choice)
    if name is None:
        if not isinstance(choice, str) or choice not in {one.value for one in Choice}:
            raise UserError("tool_choice is not known", hint=f"it is {_CHOICES}")
        if choice == Choice.REQUIRED.value and not tools:
            raise UserError("tool_choice requires a call, and no tools are offered")
        return ToolChoice(Choice(choice))
    if name not in (tool.name for tool in tools):
        raise UserError(
            f"tool_choice wants {name[:64]!r}, which is not among the tools",
            hint="offered are " + (", ".join(tool.name for tool in tools[:10]) or "none"),
        )
    return ToolChoice(Choice.REQUIRED, name)


def _wanted(choice: object) -> str | None:
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        return None
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def _tool(place: str, tool: object) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        raise UserError(f"{place} is not a tool of the type 'function'", hint=_EXAMPLE)
    if not isinstance(function, Mapping):
        raise UserError(f"{place}.function is not an object", hint=_EXAMPLE)
    name, description = function.get("name"), function.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"{place}.function.name is no name",
            hint="it has 1 to 64 letters, digits, underscores and hyphens",
        )
    if not isinstance(description, str | None):
        raise UserError(f"{place}.function.description is not a text")
    parameters = _parameters(f"{place}.function.parameters", function.get("parameters"))
    return Tool(name, description or "", parameters)


def _parameters(place: str, parameters: object) -> Mapping[str, Json] | None:
    if parameters is None:
        return None
    if not isinstance(parameters, Mapping):
        raise UserError(f"{place} is not an object", hint=_EXAMPLE)
    if parameters.get("type", "object") != "object":
        raise UserError(f"{place} describes no object", hint='its "type" must be "object"')
    if not _is_shallow(parameters):
        raise UserError(f"{place} is nested deeper than {MOST_NESTED} objects and lists")
    return parameters


def _is_shallow(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MOST_NESTED + 1):
        level = [
            inner
            for one in level
            if isinstance(one, Mapping | list)
            for inner in (one.values() if isinstance(one, Mapping) else one)
        ]
    return not level


def _check_size(tools: Sequence[object]) -> None:
    try:
        size = len(json.dumps(tools, ensure_ascii=False, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"tools cannot be written as JSON: {error}") from error
    if size > MOST_OFFERED:
        raise UserError(
            f"tools has {size} characters of JSON, and {MOST_OFFERED} are the most",
            hint="offer fewer, or describe them in fewer words",
        )
