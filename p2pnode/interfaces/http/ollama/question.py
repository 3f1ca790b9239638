"""What Ollama's parameters mean to a node. Unknown ones are passed over, as the original does."""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from p2pnode.engine.sampling.options import MOST_TOP_K
from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.params import (
    MAX_TOKENS,
    MOST_PAST,
    MOST_TOKENS,
    WAIT,
    seed_of,
    stops_of,
    within_past,
)
from p2pnode.text.tool_calls.formats import format_of

Body: TypeAlias = dict[str, Any]

MOST_TOP: Final = 20
MOST_MESSAGES: Final = 4096

_ROLES: Final = ("system", "user", "assistant", "tool")
_USUAL_PAST: Final = 64
_REACH: Final = 4096  # tokens that penalties look back on where it is "the context"


def chat_question_of(fields: Fields, model: Body) -> Body | None:
    """Return what is to be asked of the node; None where nothing is said, which loads a model.

    Raises:
        ApiError: A parameter is wrong, or cannot be met; names it.
    """
    given = fields.items("messages")
    if not given:
        return None
    if len(given) > MOST_MESSAGES:
        raise wrong("messages", f"messages has {len(given)}, and {MOST_MESSAGES} are the most")
    messages = [_message(f"messages[{number}]", one) for number, one in enumerate(given)]
    last = messages[-1]
    goes_on = len(messages) > 1 and last["role"] == "assistant" and "tool_calls" not in last
    tools = fields.items("tools") or None
    if tools and not teaches_tools(model):
        message = f"{model['name']} does not support tools"
        raise ApiError(400, message, code="unsupported_parameter", param="tools")
    return {
        "messages": messages,
        "goes_on": goes_on and bool(last["content"]),
        "tools": tools,
        **_params(fields, model),
    }


def generate_question_of(fields: Fields, model: Body) -> Body | None:
    """Return what is to be asked of the node; None where nothing is said, which loads a model.

    Raises:
        ApiError: A parameter is wrong, or cannot be met; names it.
    """
    fields.refuse("suffix", "this model goes on, and fills no gap")
    fields.refuse("template", "the model's own is used; with raw none is")
    fields.refuse("context", "send the conversation to /api/chat")
    prompt, system = fields.text("prompt", ""), fields.text("system", "")
    if not prompt:
        return None
    if fields.flag("raw"):
        return {"prompt": prompt, "raw": True, **_params(fields, model)}
    said = [{"role": "system", "content": system}] if system else []
    messages = [*said, {"role": "user", "content": prompt}]
    return {"messages": messages, **_params(fields, model)}


def teaches_tools(model: Body) -> bool:
    """Return whether the model's template taught it to write calls of tools."""
    return format_of(model["template"]) is not None


def _params(fields: Fields, model: Body) -> Body:
    fields.refuse("images", "this model reads text only")
    if fields.value("think") not in (None, False):
        message = f"{model['name']} does not support thinking"
        raise ApiError(400, message, code="unsupported_parameter", param="think")
    top = fields.whole("top_logprobs", 0, MOST_TOP, 0)
    params = {
        **_drawn(fields.inner("options"), model),
        **_form(fields.value("format")),
        "logprobs": top if fields.flag("logprobs") else None,
        "wait": WAIT,
    }
    return within_past(params)


def _drawn(options: Fields, model: Body) -> Body:
    """Return how tokens are drawn, and how many; the defaults are Ollama's."""
    past = options.whole("repeat_last_n", -1, MOST_TOKENS, _USUAL_PAST) or 0
    reach = _REACH if past < 0 else max(1, min(past, MOST_PAST))
    return {
        "temperature": options.number("temperature", 0, 100, 0.8),
        "top_k": max(0, options.whole("top_k", -1, MOST_TOP_K, 40) or 0),
        "top_p": min(1.0, max(1e-6, options.number("top_p", 0, 1, 0.9))),
        "min_p": options.number("min_p", 0, 1, 0.0),
        "repetition_penalty": options.number("repeat_penalty", 0.1, 10, 1.1) if past else 1.0,
        "presence_penalty": options.number("presence_penalty", -2, 2, 0.0) if past else 0.0,
        "frequency_penalty": options.number("frequency_penalty", -2, 2, 0.0) if past else 0.0,
        "penalty_last_n": reach,
        "seed": seed_of(options),
        "stop": stops_of(options, "stop"),
        "max_tokens": _length(options, model),
    }


def _length(options: Fields, model: Body) -> int:
    """Return the most tokens: -1 is as many as is usual, -2 all that the context has room for."""
    asked = options.whole("num_predict", -2, MOST_TOKENS, -1)
    if asked == -2:
        return int(model["context_length"])
    return MAX_TOKENS if asked is None or asked == -1 else max(1, asked)


def _form(wanted: object) -> Body:
    if wanted in (None, ""):
        return {}
    if wanted == "json":
        return {"json_mode": True}
    if isinstance(wanted, Mapping):
        return {"schema": wanted}
    raise wrong("format", 'format must be "json" or a JSON schema')


def _message(place: str, message: object) -> Body:
    if not isinstance(message, Mapping):
        raise wrong(place, f"{place} must be an object with a role and a content")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise wrong(f"{place}.role", f"{place}.role must be one of {', '.join(_ROLES)}")
    if message.get("images"):
        raise ApiError(
            400,
            f"{place}.images cannot be had here: this model reads text only",
            code="unsupported_content",
            param="messages",
        )
    if not isinstance(content, str | None):
        raise wrong(f"{place}.content", f"{place}.content must be a string")
    said: Body = {"role": role, "content": content or ""}
    calls = message.get("tool_calls")
    if role == "assistant" and calls:
        said["tool_calls"] = _calls(f"{place}.tool_calls", calls)
    if role == "tool" and isinstance(name := message.get("tool_name"), str):
        said["name"] = name
    return said


def _calls(place: str, calls: object) -> list[Body]:
    if not isinstance(calls, list):
        raise wrong(place, f"{place} must be a list")
    return [_call(f"{place}[{number}]", call) for number, call in enumerate(calls)]


def _call(place: str, call: object) -> Body:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        raise wrong(place, f"{place} must be an object with a function and its name")
    arguments = function.get("arguments")
    if not isinstance(arguments, Mapping | None):
        raise wrong(place, f"{place}.function.arguments must be an object")
    text = json.dumps(arguments or {})
    return {"type": "function", "function": {"name": name, "arguments": text}}
