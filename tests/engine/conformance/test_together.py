"""Several sessions in one step: nobody's results depend on who computes beside."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest

from p2pnode.engine.base import MOST_ROWS_TOGETHER, Engine, Floats, SessionRows
from p2pnode.errors import CapacityError, LocalProtocolError
from tests.engine.conformance.engines import ALL, CONTEXT, MAIN, ids, run, same, states
from tests.engine.conformance.loader import Loader

SESSIONS = tuple(bytes([number]) for number in range(8))
LENGTHS = (3, 254, 511, 256, 60, 512, 700, 0)
"""Positions that the sessions have before a step: around the edges of 256 and 512."""


def _crowd(engine: Engine, layers: range) -> Engine:
    """Open eight sessions of :data:`LENGTHS`."""
    for number, (session, length) in enumerate(zip(SESSIONS, LENGTHS, strict=True)):
        if length:
            engine.forward(session, layers, [ids(length, seed=number)], 0)
    return engine


def _alike() -> Iterator[tuple[int, ...]]:
    """Yield the rows of each session of a step where all have as many."""
    for count in range(1, len(SESSIONS) + 1):
        for rows in (1, 2, 4, 8, MOST_ROWS_TOGETHER):
            yield (rows,) * count


def _mixed() -> Iterator[tuple[int, ...]]:
    """Yield steps of every count of sessions with every count of rows among others."""
    rng = np.random.default_rng(0)
    for count in range(1, len(SESSIONS) + 1):
        for rows in range(1, MOST_ROWS_TOGETHER + 1):
            mixed = rng.integers(1, MOST_ROWS_TOGETHER + 1, count)
            mixed[rng.integers(count)] = rows
            yield tuple(map(int, mixed))


@pytest.mark.parametrize(
    ("model", "layers", "steps"),
    [
        (MAIN, range(2), _mixed),  # half of the layers, in half of the time
        (MAIN, ALL, _alike),
        ("q4_0 plain heads, tied", ALL, _alike),
    ],
)
def test_a_step_together_equals_steps_alone(
    loader: Loader, model: str, layers: range, steps: Callable[[], Iterator[tuple[int, ...]]]
) -> None:
    """Each session stands at each place."""
    crowd = _crowd(loader.shared(model), layers)
    alone = cache(lambda session, rows: _alone(crowd, layers, session, rows))
    for step, counts in enumerate(steps()):
        order = [(step + number) % len(SESSIONS) for number in range(len(counts))]
        expected = [
            alone(SESSIONS[number], rows) for number, rows in zip(order, counts, strict=True)
        ]
        parts = [
            SessionRows(SESSIONS[number], ids(rows, seed=rows), LENGTHS[number])
            for number, rows in zip(order, counts, strict=True)
        ]
        together = crowd.forward_many(layers, parts)
        assert all(map(same, together, expected)), (counts, order)
        for part in parts:
            assert crowd.length(part.session, 0) == part.start + len(part.rows)
            crowd.truncate(part.session, part.start)


def _alone(engine: Engine, layers: range, session: bytes, rows: int) -> Floats:
    length = engine.length(session, 0)
    [hidden] = engine.forward(session, layers, [ids(rows, seed=rows)], length)
    engine.truncate(session, length)
    return hidden


def test_what_follows_a_step_together_is_as_after_steps_alone(
    loader: Loader, engine: Engine
) -> None:
    """The caches are the same as well, where sessions decode side by side for a while."""
    other = loader.fresh()
    prompts = {session: ids(5 + 90 * number) for number, session in enumerate(SESSIONS[:4])}
    for session, prompt in prompts.items():
        run(engine, session, prompt)
        run(other, session, prompt)
    for step in range(12):
        parts = [
            SessionRows(session, ids(1 + step % 3, seed=step), engine.length(session, 0))
            for session in prompts
        ]
        together = engine.forward_many(ALL, parts)
        apart = [run(other, part.session, part.rows)[0] for part in parts]
        assert all(map(same, together, apart)), step


def test_a_stage_takes_hidden_states_together(middle: Engine) -> None:
    layers = middle.layers
    alone = [middle.forward(bytes([n]), layers, [states(n + 1)], 0)[0] for n in range(4)]
    for number in range(4):
        middle.close(bytes([number]))
    parts = [SessionRows(bytes([n]), states(n + 1), 0) for n in range(4)]
    assert all(map(same, middle.forward_many(layers, parts), alone))
    assert [middle.length(bytes([n]), 1) for n in range(4)] == [1, 2, 3, 4]


def test_sessions_beside_change_nothing_between_calls(engine: Engine) -> None:
    expected = run(engine, b"s", ids(40), (30, *(1,) * 10))
    beside = []
    for number, row in enumerate(np.split(ids(40), np.cumsum((30, *(1,) * 9)))):
        beside += run(engine, b"t", row)
        run(engine, bytes([number % 5]), ids(1 + 7 * number, seed=number))
    assert all(map(same, beside, expected))


BAD_STEPS = {
    "no sessions": [],
    "a session twice": [(b"s", ids(1), 0), (b"s", ids(1), 0)],
    "too many rows": [(b"t", ids(1), 0), (b"s", ids(MOST_ROWS_TOGETHER + 1), 0)],
    "a wrong start": [(b"t", ids(1), 0), (b"s", ids(1), 5)],
    "no rows": [(b"t", ids(1), 0), (b"s", ids(0), 0)],
    "an id too large": [(b"t", ids(1), 0), (b"s", np.array([10**9]), 0)],
    "a number instead of rows": [(b"t", ids(1), 0), (b"s", np.array(5), 0)],
    "rows too wide": [(b"t", ids(1), 0), (b"s", np.ones((1, 65), np.float32), 0)],
    "rows of another type": [(b"t", ids(1), 0), (b"s", np.ones((1, 64), np.float64), 0)],
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_bad_step_is_refused_for_all(engine: Engine, name: str) -> None:
    parts = [SessionRows(*part) for part in BAD_STEPS[name]]
    with pytest.raises(LocalProtocolError):
        engine.forward_many(ALL, parts)
    assert (engine.length(b"s", 0), engine.length(b"t", 0), engine.kv_bytes()) == (0, 0, 0)


@pytest.mark.parametrize("layers", [range(5), range(1, 1), range(-1, 2), range(0, 4, 2)])
def test_a_step_of_layers_not_held_is_refused(engine: Engine, layers: range) -> None:
    with pytest.raises(LocalProtocolError):
        engine.forward_many(layers, [SessionRows(b"s", ids(1), 0)])
    with pytest.raises(LocalProtocolError):
        engine.forward_many(range(1, 4), [SessionRows(b"s", ids(1), 0)])


def test_a_step_that_does_not_fit_changes_nobody(loader: Loader) -> None:
    per_position = len(ALL) * loader.shared().kv_bytes_per_token_layer
    engine = loader.fresh(budget=2 * CONTEXT * per_position)
    engine.reserve(b"s", ALL, CONTEXT)
    run(engine, b"s", ids(CONTEXT - 2))
    run(engine, b"t", ids(3))
    held = engine.kv_bytes()
    full = SessionRows(b"s", ids(3), CONTEXT - 2)  # one row more than the context has
    new = [SessionRows(key, ids(32), 0) for key in SESSIONS[:6]]
    with pytest.raises(CapacityError):
        engine.forward_many(ALL, [*new, full, SessionRows(b"t", ids(1), 3)])
    assert engine.kv_bytes() == held
    assert [engine.length(key, 0) for key in (*SESSIONS[:6], b"s", b"t")] == [
        *(0,) * 6,
        CONTEXT - 2,
        3,
    ]
    other = loader.shared()
    run(other, b"t", ids(3))
    assert same(run(engine, b"t", ids(5))[0], run(other, b"t", ids(5))[0])


def test_a_step_beyond_the_budget_changes_nobody(loader: Loader) -> None:
    per_position = len(ALL) * loader.shared().kv_bytes_per_token_layer
    engine = loader.fresh(budget=CONTEXT * per_position)
    engine.reserve(b"s", ALL, CONTEXT)
    held = engine.kv_bytes()
    parts = [SessionRows(b"s", ids(1), 0), SessionRows(b"t", ids(1), 0)]
    for order in (parts, parts[::-1]):
        with pytest.raises(CapacityError):
            engine.forward_many(ALL, order)
        assert (engine.length(b"s", 0), engine.length(b"t", 0), engine.kv_bytes()) == (0, 0, held)
