"""Memory: what is reserved is there, the budget holds, and all of it comes back."""

import time

import pytest

from p2pnode.engine.base import Engine, profile
from p2pnode.errors import CapacityError
from tests.engine.conformance.engines import ALL, CONTEXT, KEYS, ids, run, same, states
from tests.engine.conformance.loader import Loader


def _budgeted(loader: Loader, positions: int) -> Engine:
    """Return an engine that has KV memory for so many positions of all its layers."""
    return loader.fresh(budget=positions * len(ALL) * loader.shared().kv_bytes_per_token_layer)


def test_a_reservation_is_kept_for_its_session(loader: Loader) -> None:
    engine = _budgeted(loader, CONTEXT)
    engine.reserve(b"s", ALL, 512)
    held = engine.kv_bytes()
    assert held >= 512 * len(ALL) * engine.kv_bytes_per_token_layer
    assert engine.length(b"s", 0) == 0
    with pytest.raises(CapacityError):
        run(engine, b"t", ids(CONTEXT), (16,) * (CONTEXT // 16))  # somebody takes all there is
    taken = engine.kv_bytes()
    run(engine, b"s", ids(512), (500, 12))  # and yet
    assert engine.kv_bytes() == taken
    engine.close(b"t")
    assert engine.kv_bytes() == held
    engine.close(b"s")
    assert engine.kv_bytes() == 0


def test_a_reservation_changes_no_results(engine: Engine) -> None:
    [expected] = run(engine, b"s", ids(30))
    engine.reserve(b"t", ALL, 900)
    assert same(run(engine, b"t", ids(30))[0], expected)
    engine.reserve(b"s", ALL, 300)  # in mid-session
    assert all(map(same, run(engine, b"s", ids(9)), run(engine, b"t", ids(9))))
    held = engine.kv_bytes()
    engine.reserve(b"s", ALL, 5)  # less than it has
    assert (engine.kv_bytes(), engine.length(b"s", 0)) == (held, 39)


def test_a_reservation_that_does_not_fit_reserves_nothing(loader: Loader) -> None:
    engine = _budgeted(loader, CONTEXT)
    engine.reserve(b"s", ALL, 512)
    run(engine, b"s", ids(20))
    held = engine.kv_bytes()
    for session in (b"s", b"t"):
        for tokens in (CONTEXT, CONTEXT + 1, 10**15):
            if (session, tokens) == (b"s", CONTEXT):
                continue
            with pytest.raises(CapacityError):
                engine.reserve(session, ALL, tokens)
            assert engine.kv_bytes() == held
    engine.reserve(b"t", ALL, 512)
    assert engine.kv_bytes() == 2 * held
    other = loader.shared()
    run(other, b"s", ids(20))
    assert same(run(engine, b"s", ids(3))[0], run(other, b"s", ids(3))[0])


def test_a_session_takes_what_the_engine_says(engine: Engine) -> None:
    """A node admits sessions by :meth:`KvSizes.rounded`, and the engine never refuses those."""
    for positions in (1, 64, 256, 257, 600, CONTEXT):
        engine.reserve(b"s", ALL, positions)
        size = engine.kv_sizes.rounded(positions)
        assert engine.kv_bytes() == size * len(ALL) * engine.kv_bytes_per_token_layer
        engine.close(b"s")


def test_the_budget_holds_and_a_refusal_changes_nothing(loader: Loader) -> None:
    engine = _budgeted(loader, CONTEXT)
    budget = CONTEXT * len(ALL) * engine.kv_bytes_per_token_layer
    refused = 0
    for step in range(60):
        session = KEYS[step % len(KEYS)]
        before = [engine.length(key, 0) for key in KEYS], engine.kv_bytes()
        try:
            run(engine, session, ids(10 + step))
        except CapacityError:
            assert ([engine.length(key, 0) for key in KEYS], engine.kv_bytes()) == before
            refused += 1
        positions = sum(engine.length(key, 0) for key in KEYS)
        needed = positions * len(ALL) * engine.kv_bytes_per_token_layer
        assert needed <= engine.kv_bytes() <= budget
    assert refused
    kept = engine.export_kv(b"s", ALL, range(engine.length(b"s", 0)))
    for key in KEYS[1:]:
        engine.close(key)
    assert run(engine, b"s", ids(100))
    assert same(engine.export_kv(b"s", ALL, range(kept.shape[2])), kept)
    engine.close(b"s")
    assert engine.kv_bytes() == 0


def test_an_import_beyond_the_budget_changes_nothing(loader: Loader) -> None:
    engine = _budgeted(loader, CONTEXT)
    run(engine, b"s", ids(600))
    block = engine.export_kv(b"s", ALL, range(600))
    held = engine.kv_bytes()
    with pytest.raises(CapacityError):
        engine.import_kv(b"t", ALL, 0, block)
    assert (engine.length(b"t", 0), engine.kv_bytes()) == (0, held)


@pytest.mark.parametrize("had", [0, 1, CONTEXT - 1, CONTEXT])
def test_a_full_context_refuses_and_changes_nothing(engine: Engine, had: int) -> None:
    if had:
        run(engine, b"s", ids(had))
    held = engine.kv_bytes()
    with pytest.raises(CapacityError):
        engine.forward(b"s", ALL, [ids(1), ids(CONTEXT - had + 1)], had)
    assert (engine.length(b"s", 0), engine.kv_bytes()) == (had, held)
    if had < CONTEXT:
        run(engine, b"s", ids(CONTEXT - had))  # to the last position
    assert engine.length(b"s", 0) == CONTEXT
    with pytest.raises(CapacityError):
        engine.reserve(b"t", ALL, CONTEXT + 1)


def test_all_of_a_sessions_caches_are_freed(engine: Engine) -> None:
    engine.forward(b"s", range(2), [ids(300)], 0)
    one = engine.kv_bytes()
    engine.forward(b"s", range(2, 4), [states(5)], 0)
    assert engine.kv_bytes() > one > 0
    run(engine, b"t", ids(5))
    other = engine.kv_bytes()
    engine.close(b"s")
    assert 0 < engine.kv_bytes() < other
    assert [engine.length(b"s", layer) for layer in ALL] == [0, 0, 0, 0]
    engine.close(b"s")  # once more is harmless
    engine.close(b"t")
    assert engine.kv_bytes() == 0


def test_fewer_layers_take_less(engine: Engine, middle: Engine) -> None:
    engine.reserve(b"s", ALL, 512)
    middle.reserve(b"s", middle.layers, 512)
    assert 2 * middle.kv_bytes() == engine.kv_bytes()


def test_measuring_says_costs_and_leaves_nothing(engine: Engine, middle: Engine) -> None:
    run(engine, b"s", ids(300))
    held = engine.kv_bytes()
    begun = time.thread_time()
    said = profile(engine)
    assert time.thread_time() - begun < 1
    assert engine.kv_bytes() == held
    cost = said.cost
    assert cost.decode_fixed_us >= 0
    assert min(cost.decode_layer_us, cost.head_us, cost.prefill_layer_ns) > 0
    assert min(cost.rows4_layer_us, cost.rows8_layer_us) >= 0
    assert (said.numerics, said.device) == (engine.numerics, engine.device)
    assert said.kv_bytes_per_token_layer == engine.kv_bytes_per_token_layer
    run(engine, b"t", ids(300))
    assert same(run(engine, b"s", ids(4))[0], run(engine, b"t", ids(4))[0])
    assert middle.measure().head_us == 0
    assert middle.kv_bytes() == 0


def test_an_engine_without_memory_to_measure_says_so(loader: Loader) -> None:
    engine = _budgeted(loader, 512)
    engine.reserve(b"s", ALL, 512)
    held = engine.kv_bytes()
    with pytest.raises(CapacityError):
        engine.measure()
    assert engine.kv_bytes() == held


def test_engines_live_and_end_beside_each_other(loader: Loader, engine: Engine) -> None:
    """One that is shut with open sessions takes nothing from those of the same file."""
    [expected] = run(engine, b"s", ids(20))
    for _ in range(5):
        other = loader.case.load(loader.path(), ALL, 2**20)
        assert same(run(other, b"s", ids(20))[0], expected)
        other.shut()
    [ours] = run(engine, b"t", ids(20))
    assert same(ours, expected)
    assert all(map(same, run(engine, b"s", ids(2)), run(engine, b"t", ids(2))))
