"""A model is calibrated on one short text, at every cut."""

from pathlib import Path

import numpy as np
import pytest

from p2pnode.engine.registry import load_engine
from p2pnode.engine.state_calibration import calibrate_states, calibration_text
from p2pnode.errors import UserError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

TOKENS = [*np.random.default_rng(0).integers(3, 60, 80)]


def test_every_cut_is_measured_on_the_states_that_pass_there(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    engine = load_engine(path, range(4))
    parts: list[float] = []
    found = calibrate_states(engine, TOKENS, parts.append)
    assert sorted(found.cuts) == [1, 2, 3, 4]
    assert parts == [0.25, 0.5, 0.75, 1.0]
    assert found.space_hash32 == engine.info.space_hash32
    states = engine.forward(b"other", range(2), [np.array(TOKENS)], 0)[0]
    norms = np.linalg.norm(states, axis=1)
    ordinary = states[norms <= 3 * np.median(norms)]
    assert np.abs(found.cuts[2].mean - ordinary.mean(axis=0)).max() < 1e-2 * np.abs(states).max()
    assert engine.kv_bytes() > 0  # the other session's
    engine.close(b"other")
    assert engine.kv_bytes() == 0


def test_too_short_a_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    engine = load_engine(path, range(4))
    with pytest.raises(UserError, match="63 tokens"):
        calibrate_states(engine, TOKENS[:63], lambda _: None)


def test_a_text_ships() -> None:
    assert len(calibration_text()) > 1000
