"""What is known of a model: what was measured of its hidden states."""

from pathlib import Path

import numpy as np
import pytest

from p2pnode.errors import ModelError, UserError
from p2pnode.node import model_cache, models
from p2pnode.wire.calibration import CalibrationSet, measure_calibration


def some_calibration(space: int) -> CalibrationSet:
    rows = np.random.default_rng(0).normal(size=(70, 8)).astype(np.float32)
    cut = measure_calibration(rows, space_hash32=space, cut=1)
    return CalibrationSet(space, 8, {1: cut})


def test_the_default_model_ships_with_its_calibration() -> None:
    [shipped] = (Path(models.__file__).parent / "calibrations").glob("*.pcal")
    space = int(shipped.stem, 16)
    found = models.state_calibrations(space)
    assert found is not None
    assert (found.width, sorted(found.cuts)) == (576, [*range(1, 31)])
    assert models.state_calibrations(space ^ 1) is None


def test_a_calibration_measured_here_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path))
    one = some_calibration(7)
    assert models.state_calibrations(7) is None
    model_cache.keep_calibration(one, model_cache.calibration_path(7))
    found = models.state_calibrations(7)
    assert found is not None
    assert found.fingerprint == one.fingerprint
    assert [path.name for path in (tmp_path / "calibrations").iterdir()] == ["00000007.pcal"]


def test_a_calibration_of_another_model_or_a_broken_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path))
    model_cache.keep_calibration(some_calibration(7), model_cache.calibration_path(8))
    with pytest.raises(ModelError, match="space 00000007"):
        models.state_calibrations(8)
    model_cache.calibration_path(8).write_bytes(b"PCAL")
    with pytest.raises(ModelError, match="cut short"):
        models.state_calibrations(8)


def test_a_calibration_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        model_cache.keep_calibration(some_calibration(7), tmp_path / "file" / "x.pcal")
    (tmp_path / "folder.pcal").mkdir()
    with pytest.raises(UserError):
        model_cache.keep_calibration(some_calibration(7), tmp_path / "folder.pcal")
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "folder.pcal"}  # nothing left
    model_cache.keep_calibration(some_calibration(7), tmp_path / "x.pcal")
    assert (tmp_path / "x.pcal").stat().st_mode & 0o777 == 0o644
