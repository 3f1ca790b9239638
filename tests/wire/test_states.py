"""Every rung carries hidden states, and whatever it cannot carry goes exactly."""

import numpy as np
import pytest

from p2pnode.wire.dtypes import DType
from p2pnode.wire.states import Rung, decode_states_untrusted, encode_states, relative_error
from p2pnode.wire.tensor import F32Array


def some_rows(tokens: int = 7, width: int = 96, seed: int = 0) -> F32Array:
    return np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)


@pytest.mark.parametrize("rung", list(Rung))
def test_every_rung_keeps_the_shape(rung: Rung) -> None:
    rows = some_rows()
    decoded = decode_states_untrusted(encode_states(rows, rung))
    assert decoded.shape == rows.shape
    assert relative_error(rows, decoded) < 0.5


@pytest.mark.parametrize("rung", list(Rung))
@pytest.mark.parametrize("value", [1e6, np.inf, np.nan])
def test_what_no_rung_can_hold_goes_as_f32(rung: Rung, value: float) -> None:
    rows = some_rows()
    rows[3, 4] = value
    slices = encode_states(rows, rung)
    assert [piece.dtype for piece in slices] == [DType.F32]
    assert np.array_equal(decode_states_untrusted(slices), rows, equal_nan=True)


def test_the_relative_error_of_nothing_is_nothing() -> None:
    nothing = np.zeros((0, 4), np.float32)
    assert relative_error(nothing, nothing) == 0
