"""The messages of a request, as the node reads them: in OpenAI's form, as chat templates do.

A result of a tool is a message of its own there, and a call of one belongs to its message.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields

Message: TypeAlias = dict[str, Any]

MOST_MESSAGES: Final = 4096

_ROLES: Final = ("user", "assistant", "system")
_PASSED_OVER: Final = frozenset({"thinking", "redacted_thinking"})
"""Blocks that a client gives back, and that say nothing to a model which did not write them."""


def conversation_of(fields: Fields) -> list[Message]:
    """Return ``system`` and ``messages``; neighbours of one role are one, as the original has it.

    Raises:
        ApiError: One is none; names which, and what of it.
    """
    given = fields.items("messages", is_needed=True) or []
    if len(given) > MOST_MESSAGES:
        raise wrong("messages", f"messages has {len(given)}, and {MOST_MESSAGES} are the most")
    system = _text(fields.value("system"), "system") if fields.has("system") else ""
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    words = [[one["content"]] for one in said]  # joined at the end: each time would take long
    for number, message in enumerate(given):
        for one in _messages(f"messages.{number}", message):
            if said and _are_one(said[-1], one):
                words[-1].append(one["content"])
            else:
                said.append(one)
                words.append([one["content"]])
    return [
        {**one, "content": "\n".join(parts)} if len(parts) > 1 else one
        for one, parts in zip(said, words, strict=True)
    ]


def goes_on(messages: list[Message]) -> bool:
    """Return whether the last message is the beginning of the answer.

    Raises:
        ApiError: It is, and cannot be gone on with.
    """
    last = messages[-1]
    if last["role"] != "assistant":
        return False
    content = last["content"]
    if "tool_calls" in last:
        raise wrong("messages", "messages: the last one calls tools, and no result follows")
    if content != content.rstrip():
        message = "messages: final assistant content cannot end with trailing whitespace"
        raise wrong("messages", message)
    if len(messages) == 1:
        raise wrong("messages", "messages: at least one message of the user is needed")
    return bool(content)


def _are_one(before: Message, after: Message) -> bool:
    roles = {before["role"], after["role"]}
    return len(roles) == 1 and roles < {"user", "assistant"} and "tool_calls" not in before


def _messages(place: str, message: object) -> Iterator[Message]:
    """Yield what a message comes to: the results of tools in it, then its words and calls."""
    if not isinstance(message, Mapping):
        raise wrong(place, f"{place} must be an object with a role and a content")
    role = message.get("role")
    if role not in _ROLES:
        raise wrong(f"{place}.role", f"{place}.role must be one of {', '.join(_ROLES)}")
    content = message.get("content")
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    if not isinstance(content, list):
        raise wrong(f"{place}.content", f"{place}.content must be a string or a list of blocks")
    texts: list[str] = []
    calls: list[Message] = []
    for number, block in enumerate(content):
        at = f"{place}.content.{number}"
        kind = block.get("type") if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping) or not isinstance(kind, str):
            raise wrong(at, f"{at} must be an object with a type")
        if kind == "text":
            texts.append(_string(block, "text", at))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_call(block, at))
        elif kind == "tool_result" and role == "user":
            yield _result(block, at)
        elif kind not in _PASSED_OVER:
            raise _foreign(at, kind)
    if calls:
        yield {"role": role, "content": "\n".join(texts) or None, "tool_calls": calls}
    elif texts:
        yield {"role": role, "content": "\n".join(texts)}


def _call(block: Mapping[str, Any], place: str) -> Message:
    given = block.get("input")
    if not isinstance(given, Mapping):
        raise wrong(f"{place}.input", f"{place}.input must be an object")
    function = {"name": _string(block, "name", place), "arguments": json.dumps(given)}
    return {"id": _string(block, "id", place), "type": "function", "function": function}


def _result(block: Mapping[str, Any], place: str) -> Message:
    content = block.get("content")
    text = "" if content is None else _text(content, f"{place}.content")
    return {"role": "tool", "tool_call_id": _string(block, "tool_use_id", place), "content": text}


def _text(content: object, place: str) -> str:
    """Return the words of a content that is a string or has blocks of text alone."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(place, f"{place} must be a string or a list of blocks")
    texts: list[str] = []
    for number, block in enumerate(content):
        at = f"{place}.{number}"
        kind = block.get("type") if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping) or kind != "text":
            raise _foreign(at, str(kind))
        texts.append(_string(block, "text", at))
    return "\n".join(texts)


def _string(block: Mapping[str, Any], name: str, place: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise wrong(f"{place}.{name}", f"{place}.{name} must be a string")
    return value


def _foreign(place: str, kind: str) -> ApiError:
    return ApiError(
        400,
        f"{place} is of the type {kind[:40]!r}: this model reads text, and results of tools",
        code="unsupported_content",
        param=place,
    )
