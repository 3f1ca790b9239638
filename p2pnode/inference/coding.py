"""Coding a batch's hidden states within a budget, and what that costs; part of the work."""

from math import ceil, inf, isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from p2pnode.errors import LocalProtocolError
from p2pnode.inference.activations import ROOM, Piece
from p2pnode.inference.tensor_policy import Coded
from p2pnode.wire.calibration import Calibration
from p2pnode.wire.states import Rung, decode_states_untrusted, encode_states

Rows = NDArray[np.float32]

NATS_CENTRED: Final = 1.2
"""Nats of KL divergence a cut for each unit of squared error, in units of how far channels stray
(:class:`~p2pnode.wire.calibration.Calibration`). Measured with ``p2pnode bench codec`` on
SmolLM2-135M, 8 to 2 bits, texts and single rows: 1.0 to 1.3."""

NATS_PLAIN: Final = 11.0
"""The same for each unit of squared error over a row's energy, where no calibration says how far
channels stray. Measured: 11 for 8 bits, 3 for 4 bits; so this errs to the careful side."""


def encode_within(
    rows: Rows, rungs: tuple[Rung, ...], kl: float, calibration: Calibration | None
) -> tuple[tuple[Piece, ...], Coded]:
    """Code ``rows`` as the first of ``rungs`` that costs at most ``kl``; the last one in any case.

    Args:
        rows: float32 [tokens, d].
        rungs: The coarsest first.
        kl: Nats allowed.
        calibration: What both ends know of this cut, or None.
    """
    failed: list[Rung] = []
    for rung in rungs:
        if rung in {Rung.F16, Rung.F32}:
            return (encode_states(rows, rung),), Coded(rung, failed=tuple(failed))
        pieces = encode_pieces(rows, rung, calibration)
        cost = cost_of(rows, decode_pieces_untrusted(pieces, calibration), calibration)
        if cost <= kl or rung is rungs[-1]:
            saved = 2 * rows.size - _size(pieces)
            return pieces, Coded(rung, cost, max(0, saved), tuple(failed))
        failed.append(rung)
    raise LocalProtocolError("no coding to try")


def encode_pieces(rows: Rows, rung: Rung, calibration: Calibration | None) -> tuple[Piece, ...]:
    """Code ``rows`` in as many pieces as it takes for each to fit a frame with its scales."""
    piece = encode_states(rows, rung, calibration)
    size = _size((piece,))
    if size <= ROOM or len(rows) == 1:
        return (piece,)
    parts = np.array_split(rows, min(len(rows), ceil(size / ROOM)))
    return tuple(one for part in parts for one in encode_pieces(part, rung, calibration))


def decode_pieces_untrusted(pieces: tuple[Piece, ...], calibration: Calibration | None) -> Rows:
    """Return float32 [tokens, d] of a whole batch.

    Raises:
        RemoteProtocolError: They are not the coding of hidden states.
    """
    if len(pieces) == 1:
        return decode_states_untrusted(pieces[0], calibration)
    return np.concatenate([decode_states_untrusted(piece, calibration) for piece in pieces])


def cost_of(rows: Rows, decoded: Rows, calibration: Calibration | None) -> float:
    """Estimate the nats of KL divergence that sending ``decoded`` for ``rows`` costs.

    What matters is the error in units of how far channels stray by themselves; squared, it is about
    the nats. Rows far from all others (the first token's is 100 times as long) are judged by their
    own length, or their rounding would outweigh every other row.

    Args:
        rows: float32 [tokens, d], as they were.
        decoded: float32 [tokens, d], as the reader will have them.
        calibration: Of this cut, or None.
    """
    with np.errstate(all="ignore"):  # what is not a number ends as a cost beyond every budget
        error = np.square(rows - decoded)  # [tokens, d]
        if calibration is None:
            energy = np.square(rows).sum(axis=1)  # [tokens]
            spoilt = error.sum(axis=1) / np.maximum(energy, np.finfo(np.float32).tiny)
            cost = NATS_PLAIN * float(spoilt.mean())
        else:
            variance = calibration.unit**2
            moved = np.square(rows - calibration.mean).mean(axis=1) / variance  # [tokens]
            spoilt = error.mean(axis=1) / variance / np.maximum(moved, 1.0)  # [tokens]
            cost = NATS_CENTRED * float(spoilt.mean())
    return cost if isfinite(cost) else inf


def _size(pieces: tuple[Piece, ...]) -> int:
    return sum(len(part.payload) for piece in pieces for part in piece)
