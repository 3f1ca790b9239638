"""Every rung carries hidden states, and whatever it cannot carry goes exactly."""

import numpy as np
import pytest

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.calibration import measure_calibration
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


SMALL = (Rung.I8, Rung.Q5, Rung.Q4, Rung.Q3, Rung.Q2)


@pytest.mark.parametrize("tokens", [1, 64])
def test_each_step_down_the_ladder_is_smaller_and_worse(tokens: int) -> None:
    rows = some_rows(tokens, 512)
    calibration = measure_calibration(some_rows(300, 512, seed=1), space_hash32=1, cut=1)
    sizes, errors = [2 * rows.size], [1e-3]
    for rung in SMALL:
        slices = encode_states(rows, rung, calibration)
        sizes.append(sum(len(piece.payload) for piece in slices))
        errors.append(relative_error(rows, decode_states_untrusted(slices, calibration)))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert errors[-1] < 0.25


@pytest.mark.parametrize("rung", SMALL)
def test_a_calibration_that_does_not_fit_costs_bytes_and_no_quality(rung: Rung) -> None:
    calibration = measure_calibration(some_rows(300) * 1e-3, space_hash32=1, cut=1)
    rows = some_rows()
    decoded = decode_states_untrusted(encode_states(rows, rung, calibration), calibration)
    assert relative_error(rows, decoded) < 1e-3


def test_centred_states_without_the_calibration_are_refused() -> None:
    calibration = measure_calibration(some_rows(300), space_hash32=1, cut=1)
    slices = encode_states(some_rows(), Rung.Q4, calibration)
    with pytest.raises(RemoteProtocolError):
        decode_states_untrusted(slices)
    with pytest.raises(RemoteProtocolError):
        decode_states_untrusted([*slices, *slices], calibration)
    with pytest.raises(RemoteProtocolError):
        decode_states_untrusted([], calibration)
