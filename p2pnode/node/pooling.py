"""Vectors by the model that the swarm serves: the mean of a text's hidden states, of length 1.

Each text goes through a chain as a prompt does, and is mended as an answer is. The last stage
tells the mean (:mod:`p2pnode.inference.means`) and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import trio

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.bert.encoder import normalised
from p2pnode.errors import UserError
from p2pnode.node.catalogue import known_model
from p2pnode.node.embedder import Embeddings
from p2pnode.node.embedding import check_room
from p2pnode.node.model_cache import find_installed

if TYPE_CHECKING:
    from p2pnode.node.node import Node


async def served_as(node: Node, name: str) -> ModelInfo | None:
    """Return the model of ``node`` where it is called so, by its file, the cache or the catalogue.

    Where ``name`` is empty, any model is meant.
    """
    model, known = node.model, known_model(name)
    wanted = (known.name if known else name).casefold()
    if model is None or wanted in ("", model.name.casefold()):
        return model
    found = await trio.to_thread.run_sync(find_installed, name)
    return model if found is not None and node.settings.model in found.paths else None


async def pooled(node: Node, model: ModelInfo, texts: Sequence[str], wait: float) -> Embeddings:
    """Return the vectors of ``texts``, one after the other; each may ``wait`` so long for peers.

    Raises:
        UserError: A text is empty or does not fit the context, there are too many of them, or no
            chain of peers can do it.
    """
    check_room(len(texts), model.d_model)
    prompts = [await node.answering.tokens_of(text) for text in texts]
    for number, ids in enumerate(prompts):
        if not ids:
            raise UserError(f"text {number + 1} is empty", hint="leave it out")
    means = [await node.answering.mean_of(ids, wait) for ids in prompts]
    vectors = normalised(np.stack(means))  # [texts, d_model]
    return Embeddings(vectors, tuple(map(len, prompts)), (False,) * len(prompts))
