"""Calls of before, and what came of them, as chat templates read them.

OpenAI's API has the arguments of a call as a text of JSON, templates as an object. Some templates
ask for more, which a conversation that came over the API may not have: Mistral's for ids of nine
letters and digits, Llama 3's for one call a message.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

from p2pnode.errors import UserError
from p2pnode.text.history import Message
from p2pnode.text.tool_calls.call_json import object_text
from p2pnode.text.tool_calls.formats import ToolFormat
from p2pnode.text.tool_calls.json_scan import MOST_CALL
from p2pnode.text.tool_calls.source import MOST_CALLS

_EXAMPLE: Final = (
    'a call is {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}'
)
_SHORT_ID: Final = 9  # of mistral-common's validator


def for_template(messages: Sequence[object], kind: ToolFormat | None = None) -> list[Message]:
    """Return a conversation in OpenAI's form as templates read it.

    Arguments that are the text of a JSON object become the object, and no text an empty one; other
    texts stay. ``tool_calls`` that has no calls is left out.

    Args:
        messages: The conversation; of a message, only its calls are looked at.
        kind: How the template teaches to write calls.

    Raises:
        UserError: A message is none, or its calls are not of that form, or too many; names it.
    """
    read = [_message(number, message) for number, message in enumerate(messages, 1)]
    if kind is ToolFormat.MISTRAL:
        return _with_short_ids(read)
    return list(_one_call_each(read)) if kind is ToolFormat.LLAMA else read


def _message(number: int, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise UserError(
            f"message {number} is none", hint='a message is {"role": "user", "content": "..."}'
        )
    if "tool_calls" not in message:
        return message
    calls = message["tool_calls"]
    if not calls:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    place = f"message {number}"
    if not isinstance(calls, list) or len(calls) > MOST_CALLS:
        raise UserError(
            f"the tool_calls of {place} are not a list of up to {MOST_CALLS} calls", hint=_EXAMPLE
        )
    read = [_call(f"tool call {at} of {place}", call) for at, call in enumerate(calls, 1)]
    return {**message, "tool_calls": read}


def _call(place: str, call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise UserError(f"{place} has no function", hint=_EXAMPLE)
    name, known = function.get("name"), call.get("id")
    if not isinstance(name, str):
        raise UserError(f"{place} has no name", hint=_EXAMPLE)
    if not isinstance(known, str | None):
        raise UserError(f"the id of {place} is not a text", hint=_EXAMPLE)
    arguments = _arguments(place, function.get("arguments"))
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": known, **made} if known else made


def _arguments(place: str, arguments: object) -> object:
    if arguments is None:
        return {}
    if isinstance(arguments, Mapping):
        return arguments
    if not isinstance(arguments, str):
        raise UserError(f"the arguments of {place} are neither a text nor an object", hint=_EXAMPLE)
    if len(arguments) > MOST_CALL:
        raise UserError(
            f"the arguments of {place} have {len(arguments)} characters, "
            f"and {MOST_CALL} are the most"
        )
    if not arguments.strip():
        return {}
    written = object_text(arguments)
    try:
        return arguments if written is None else json.loads(written)
    except ValueError:  # a number of thousands of digits
        return arguments


def _with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Give calls ids of nine letters and digits, and results those of their calls.

    An id that is one stays. Calls that have none, and results that name none, are counted.
    """
    known: dict[str, str] = {}
    calls, results = count(), count()
    made: list[Message] = []
    for message in messages:
        changed = dict(message)
        if "tool_calls" in message:
            changed["tool_calls"] = [
                {"id": _short(call.get("id") or f"call {next(calls)}", known), **_but_id(call)}
                for call in message["tool_calls"]
            ]
        if message.get("role") == "tool":
            named = message.get("tool_call_id") or f"call {next(results)}"
            changed["tool_call_id"] = _short(str(named), known)
        made.append(changed)
    return made


def _but_id(call: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != "id"}


def _short(named: str, known: dict[str, str]) -> str:
    if len(named) == _SHORT_ID and named.isascii() and named.isalnum():
        return named
    return known.setdefault(named, f"call{len(known):05}")


def _one_call_each(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield a message for each call, its result behind it, where one message has several."""
    left = deque(messages)
    while left:
        message = left.popleft()
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            yield message
            continue
        results: list[Message] = []
        while left and left[0].get("role") == "tool":
            results.append(left.popleft())
        for number, call in enumerate(calls):
            said = {} if number else {"content": message.get("content")}
            yield {**message, "content": None, **said, "tool_calls": [call]}
            if (at := _result_of(call, results)) is not None:
                yield results.pop(at)
        yield from results


def _result_of(call: Mapping[str, Any], results: Sequence[Message]) -> int | None:
    """Return which of ``results`` is a call's: the one that names it, or names none."""
    for at, result in enumerate(results):
        if result.get("tool_call_id") in (None, call.get("id")):
            return at
    return None
