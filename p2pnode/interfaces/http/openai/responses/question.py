"""What the parameters of a response mean to a node."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.openai.params import (
    EXTENSIONS,
    HARMLESS,
    MOST_TOP,
    length_params,
    sampling_params,
)
from p2pnode.interfaces.http.openai.responses.items import conversation_of
from p2pnode.interfaces.http.params import format_params, within_past

Body: TypeAlias = dict[str, Any]

LOGPROBS: Final = "message.output_text.logprobs"
"""What of ``include`` there is."""

_REFUSED: Final = {
    "previous_response_id": "no response is kept; send the whole conversation as input",
    "conversation": "no conversation is kept; send it whole as input",
    "background": "no response is kept; stream it, or wait for it",
    "prompt": "no prompt is kept; send it as input",
}
_KNOWN: Final = (
    EXTENSIONS
    | (HARMLESS - {"reasoning_effort", "verbosity"})
    | _REFUSED.keys()
    | {"model", "input", "instructions", "max_output_tokens", "temperature", "top_p"}
    | {"text", "tools", "tool_choice", "stream", "stream_options", "include", "top_logprobs"}
    | {"reasoning", "truncation", "max_tool_calls", "seed"}
)


def question_of(fields: Fields) -> Body:
    """Return what is to be asked of the node.

    Raises:
        ApiError: A parameter is wrong, unknown, or cannot be met; names it.
    """
    fields.refuse_unknown(_KNOWN)
    for name, why in _REFUSED.items():
        fields.refuse(name, why)
    wanted = fields.inner("text").value("format")
    top = fields.whole("top_logprobs", 0, MOST_TOP, 0)
    check_metadata(fields)
    params = {
        "messages": conversation_of(fields),
        **sampling_params(fields),
        **length_params(fields, "max_output_tokens"),
        **format_params(wanted, "text.format"),
        "logprobs": top if top or LOGPROBS in fields.texts("include") else None,
        "tools": _tools(fields.items("tools")),
        "tool_choice": _choice(fields.value("tool_choice")),
    }
    return within_past(params)


def check_metadata(fields: Fields) -> None:
    """Make sure that what is given back to the client is of the form that it reads.

    Raises:
        ApiError: It is not.
    """
    given = fields.value("metadata")
    if given is None:
        return
    if not isinstance(given, Mapping) or not all(isinstance(one, str) for one in given.values()):
        raise wrong("metadata", "metadata must be an object whose values are strings")


def _tools(given: list[Any] | None) -> list[Body] | None:
    if not given:
        return None
    return [_tool(f"tools[{number}]", tool) for number, tool in enumerate(given)]


def _tool(place: str, tool: object) -> Body:
    """Return a tool in the form of chat completions, which has its function in an object."""
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or kind != "function":
        raise ApiError(
            400,
            f"{place} is of the type {str(kind)[:40]!r}: only functions can be called here",
            code="unsupported_tool",
            param=place,
        )
    function = {name: tool.get(name) for name in ("name", "description", "parameters")}
    return {"type": "function", "function": function}


def _choice(given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    if given.get("type") != "function":
        kinds = '"none", "auto", "required", or {"type": "function", "name": "..."}'
        raise wrong("tool_choice", f"tool_choice must be one of {kinds}")
    return {"type": "function", "function": {"name": given.get("name")}}
