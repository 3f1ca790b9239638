"""Vectors for whoever asks a running node: computed off the loop, a step at a time.

Requests take turns, step by step: a long one holds nobody up for longer than a step. The model is
read with the first of them, and kept.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import trio

from p2pnode.engine.base import Floats
from p2pnode.errors import UserError
from p2pnode.net.control_lines import MAX_LINE, Rendered, render
from p2pnode.node.catalogue import KNOWN_MODELS, KnownModel, known_model
from p2pnode.node.embedder import Embedder, Embeddings, check_count, joined

WAITING: Final = 16
"""Requests under way at the most; each may take a minute and a half."""

_DIGITS: Final = 9  # behind the point; a number of a vector of length 1 is at most 1
_LETTERS: Final = _DIGITS + 4  # that a number takes in JSON
_ROOM: Final = 65_536  # of a line, for what else is in it


class Embedding:
    """Turns texts into vectors for a node.

    Args:
        open_model: Reads a model; called in a thread.
    """

    def __init__(self, open_model: Callable[[KnownModel], Embedder] = Embedder.open) -> None:
        self._open = open_model
        self._turn = trio.Lock()
        self._embedder: Embedder | None = None
        self._asked = 0

    async def embed(self, known: KnownModel, texts: Sequence[str]) -> Embeddings:
        """Return the vectors of ``texts``; if cancelled, it ends with the step under way.

        Raises:
            UserError: The model is not here, the texts cannot be read, or too many ask at once.
        """
        check_count(texts)
        if self._asked >= WAITING:
            raise UserError("too many ask for vectors here", hint="try again in a moment")
        self._asked += 1
        try:
            return await self._embed(known, texts)
        finally:
            self._asked -= 1

    async def _embed(self, known: KnownModel, texts: Sequence[str]) -> Embeddings:
        embedder, parts = self._embedder or await self._read(known), list[Embeddings]()
        steps = embedder.steps(texts)
        while True:
            async with self._turn:
                part = await trio.to_thread.run_sync(next, steps, None)
            if part is None:
                return joined(parts, embedder.dimensions)
            parts.append(part)

    async def _read(self, known: KnownModel) -> Embedder:
        """Read the model, unless another request did so meanwhile."""
        async with self._turn:
            if self._embedder is None:
                self._embedder = await trio.to_thread.run_sync(self._open, known)
            return self._embedder


def embedder_called(name: str) -> KnownModel | None:
    """Return the known model of this name that turns texts into vectors."""
    known = known_model(name)
    return known if known is not None and known.is_embedder else None


def texts_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts of a request.

    Raises:
        UserError: There are none, or they are none.
    """
    texts = params.get("texts")
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise UserError("texts must be a list of texts, at least one")
    return tuple(texts)


def no_embedder(name: str, *served: str) -> UserError:
    """Return the error for a model that turns no text into vectors; those ``served`` here do."""
    known = [*(model.name for model in KNOWN_MODELS.values() if model.is_embedder), *served]
    return UserError(f"no model {name[:100]!r} makes vectors here", hint=f"use {', '.join(known)}")


async def result_of(name: str, made: Embeddings, params: Mapping[str, Any]) -> Rendered:
    """Return what a face hears, as JSON; ``encoding_format`` says how numbers are written.

    ``float``: as numbers, rounded to 9 digits behind the point. ``base64``: float32,
    little-endian, as they are.

    Raises:
        UserError: There is no such format, or the vectors do not fit a line.
    """
    encoding = params.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise UserError(f"no encoding_format: {encoding!r:.40}", hint="one of float, base64")
    check_room(len(made.tokens), made.vectors.shape[1])
    return await trio.to_thread.run_sync(_rendered, name, made, encoding == "base64")


def check_room(texts: int, dimensions: int) -> None:
    """Refuse more vectors than a line of the control socket holds.

    Raises:
        UserError: They are more.
    """
    most = (MAX_LINE - _ROOM) // (dimensions * _LETTERS)
    if texts > most:
        raise UserError(
            f"{texts} vectors of {dimensions} numbers at once are too many",
            hint=f"give {most} texts at a time",
        )


def _rendered(name: str, made: Embeddings, in_base64: bool) -> Rendered:
    facts = facts_of(name, made)
    return render(facts | {"embeddings": _in_base64(made.vectors)} if in_base64 else facts)


def facts_of(name: str, made: Embeddings) -> dict[str, Any]:
    """Return what a person or a face hears of the vectors that the model ``name`` made."""
    return {
        "model": name,
        "dimensions": made.vectors.shape[1],
        "embeddings": _numbers(made.vectors),
        "tokens": sum(made.tokens),
        "tokens_each": list(made.tokens),
        "truncated": list(made.truncated),
    }


def _numbers(vectors: Floats) -> list[list[float]]:
    """Return vectors [n, d_model] as JSON has them."""
    rounded: list[list[float]] = np.round(vectors.astype(np.float64), _DIGITS).tolist()
    return rounded


def _in_base64(vectors: Floats) -> list[str]:
    return [b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
