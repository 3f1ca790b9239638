"""What Anthropic's parameters mean to a node."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from p2pnode.engine.sampling.options import MOST_TOP_K
from p2pnode.interfaces.http.anthropic.conversation import conversation_of, goes_on
from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.params import (
    MOST_TOKENS,
    WAIT,
    format_params,
    seed_of,
    stops_of,
    within_past,
)

Body: TypeAlias = dict[str, Any]

_SAID: Final = frozenset({"model", "messages", "system", "tools", "tool_choice"})
_HARMLESS: Final = frozenset({"metadata", "service_tier", "cache_control", "thinking", "speed"})
"""Parameters that change nothing of what a client reads here."""

_REFUSED: Final = {
    "container": "nothing is run here, and no file kept",
    "mcp_servers": "the model calls tools of its client alone",
}
_COUNTED: Final = _SAID | _HARMLESS | _REFUSED.keys() | {"output_config"}
_KNOWN: Final = _COUNTED | {"max_tokens", "stop_sequences", "stream", "temperature"}
_EXTENSIONS: Final = frozenset({"top_k", "top_p", "seed", "wait"})
_BETA: Final = frozenset({"context_management", "diagnostics", "inference_geo", "betas"})
"""Parameters of trials: a client that names one in ``anthropic-beta`` may send its own, too."""

_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def question_of(fields: Fields, *, is_beta: bool = False) -> Body:
    """Return what is to be asked of the node.

    Args:
        fields: The request's.
        is_beta: Whether the client takes part in trials of the original's.

    Raises:
        ApiError: A parameter is wrong, unknown, or cannot be met; names it.
    """
    fields.refuse_unknown(_KNOWN | _EXTENSIONS | (_BETA if is_beta else frozenset()))
    longest = fields.whole("max_tokens", 1, MOST_TOKENS, None)
    if longest is None:
        raise ApiError(400, "max_tokens is missing", code="missing_parameter", param="max_tokens")
    params = {
        **_said(fields),
        "max_tokens": longest,
        "temperature": fields.number("temperature", 0, 1, 1.0),
        "top_p": max(1e-6, fields.number("top_p", 0, 1, 1.0)),
        "top_k": max(0, fields.whole("top_k", -1, MOST_TOP_K, 0) or 0),
        "stop": stops_of(fields, "stop_sequences"),
        "seed": seed_of(fields),
        "wait": fields.number("wait", 0, 3600, WAIT),
        **format_params(fields.inner("output_config").value("format"), "output_config.format"),
    }
    return within_past(params)


def counted_question_of(fields: Fields, *, is_beta: bool = False) -> Body:
    """Return what is to be counted.

    Raises:
        ApiError: A parameter is wrong, unknown, or cannot be met; names it.
    """
    fields.refuse_unknown(_COUNTED | (_BETA if is_beta else frozenset()))
    return _said(fields)


def _said(fields: Fields) -> Body:
    for name, why in _REFUSED.items():
        fields.refuse(name, why)
    messages = conversation_of(fields)
    if not messages or messages[-1]["role"] == "system":
        raise wrong("messages", "messages: at least one message of the user is needed")
    return {
        "messages": messages,
        "goes_on": goes_on(messages),
        "tools": _tools(fields.items("tools")),
        "tool_choice": _choice(fields),
    }


def _tools(given: list[Any] | None) -> list[Body] | None:
    if not given:
        return None
    return [_tool(f"tools.{number}", tool) for number, tool in enumerate(given)]


def _tool(place: str, tool: object) -> Body:
    if not isinstance(tool, Mapping):
        raise wrong(place, f"{place} must be an object")
    kind = tool.get("type")
    if kind not in (None, "custom"):
        raise ApiError(
            400,
            f"{place} is of the type {str(kind)[:40]!r}, which the original runs by itself: "
            "this server has only those that the client runs",
            code="unsupported_tool",
            param=place,
        )
    if "input_schema" not in tool:
        at = f"{place}.input_schema"
        raise ApiError(400, f"{at} is missing", code="missing_parameter", param=at)
    function = {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool["input_schema"],
    }
    return {"type": "function", "function": function}


def _choice(fields: Fields) -> object:
    given = fields.value("tool_choice")
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, Mapping) else None
    if isinstance(kind, str) and kind in _CHOICES:
        return _CHOICES[kind]
    name = given.get("name") if isinstance(given, Mapping) else None
    if kind != "tool" or not isinstance(name, str):
        known = 'one of {"type": "auto"}, "any", "none", or {"type": "tool", "name": "..."}'
        raise wrong("tool_choice", f"tool_choice must be {known}")
    return {"type": "function", "function": {"name": name}}
