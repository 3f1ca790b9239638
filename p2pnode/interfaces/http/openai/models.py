"""``/v1/models``."""

from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]


def model_body(model: Body) -> Body:
    """Return a model as OpenAI lists it, with how far its context reaches."""
    return {
        "id": model["name"],
        "object": "model",
        "created": int(model["modified"]),
        "owned_by": "p2pnode",
        "context_length": model["context_length"],
    }
