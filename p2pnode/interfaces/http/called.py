"""Calls of tools in APIs that have their arguments as an object."""

import json
from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]


def arguments_of(call: Body) -> Body:
    """Return the arguments of a call, which the node has as the text of a JSON object."""
    try:
        given = json.loads(call["arguments"] or "{}")
    except (ValueError, RecursionError):  # a number of thousands of digits
        given = None
    return given if isinstance(given, dict) else {"arguments": call["arguments"]}
