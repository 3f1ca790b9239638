"""A calibration survives its file, and one of another model is refused."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.calibration import Calibration, CalibrationSet, measure_calibration

SPACE = 0xC0FFEE01


def some_set(width: int = 5, cuts: tuple[int, ...] = (1, 10)) -> CalibrationSet:
    rng = np.random.default_rng(0)
    made = {}
    for cut in cuts:
        mean = rng.normal(size=width).astype(np.float16).astype(np.float32)
        spread = rng.integers(-40, 40, width).astype(np.int8)
        made[cut] = Calibration(SPACE, cut, 1.5, mean, spread, 0.25, 0.5)
    return CalibrationSet(SPACE, width, made)


def test_it_survives_its_file() -> None:
    one = some_set()
    read = CalibrationSet.from_bytes_untrusted(one.to_bytes(), space_hash32=SPACE)
    assert sorted(read.cuts) == [1, 10]
    for cut in (1, 10):
        assert (read.cuts[cut].mean == one.cuts[cut].mean).all()
        assert (read.cuts[cut].spread == one.cuts[cut].spread).all()
        assert (read.cuts[cut].unit, read.cuts[cut].pull, read.cuts[cut].memory) == (1.5, 0.25, 0.5)
    assert read.fingerprint == one.fingerprint
    assert read.at(2) is None


def test_another_space_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="c0ffee01"):
        CalibrationSet.from_bytes_untrusted(some_set().to_bytes(), space_hash32=7)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, change: int) -> None:
    data = bytearray(some_set().to_bytes())
    data[at % len(data)] ^= change
    with pytest.raises(RemoteProtocolError):
        CalibrationSet.from_bytes_untrusted(bytes(data), space_hash32=SPACE)


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        CalibrationSet.from_bytes_untrusted(data, space_hash32=SPACE)


@pytest.mark.parametrize("unit", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_unit_is_refused(unit: float) -> None:
    with pytest.raises(LocalProtocolError):
        Calibration(SPACE, 1, unit, np.zeros(1, np.float32), np.zeros(1, np.int8))


@pytest.mark.parametrize(("pull", "memory"), [(1.5, 1), (-0.1, 1), (0, 0), (0, 2), (np.nan, 1)])
def test_pull_and_memory_cannot_blow_up(pull: float, memory: float) -> None:
    with pytest.raises(LocalProtocolError):
        Calibration(SPACE, 1, 1.0, np.zeros(1, np.float32), np.zeros(1, np.int8), pull, memory)


def test_what_is_measured_is_what_was_put_in() -> None:
    rng = np.random.default_rng(1)
    deviation = np.repeat([1.0, 4.0], 32)  # [d]
    rows = (5 + deviation * rng.normal(size=(4000, 64))).astype(np.float32)  # [tokens, d]
    rows[0, 7] = 30000  # a first token that draws attention
    found = measure_calibration(rows, space_hash32=SPACE, cut=3)
    assert np.abs(found.mean - 5).max() < 0.3
    assert (np.abs(found.spread[32:].astype(int) - found.spread[:32] - 32) <= 2).all()
    assert abs(found.unit - np.sqrt(8.5)) < 0.1
    assert found.pull < 0.1


def test_repetition_is_measured() -> None:
    noise = np.random.default_rng(2).normal(size=(2000, 8)).astype(np.float32)
    rows = noise.copy()
    for at in range(1, len(rows)):
        rows[at] += 0.8 * rows[at - 1]
    found = measure_calibration(rows, space_hash32=SPACE, cut=3)
    assert (found.memory, round(found.pull, 1)) == (1.0, 0.8)
