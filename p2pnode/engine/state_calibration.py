"""Measures what the coding of hidden states wants to know of a model, on one text."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Final

import numpy as np

from p2pnode.engine.base import Array, Engine
from p2pnode.errors import UserError
from p2pnode.wire.calibration import CalibrationSet, measure_calibration

LEAST_TOKENS: Final = 64
"""Fewer rows say too little of how far a channel strays."""

_SESSION: Final = b"calibration of states"


def calibration_text() -> str:
    """Return the text that ships for this: prose, code and talk, 600 tokens."""
    return files("p2pnode.engine").joinpath("calibration_text.txt").read_text("utf-8")


def calibrate_states(
    engine: Engine, tokens: Sequence[int], progress: Callable[[float], None]
) -> CalibrationSet:
    """Run a text through every layer; return the calibration of each cut, 1 to n_layers.

    Args:
        engine: Holds all layers.
        tokens: The text's ids.
        progress: Hears which part is done.

    Raises:
        UserError: The text is too short.
        CapacityError: There is no memory for its KV cache.
    """
    refuse_too_short(tokens)
    info = engine.info
    states: Array = np.array(tokens, np.int64)
    cuts = {}
    for layer in range(info.n_layers):
        states = engine.forward(_SESSION, range(layer, layer + 1), [states], 0)[0]  # [tokens, d]
        cut = layer + 1
        cuts[cut] = measure_calibration(states, space_hash32=info.space_hash32, cut=cut)
        progress(cut / info.n_layers)
    engine.close(_SESSION)
    return CalibrationSet(info.space_hash32, info.d_model, cuts)


def refuse_too_short(tokens: Sequence[int]) -> None:
    """Say that a text is too short; worth asking before a model is loaded.

    Raises:
        UserError: It is.
    """
    if len(tokens) < LEAST_TOKENS:
        raise UserError(
            f"a text of {len(tokens)} tokens is too short to calibrate on",
            hint=f"Give one of {LEAST_TOKENS} tokens or more.",
        )
