"""What is asked of the text process: how large it is, and its bytes."""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from p2pnode.terminal import whole

Request: TypeAlias = Mapping[str, Any]

_LONG: Final = 1 << 16  # characters of a request that a thread writes out: 0.3 ms
_ITEM: Final = 16  # characters that an item of a request counts as, besides its text


def letters_that_stay(asked: Request) -> int:
    """Return how long the text is that no cutting of the history removes."""
    if "text" in asked:
        return len(asked["text"])
    last = asked["messages"][-1] if asked["messages"] else None
    content = last.get("content") if isinstance(last, dict) else None
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return sum(len(text) for text in texts if isinstance(text, str))


def is_long(request: Request) -> bool:
    """Whether writing ``request`` out takes long; looks at no more of it than that takes."""
    left, values = _LONG, [*request.values()]
    while values and left > 0:
        value = values.pop()
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, dict | list):
            left -= _ITEM * len(value)
            if left > 0:
                values += [*value, *value.values()] if isinstance(value, dict) else value
    return left <= 0


def body_of(request: Request) -> bytes:
    """Return ``request`` as JSON; half of a character pair is no text, and is replaced."""
    return whole(json.dumps(request, ensure_ascii=False)).encode()
