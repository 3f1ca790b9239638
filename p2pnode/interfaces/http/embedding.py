"""Texts turned into vectors, by a model made for it or by the served one."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.node_link import NodeLink
from p2pnode.node.catalogue import KNOWN_MODELS, known_model
from p2pnode.node.model_cache import is_missing

MOST_TEXTS: Final = 2048
"""In a request, as the original of OpenAI has it."""

_AT_ONCE: Final = 32  # texts in a request to the node: vectors of any model fit its answer


@dataclass(frozen=True, slots=True)
class Vectors:
    """What became of some texts, in their order.

    Attributes:
        model: Who read them.
        vectors: Each of length 1: numbers, or base64 of float32, little-endian.
        tokens: Of all texts together.
        truncated: Whether each text went on beyond what was read.
        nanoseconds: That it took.
    """

    model: str
    vectors: list[Any]
    tokens: int
    truncated: list[bool]
    nanoseconds: int


async def vectors_of(
    link: NodeLink,
    name: str,
    texts: Sequence[str],
    *,
    dimensions: int | None = None,
    encoding: str = "float",
) -> Vectors:
    """Return the vectors of ``texts``.

    Raises:
        ApiError: The model is not here, the texts are too many, or ``dimensions`` are not its own.
    """
    if len(texts) > MOST_TEXTS:
        raise wrong("input", f"input has {len(texts)} texts, and {MOST_TEXTS} are the most")
    model = await _meant(link, name)
    began, made = time.perf_counter_ns(), Vectors(model, [], 0, [], 0)
    for first in range(0, len(texts), _AT_ONCE):
        group = list(texts[first : first + _AT_ONCE])
        asked = {"model": model, "texts": group, "encoding_format": encoding}
        told = await link.call("embed", asked, seconds=None)
        if dimensions not in (None, told["dimensions"]):
            has = f"{model} makes {told['dimensions']} of them"
            raise wrong("dimensions", f"dimensions must be left out: {has}")
        made = Vectors(
            model,
            made.vectors + told["embeddings"],
            made.tokens + told["tokens"],
            made.truncated + told["truncated"],
            time.perf_counter_ns() - began,
        )
    return made


def embedders() -> list[str]:
    """Return the models of this machine that were made for it, by name."""
    made_for_it = (model.name for model in KNOWN_MODELS.values() if model.is_embedder)
    return [name for name in made_for_it if not is_missing(name)]


async def _meant(link: NodeLink, name: str) -> str:
    """Return the model that ``name`` means.

    Raises:
        ApiError: There is none; names those that there are.
    """
    plain = name.casefold().removesuffix(":latest")
    here, known = await asyncio.to_thread(embedders), known_model(plain)
    if known is not None and known.name in here:
        return known.name
    models = await link.models()
    with suppress(ApiError):
        return str((await link.model_called(name))["name"])
    there = ", ".join([*here, *(str(model["name"]) for model in models)]) or "none"
    more = "" if here else "; p2pnode models pull minilm makes one that is made for it"
    raise ApiError(
        404,
        f"no model {name[:100]!r} makes vectors here; there is: {there}{more}",
        code="model_not_found",
        param="model",
    )
