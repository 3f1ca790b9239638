"""What an engine is given and what comes of it: numbers that a model could mean, or none at all."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from p2pnode.errors import GenerationError, RemoteProtocolError
from p2pnode.inference.activations import Batch
from p2pnode.inference.coding import decode_pieces_untrusted
from p2pnode.wire.calibration import Calibration

MOST_RMS: Final = 32768.0
"""The root mean square of a hidden state beyond which it is no model's. The largest measured is
964 (SmolLM2-135M at token 0, one channel at 23,140); a million in one of 4096 still fits."""

LOUD_RMS: Final = MOST_RMS / 8
"""Beyond, four times the largest measured, what came in is to blame for what an engine cannot make
of it: else a state just below the most has any honest stage that adds to it fail for its sender."""


def decode_ids_untrusted(batch: Batch, vocab_size: int) -> NDArray[np.int64]:
    """Return [rows] token ids.

    Raises:
        RemoteProtocolError: A token is none of the model's ``vocab_size``: whoever sent it is to
            blame, and nobody after.
    """
    parts = [np.frombuffer(ids.payload, "<u4").astype(np.int64) for (ids,) in batch.pieces]
    ids = parts[0] if len(parts) == 1 else np.concatenate(parts)  # [rows]
    if (ids[0] if len(ids) == 1 else ids.max(initial=0)) >= vocab_size:
        # The engine would call it our own mistake, and a node does not survive those.
        raise RemoteProtocolError(f"a token beyond the vocabulary of {vocab_size}")
    return ids


def decode_states_untrusted(batch: Batch, calibration: Calibration | None) -> NDArray[np.float32]:
    """Return [rows, d_model] hidden states.

    Raises:
        RemoteProtocolError: A state is not finite or beyond all measure.
    """
    states = decode_pieces_untrusted(batch.pieces, calibration)
    if not is_sound(states, MOST_RMS):
        raise RemoteProtocolError(
            f"hidden states of positions {batch.start} to {batch.end} are not finite, or beyond"
            " all measure"
        )
    return states


def check_sound(batches: tuple[Batch, ...], hidden: list[NDArray[np.float32]]) -> None:
    """Send nothing on that the next stage would refuse: one of the two would be blamed wrongly.

    It takes 2.5 us of a token.

    Raises:
        GenerationError: The engine's numbers are not finite, or beyond all measure.
    """
    for batch, rows in zip(batches, hidden, strict=True):  # [rows, d_model]
        if not is_sound(rows, MOST_RMS):
            raise GenerationError(
                f"its engine's hidden states of positions {batch.start} to {batch.end} are not"
                " finite, or beyond all measure"
            )


def is_sound(states: NDArray[np.float32], most_rms: float) -> bool:
    """Whether every row is finite, and no longer than ``most_rms`` allows."""
    most = most_rms * most_rms * states.shape[1]
    if len(states) == 1:  # a token: this is 2 us of a hop, the other way 10
        row = states[0]
        return bool(row.dot(row) <= most)  # NaN is not
    energy = np.einsum("ij,ij->i", states, states)  # [rows]
    return bool((energy <= most).all())
