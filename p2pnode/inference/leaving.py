"""What leaves a stage: its hidden states, as the order's type or by a recipe."""

import numpy as np
from numpy.typing import NDArray

from p2pnode.inference.activations import Batch, Piece
from p2pnode.inference.coding import encode_within
from p2pnode.inference.tensor_policy import Coded
from p2pnode.inference.terms import mask_of
from p2pnode.inference.work import Computed, Forward, Recipe
from p2pnode.wire.states import Rung, encode_states
from p2pnode.wire.tensor import activations_to_slices

_MOST_MICRONATS = 10**9  # a thousand nats: the answer is nothing to such a cut


def plain_piece(rows: NDArray[np.float32], work: Forward) -> Piece:
    """Code rows [n, d_model] as the work's type, and nothing coarser."""
    is_f16 = work.out_dtype == "f16"
    return activations_to_slices(rows) if is_f16 else encode_states(rows, Rung.F32)


def coded_by(
    work: Forward, recipe: Recipe, hidden: list[NDArray[np.float32]], spent: int, share: int
) -> Computed:
    """Code ``hidden`` by the recipe; each batch tells what all of the chain has cost it so far."""
    batches: list[Batch] = []
    outcomes: list[Coded] = []
    codings = recipe.codings
    for batch, rows, rungs in zip(work.batches, hidden, recipe.rungs, strict=True):
        pieces, coded = encode_within(rows, rungs, recipe.kl, recipe.calibration)
        codings |= mask_of(coded.rung)
        batches.append(
            Batch(
                batch.start,
                batch.rows,
                pieces,
                batch.compute_us + share,
                batch.micronats + min(round(coded.kl * 1e6), _MOST_MICRONATS),
                batch.codings | codings,
            )
        )
        outcomes.append(coded)
    return Computed(tuple(batches), spent, tuple(outcomes))
