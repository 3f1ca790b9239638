"""Models as Ollama's API lists and shows them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.ollama.question import teaches_tools

Body: TypeAlias = dict[str, Any]

_FOREVER: Final = timedelta(days=36500)
_UNITS: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def tag_of(name: str) -> str:
    """Return a model's name as Ollama has it: with a tag."""
    return name if ":" in name else f"{name}:latest"


def listed_body(model: Body) -> Body:
    name = tag_of(model["name"])
    return {
        "name": name,
        "model": name,
        "modified_at": _moment(model),
        "size": model["bytes"],
        "digest": model["root"],
        "details": _details(model),
    }


def running_body(model: Body) -> Body:
    """Return a model as one that is in memory; where in the swarm, nobody here says."""
    listed = listed_body(model)
    del listed["modified_at"]
    until = (datetime.now(UTC) + _FOREVER).isoformat().replace("+00:00", "Z")
    return {
        **listed,
        "expires_at": until,
        "size_vram": 0,
        "context_length": model["context_length"],
    }


def shown_body(model: Body) -> Body:
    """Return all that is known of a model."""
    family = model["architecture"]
    tools = ["tools"] if teaches_tools(model) else []
    chats = bool(model["template"])
    return {
        "modelfile": f"# of a swarm of p2pnode\nFROM {tag_of(model['name'])}\n",
        "parameters": "",
        "template": model["template"],
        "license": model["licence"],
        "modified_at": _moment(model),
        "details": _details(model),
        "model_info": {
            "general.architecture": family,
            "general.basename": model["title"] or model["name"],
            "general.parameter_count": model["parameters"],
            f"{family}.block_count": model["layers"],
            f"{family}.context_length": model["context_length"],
            f"{family}.embedding_length": model["d_model"],
            f"{family}.vocab_size": model["vocabulary"],
        },
        "capabilities": ["completion", *(tools if chats else [])],
    }


def _details(model: Body) -> Body:
    family = model["architecture"]
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": _size(model["parameters"]),
        "quantization_level": model["quantisation"],
    }


def _size(parameters: int) -> str:
    for unit, letter in _UNITS:
        if parameters >= unit:
            return f"{parameters / unit:.1f}{letter}"
    return f"{parameters}"


def _moment(model: Body) -> str:
    return datetime.fromtimestamp(model["modified"], UTC).isoformat().replace("+00:00", "Z")
