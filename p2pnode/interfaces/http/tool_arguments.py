"""Calls of tools in APIs that have their arguments as an object."""

import json
from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]


def arguments_of(call: Body) -> Body:
    """Return the arguments of a call, which the node has as the text of a JSON object.

    What a model wrote may be read and not be written again, nor be read by clients: a number beyond
    all range, or thousands of digits of one, or half a character. It stays the text that it is.
    """
    try:
        given = json.loads(call["arguments"] or "{}")
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        given = None
    return given if isinstance(given, dict) else {"arguments": call["arguments"]}
