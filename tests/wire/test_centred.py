"""Centred states survive the wire within half a step; whatever else comes is refused."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.calibration import Calibration, measure_calibration
from p2pnode.wire.centred import Form, decode_centred_untrusted, encode_centred
from p2pnode.wire.dtypes import DType, payload_problem
from p2pnode.wire.tensor import F32Array
from p2pnode.wire.vframe import Slice

WIDTH = 96
FORMS = list(Form)


def some_rows(tokens: int, seed: int = 0) -> F32Array:
    rng = np.random.default_rng(seed)
    mean = np.linspace(-9, 9, WIDTH)  # [d]
    deviation = np.exp2(np.linspace(-1, 1, WIDTH))  # [d]
    return (mean + deviation * rng.normal(size=(tokens, WIDTH))).astype(np.float32)


CALIBRATION = measure_calibration(some_rows(500, seed=9), space_hash32=1, cut=1)


def coded(rows: F32Array, form: Form, fineness: int = 40) -> Slice:
    piece = encode_centred(rows, CALIBRATION, fineness, form)
    assert piece is not None
    return piece


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 2, 40])
@pytest.mark.parametrize("fineness", [0, 24, 60])
def test_every_value_is_within_half_a_step(form: Form, tokens: int, fineness: int) -> None:
    rows = some_rows(tokens)
    read = decode_centred_untrusted(coded(rows, form, fineness), CALIBRATION)
    step = CALIBRATION.unit * 2 ** (-fineness / 16)
    widest = 2 ** (CALIBRATION.spread.max() / 32) if form is Form.FINE else 1
    assert read.shape == rows.shape
    assert read.dtype == np.float32
    assert np.abs(read - rows).max() <= 0.501 * step * widest


@pytest.mark.parametrize("form", FORMS)
def test_an_outlier_comes_exactly_and_harms_no_other(form: Form) -> None:
    rows = some_rows(30)
    rows[0, 7] = 22621.4
    read = decode_centred_untrusted(coded(rows, form), CALIBRATION)
    assert read[0, 7] == np.float16(22621.4)
    read[0, 7] = rows[0, 7]
    assert np.abs(read - rows).max() < 0.6


def test_what_came_before_saves_bytes_where_rows_repeat() -> None:
    drift = np.cumsum(np.random.default_rng(3).normal(size=(200, WIDTH)), axis=0) * 0.3
    rows = drift.astype(np.float32)
    calibration = measure_calibration(rows, space_hash32=1, cut=1)
    forgetful = Calibration(1, 1, calibration.unit, calibration.mean, calibration.spread)
    sizes = [
        len(piece.payload)
        for each in (calibration, forgetful)
        if (piece := encode_centred(rows, each, 40, Form.BLOCKS)) is not None
    ]
    assert calibration.pull > 0.5
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("form", FORMS)
def test_what_would_not_be_smaller_is_not_coded(form: Form) -> None:
    assert encode_centred(some_rows(3) + 900, CALIBRATION, 90, form) is None
    assert encode_centred(some_rows(0), CALIBRATION, 40, form) is None
    assert encode_centred(some_rows(3)[:, :50], CALIBRATION, 40, form) is None


@pytest.mark.parametrize("form", FORMS)
def test_another_calibration_is_refused(form: Form) -> None:
    other = measure_calibration(some_rows(400, seed=8), space_hash32=1, cut=1)
    with pytest.raises(RemoteProtocolError, match="differs"):
        decode_centred_untrusted(coded(some_rows(4), form), other)


@settings(max_examples=300)
@given(st.sampled_from(FORMS), st.integers(0, 500), st.integers(1, 255), st.integers(0, 20))
def test_spoilt_bytes_are_read_or_refused(form: Form, at: int, change: int, cut: int) -> None:
    data = bytearray(coded(some_rows(4), form).payload)
    data[at % len(data)] ^= change
    spoilt = bytes(data[: len(data) - cut])
    if payload_problem(DType.CENTRED, (4, WIDTH), len(spoilt)) is None:
        with contextlib.suppress(RemoteProtocolError):
            read = decode_centred_untrusted(Slice(DType.CENTRED, (4, WIDTH), spoilt), CALIBRATION)
            assert read.shape == (4, WIDTH)
            assert np.isfinite(read).all()


@settings(max_examples=300)
@given(st.sampled_from([0, 1, 2, 3, 4]), st.integers(0, 255), st.integers(0, 3), st.binary())
def test_any_bytes_are_read_or_refused(form: int, fineness: int, count: int, body: bytes) -> None:
    head = bytes([form, fineness, count, 0]) + CALIBRATION.fingerprint.to_bytes(4, "little")
    payload = head + body
    if payload_problem(DType.CENTRED, (2, WIDTH), len(payload)) is None:
        with contextlib.suppress(RemoteProtocolError):
            decode_centred_untrusted(Slice(DType.CENTRED, (2, WIDTH), payload), CALIBRATION)
