"""The input of a request, as the node reads it: messages."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.openai.messages import content_of

Message: TypeAlias = dict[str, Any]

MOST_ITEMS: Final = 4096

_ROLES: Final = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
_PASSED_OVER: Final = "reasoning"
"""Items that a client gives back, and that say nothing to a model which did not write them."""


def conversation_of(fields: Fields) -> list[Message]:
    """Return ``instructions`` and ``input``; calls of one turn are one message.

    Raises:
        ApiError: An item is none; names which, and what of it.
    """
    said: list[Message] = []
    if instructions := fields.text("instructions", ""):
        said.append({"role": "system", "content": instructions})
    given = fields.value("input")
    if isinstance(given, str):
        return [*said, {"role": "user", "content": given}]
    items = fields.items("input", is_needed=True) or []
    if len(items) > MOST_ITEMS:
        raise wrong("input", f"input has {len(items)} items, and {MOST_ITEMS} are the most")
    for number, item in enumerate(items):
        for message in _messages(f"input[{number}]", item):
            before = said[-1] if said else {}
            if "tool_calls" in message and before.get("role") == "assistant":
                calls = [*before.get("tool_calls", ()), *message["tool_calls"]]
                said[-1] = {**before, "tool_calls": calls}
            else:
                said.append(message)
    return said


def _messages(place: str, item: object) -> Iterator[Message]:
    if not isinstance(item, Mapping):
        raise wrong(place, f"{place} is not an object")
    match item.get("type", "message"):
        case "message":
            yield _message(place, item)
        case "function_call":
            yield {"role": "assistant", "content": None, "tool_calls": [_call(place, item)]}
        case "function_call_output":
            output = content_of(item.get("output"), f"{place}.output")
            if output is None:
                raise wrong(f"{place}.output", f"{place}.output is missing")
            known = _string(item, "call_id", place)
            yield {"role": "tool", "tool_call_id": known, "content": output}
        case kind if kind == _PASSED_OVER:
            pass
        case kind:
            raise ApiError(
                400,
                f"{place} is of the type {str(kind)[:40]!r}: this model reads messages, calls of "
                "functions and what came of them",
                code="unsupported_content",
                param=place,
            )


def _message(place: str, item: Mapping[str, Any]) -> Message:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{place}.role", f"{place}.role must be one of {', '.join(_ROLES)}")
    content = content_of(item.get("content"), f"{place}.content")
    if content is None:
        raise wrong(f"{place}.content", f"{place} has no content")
    return {"role": _ROLES[role], "content": content}


def _call(place: str, item: Mapping[str, Any]) -> Message:
    name, arguments = _string(item, "name", place), _string(item, "arguments", place)
    function = {"name": name, "arguments": arguments}
    return {"id": _string(item, "call_id", place), "type": "function", "function": function}


def _string(item: Mapping[str, Any], name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise wrong(f"{place}.{name}", f"{place}.{name} must be a string")
    return value
