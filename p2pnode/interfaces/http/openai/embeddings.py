"""``/v1/embeddings``."""

from typing import Any, Final, TypeAlias

from p2pnode.interfaces.http.embedding import vectors_of
from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.node_link import NodeLink

Body: TypeAlias = dict[str, Any]

_KNOWN: Final = frozenset({"model", "input", "encoding_format", "dimensions", "user"})


async def embeddings_body(link: NodeLink, fields: Fields) -> Body:
    """Return the vectors of a request's texts.

    Raises:
        ApiError: A parameter is wrong, unknown, or cannot be met; names it.
    """
    fields.refuse_unknown(_KNOWN)
    made = await vectors_of(
        link,
        fields.text("model"),
        _texts(fields),
        dimensions=fields.whole("dimensions", 1, 2**20, None),
        encoding=fields.choice("encoding_format", ("float", "base64"), "float"),
    )
    data = [
        {"object": "embedding", "index": number, "embedding": vector}
        for number, vector in enumerate(made.vectors)
    ]
    usage = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    return {"object": "list", "data": data, "model": made.model, "usage": usage}


def embedder_body(name: str) -> Body:
    """Return a model that was made for vectors, as OpenAI lists one."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "p2pnode"}


def _texts(fields: Fields) -> list[str]:
    given = fields.value("input")
    items = [given] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise wrong("input", "input must be a string, or a list of strings that is not empty")
    for number, one in enumerate(items):
        if not isinstance(one, str):
            raise ApiError(
                400,
                f"input[{number}] is no string: send text, not tokens, which each model has its "
                "own of",
                code="invalid_value",
                param="input",
            )
        if not one:
            raise wrong("input", f"input[{number}] is empty")
    return items
