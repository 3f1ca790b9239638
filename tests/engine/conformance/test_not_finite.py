"""Numbers that are none, or huge: no crash, and nobody else is harmed."""

import numpy as np
import pytest

from p2pnode.engine.base import Engine, Floats, SessionRows
from tests.engine.conformance.engines import D_MODEL, ids, run, same, states

POISONS: dict[str, float] = {
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "the largest": float(np.finfo(np.float32).max),
    "huge": -1e30,
    "beyond float16": 1e5,
    "the smallest": float(np.finfo(np.float32).smallest_subnormal),
}


def _poisoned(name: str, rows: int, *, whole: bool) -> Floats:
    drawn = states(rows, seed=5)
    drawn[:, slice(None) if whole else slice(3, 4)] = POISONS[name]
    return drawn


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", POISONS)
def test_bad_numbers_harm_their_session_alone(middle: Engine, name: str, whole: bool) -> None:
    layers, prompt, rows = middle.layers, states(50), states(3, seed=1)
    run(middle, b"s", prompt)
    run(middle, b"t", prompt)
    expected = run(middle, b"t", rows, (1, 2))
    for count in (1, 2, 70, 300):
        bad = _poisoned(name, count, whole=whole)
        [out] = middle.forward(b"u", layers, [bad], middle.length(b"u", 1))
        assert out.shape == (count, D_MODEL)
    parts = [
        SessionRows(b"u", _poisoned(name, 1, whole=whole), middle.length(b"u", 1)),
        SessionRows(b"s", rows[:1], 50),
    ]
    assert same(middle.forward_many(layers, parts)[1], expected[0])  # beside it, in one step
    assert same(run(middle, b"s", rows[1:])[0], expected[1])


@pytest.mark.parametrize("name", POISONS)
def test_bad_numbers_leave_no_trace(middle: Engine, name: str) -> None:
    """Neither those truncated, nor those of a session whose memory another gets."""
    layers, prompt, rows = middle.layers, states(20), states(40, seed=1)
    run(middle, b"t", prompt)
    expected = run(middle, b"t", rows, (1, 39))
    middle.close(b"t")
    run(middle, b"s", prompt)
    middle.forward(b"s", layers, [_poisoned(name, 300, whole=True)], 20)
    middle.truncate(b"s", 20)
    assert all(map(same, run(middle, b"s", rows, (1, 39)), expected))
    middle.forward(b"s", layers, [_poisoned(name, 300, whole=True)], 60)
    middle.close(b"s")
    run(middle, b"u", prompt)
    assert all(map(same, run(middle, b"u", rows, (1, 39)), expected))


@pytest.mark.parametrize("name", POISONS)
def test_logits_of_bad_numbers_harm_no_other_row(engine: Engine, name: str) -> None:
    hidden = states(5)
    expected = engine.logits(hidden)
    hidden[2] = POISONS[name]
    ours = engine.logits(hidden)
    assert ours.shape == expected.shape
    for row in (0, 1, 3, 4):
        assert same(ours[row], expected[row])


@pytest.mark.parametrize("name", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_do_not_become_numbers(
    engine: Engine, middle: Engine, name: str
) -> None:
    """Whoever looks at the results sees that they are of no use."""
    [out] = middle.forward(b"s", middle.layers, [_poisoned(name, 4, whole=True)], 0)
    assert not np.isfinite(out).all(axis=1).any()
    hidden = _poisoned(name, 2, whole=True)
    assert not np.isfinite(engine.logits(hidden)).all(axis=1).any()
    assert run(engine, b"t", ids(3))
