"""A calibration is read as it was written, belongs to one model, and has a bounded size."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.testing.kv import some_calibration
from p2pnode.wire.compression import compress
from p2pnode.wire.kv_calibration import KvCalibration, KvShape, LayerBasis

SPACE = 0x5EED


def read(data: bytes, space: int = SPACE) -> KvCalibration:
    return KvCalibration.from_bytes_untrusted(data, space_hash32=space)


def test_it_is_read_as_it_was_written() -> None:
    written = some_calibration(3, KvShape(2, 8), space_hash32=SPACE)
    found = read(written.to_bytes())
    assert found.digest == written.digest
    assert found.shape == written.shape
    for old, new in zip(written.layers, found.layers, strict=True):
        assert (old.basis == new.basis).all()
        assert (old.forecast == new.forecast).all()
        assert (old.mean == new.mean).all()
        assert (old.classes == new.classes).all()


def test_two_calibrations_of_one_model_have_other_digests() -> None:
    one, other = (some_calibration(2, KvShape(1, 8), seed=seed) for seed in (1, 2))
    assert one.digest != other.digest


def test_a_row_comes_back_from_its_coordinates() -> None:
    layer = some_calibration(1, KvShape(1, 8)).layers[0]
    row = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    assert row @ layer.basis @ layer.inverse == pytest.approx(row, abs=1e-3)


def test_one_of_another_space_is_refused_and_both_are_named() -> None:
    data = some_calibration(1, KvShape(1, 8), space_hash32=7).to_bytes()
    with pytest.raises(RemoteProtocolError, match=r"00000007.*00005eed"):
        read(data)


@pytest.mark.parametrize("cut", [0, 5, 14, 15, 40, -1])
def test_one_cut_short_is_refused(cut: int) -> None:
    data = some_calibration(2, KvShape(1, 8), space_hash32=SPACE).to_bytes()
    with pytest.raises(RemoteProtocolError):
        read(data[:cut])


def test_a_size_that_nobody_has_is_refused_before_anything_is_held() -> None:
    head = struct.pack("<4sBIHHH", b"PKVC", 1, SPACE, 65535, 65535, 65534)
    with pytest.raises(RemoteProtocolError, match="a calibration of"):
        read(head + compress(bytes(100)))


def test_a_basis_that_nothing_undoes_is_refused() -> None:
    flat = LayerBasis(
        np.zeros(4, np.float32),
        np.ones((2, 4), np.float32),
        np.zeros((2, 4, 4), np.int8),
        np.zeros((2, 4), np.uint8),
    )
    with pytest.raises(RemoteProtocolError, match="inverse"):
        read(KvCalibration(SPACE, KvShape(1, 2), (flat,)).to_bytes())


@given(st.binary(max_size=300))
def test_junk_is_refused(junk: bytes) -> None:
    head = struct.pack("<4sBIHHH", b"PKVC", 1, SPACE, 1, 1, 2)
    for data in (junk, head + junk, head + compress(junk)):
        with contextlib.suppress(RemoteProtocolError):
            read(data)


@pytest.mark.parametrize("shape", [(0, 8), (1, 0), (1, 7), (1 << 16, 8)])
def test_no_cache_has_such_a_shape(shape: tuple[int, int]) -> None:
    with pytest.raises(LocalProtocolError):
        KvShape(*shape)


def test_a_basis_of_another_width_does_not_fit() -> None:
    layers = some_calibration(1, KvShape(1, 8)).layers
    with pytest.raises(LocalProtocolError, match="width"):
        KvCalibration(SPACE, KvShape(2, 8), layers)
