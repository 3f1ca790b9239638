"""Vectors by a model that the swarm serves: the mean of a text's hidden states, of length 1.

Each text goes through a chain as a prompt does, and is mended as an answer is. The last stage
tells the mean (:mod:`p2pnode.inference.means`) and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import trio

from p2pnode.engine.bert.encoder import normalised
from p2pnode.errors import UnknownModelError, UserError
from p2pnode.node.embedder import Embeddings
from p2pnode.node.embedding import check_room
from p2pnode.node.model_cache import find_installed

if TYPE_CHECKING:
    from p2pnode.node.node import Node
    from p2pnode.node.own_model import OwnModel


async def served_as(node: Node, name: str) -> OwnModel | None:
    """Return the model of ``node`` that is called so, by its file, the cache or the catalogue.

    Where ``name`` is empty, the first is meant.

    Raises:
        UnknownModelError: Several could be meant.
    """
    if not name and node.models.first is None:
        return None
    try:
        return node.models.meant(name)
    except UnknownModelError as error:
        if error.is_ambiguous:
            raise
    found = await trio.to_thread.run_sync(find_installed, name)
    paths = () if found is None else found.paths
    return next((one for one in node.models if one.choice.path in paths), None)


async def pooled(node: Node, model: OwnModel, texts: Sequence[str], wait: float) -> Embeddings:
    """Return the vectors of ``texts``, one after the other; each may ``wait`` so long for peers.

    Raises:
        UserError: A text is empty or does not fit the context, there are too many of them, or no
            chain of peers can do it.
    """
    check_room(len(texts), model.info.d_model)
    name = node.models.called().get(model.space, "")
    prompts = [await node.answering.tokens_of(text, name) for text in texts]
    for number, ids in enumerate(prompts):
        if not ids:
            raise UserError(f"text {number + 1} is empty", hint="leave it out")
    means = [await node.answering.mean_of(ids, wait, name) for ids in prompts]
    vectors = normalised(np.stack(means))  # [texts, d_model]
    return Embeddings(vectors, tuple(map(len, prompts)), (False,) * len(prompts))
