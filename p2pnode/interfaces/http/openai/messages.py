"""The messages of a conversation, checked before the node reads them."""

from collections.abc import Mapping
from typing import Any, Final

from p2pnode.interfaces.http.errors import ApiError, wrong

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
MOST_MESSAGES: Final = 4096
_TEXTS: Final = frozenset({"text", "input_text", "output_text", "refusal"})


def messages_of(given: list[Any]) -> list[dict[str, Any]]:
    """Return the messages as chat templates read them.

    ``developer`` is what newer models of OpenAI call ``system``; templates know only that.

    Raises:
        ApiError: One is none; names which, and what of it.
    """
    if len(given) > MOST_MESSAGES:
        raise wrong("messages", f"messages has {len(given)}, and {MOST_MESSAGES} are the most")
    return [_message(f"messages[{number}]", one) for number, one in enumerate(given)]


def _message(place: str, message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise wrong(place, f"{place} is not an object with a role and a content")
    role = message.get("role")
    if role not in ROLES:
        raise wrong(f"{place}.role", f"{place}.role must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if content is None and not (role == "assistant" and message.get("tool_calls")):
        raise wrong(f"{place}.content", f"{place} has no content")
    kept = {key: message[key] for key in ("tool_calls", "tool_call_id", "name") if message.get(key)}
    known = "system" if role == "developer" else role
    return {"role": known, "content": content_of(content, f"{place}.content"), **kept}


def content_of(content: object, place: str) -> object:
    """Return a content as the node takes it: a text, or a list of text parts.

    Raises:
        ApiError: It is something else.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(place, f"{place} must be a string or a list of parts")
    return [_part(f"{place}[{number}]", part) for number, part in enumerate(content)]


def _part(place: str, part: object) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str) or kind not in _TEXTS:
        shown = str(kind)[:40]
        raise ApiError(
            400,
            f"{place} is of the type {shown!r}: this model reads text only",
            code="unsupported_content",
            param=place,
        )
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise wrong(f"{place}.text", f"{place}.text must be a string")
    return {"type": "text", "text": text}
