"""A calibration whose numbers run out of float32 is refused, and warns nobody."""

from dataclasses import replace

import numpy as np
import pytest

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.testing.kv import some_calibration
from p2pnode.wire.kv_calibration import KvCalibration, KvShape, LayerBasis

LARGEST = np.finfo(np.float32).max


def basis() -> LayerBasis:
    return some_calibration(1, KvShape(1, 4)).layers[0]


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("scale", [LARGEST, -LARGEST, LARGEST / 127])
def test_steps_beyond_float32_are_refused(row: int, scale: float) -> None:
    scales = basis().scales.copy()
    scales[row, 2] = scale
    with pytest.raises(LocalProtocolError, match="beyond"):
        replace(basis(), scales=scales)


def test_the_largest_steps_make_numbers() -> None:
    scales = np.full_like(basis().scales, LARGEST / 128)
    codes = np.full_like(basis().codes, -128)
    large = replace(basis(), scales=scales, codes=codes)
    assert np.isfinite(large.basis).all()
    assert np.isfinite(large.forecast).all()


def test_steps_too_small_for_an_inverse_are_refused() -> None:
    tiny = replace(basis(), scales=np.full_like(basis().scales, 1e-44))
    whole = replace(some_calibration(1, KvShape(1, 4)), layers=(tiny,))
    with pytest.raises(RemoteProtocolError, match="inverse"):
        KvCalibration.from_bytes_untrusted(whole.to_bytes(), space_hash32=1)
