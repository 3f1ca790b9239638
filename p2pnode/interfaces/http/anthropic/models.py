"""``/v1/models`` as Anthropic has it: a client says that it wants it so by its version header."""

from datetime import UTC, datetime
from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]


def model_body(model: Body) -> Body:
    return {
        "type": "model",
        "id": model["name"],
        "display_name": model["title"] or model["name"],
        "created_at": datetime.fromtimestamp(int(model["modified"]), UTC).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": model["context_length"],
        "max_tokens": model["context_length"],
    }


def listed_body(models: list[Body]) -> Body:
    """Return a page of models, which is all of them."""
    names = [one["name"] for one in models]
    return {
        "data": [model_body(one) for one in models],
        "has_more": False,
        "first_id": next(iter(names), None),
        "last_id": next(reversed(names), None),
    }
