"""A calibration survives its file, and one of another model is refused."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.calibration import Calibration, CalibrationSet

SPACE = 0xC0FFEE01


def some_set(width: int = 5, cuts: tuple[int, ...] = (1, 10)) -> CalibrationSet:
    rng = np.random.default_rng(0)
    made = {}
    for cut in cuts:
        mean = rng.normal(size=width).astype(np.float16).astype(np.float32)
        deviation = rng.uniform(0.1, 2, size=width).astype(np.float16).astype(np.float32)
        made[cut] = Calibration(SPACE, cut, mean, deviation)
    return CalibrationSet(SPACE, width, made)


def test_it_survives_its_file() -> None:
    one = some_set()
    read = CalibrationSet.from_bytes_untrusted(one.to_bytes(), space_hash32=SPACE)
    assert sorted(read.cuts) == [1, 10]
    for cut in (1, 10):
        assert (read.cuts[cut].mean == one.cuts[cut].mean).all()
        assert (read.cuts[cut].deviation == one.cuts[cut].deviation).all()
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


@pytest.mark.parametrize("deviation", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_deviation_is_refused(deviation: float) -> None:
    with pytest.raises(LocalProtocolError):
        Calibration(SPACE, 1, np.zeros(1, np.float32), np.array([deviation], np.float32))
