"""The arithmetic: near numpy's, and the same bits wherever the same batches are computed."""

import numpy as np
import pytest

from p2pnode.engine.base import MOST_NUMERICS_BYTES, Engine
from p2pnode.engine.gguf import read_model_info
from p2pnode.engine.numpy.engine import NumpyEngine
from tests.engine.conformance.engines import (
    ALL,
    CONTEXT,
    D_MODEL,
    MODELS,
    EngineCase,
    distance,
    ids,
    run,
    same,
    states,
)  # fmt: skip
from tests.engine.conformance.loader import Loader

LONG = (200, 1, 1, 64, 128, 118, 1, 32, 60, 1)
"""Batch sizes that cross 256 and 512 positions, of one row and of many."""


@pytest.mark.parametrize("model", MODELS)
def test_results_are_near_the_reference(loader: Loader, model: str) -> None:
    reference = NumpyEngine.load(loader.path(model), ALL)
    engine = loader.shared(model)
    bound = MODELS[model].error(loader.case)
    rows = ids(sum(LONG), seed=1)
    for ours, theirs in zip(
        run(engine, b"s", rows, LONG), run(reference, b"s", rows, LONG), strict=True
    ):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape == (len(theirs), D_MODEL)
        assert distance(ours, theirs) <= bound
        logits = engine.logits(theirs)
        assert logits.dtype == np.float32
        assert logits.shape == (len(theirs), engine.info.vocab_size)
        assert distance(logits, reference.logits(theirs)) <= bound
        assert distance(engine.normed(theirs), reference.normed(theirs)) <= bound


@pytest.mark.parametrize("model", MODELS)
def test_a_split_anywhere_equals_the_whole(loader: Loader, model: str) -> None:
    """A chain's answer does not depend on who holds which layers."""
    whole = loader.shared(model)
    rows = ids(sum(LONG), seed=2)
    expected = run(whole, b"s", rows, LONG)
    for cut in range(1, len(ALL)):
        first = loader.shared(model, range(cut))
        last = loader.shared(model, range(cut, len(ALL)))
        between = run(first, b"s", rows, LONG)
        for number, (state, end) in enumerate(zip(between, expected, strict=True)):
            at = last.length(b"s", cut)
            [ours] = last.forward(b"s", last.layers, [state], at)
            assert same(ours, end), (cut, number)
        assert same(last.logits(expected[-1]), whole.logits(expected[-1]))


def test_one_engine_runs_any_part_of_its_layers(engine: Engine, middle: Engine) -> None:
    """A session may pass one engine twice, with others between."""
    expected = run(engine, b"s", ids(70))
    first = engine.forward(b"t", range(1), [ids(70)], 0)
    between = middle.forward(b"t", range(1, 3), first, 0)
    [ours] = engine.forward(b"t", range(3, 4), between, 0)
    assert same(ours, expected[0])
    assert [engine.length(b"t", layer) for layer in ALL] == [70, 0, 0, 70]
    [alone] = engine.forward(b"u", range(1, 3), first, 0)
    assert same(alone, between[0])


@pytest.mark.parametrize("sizes", [LONG, (1, 1, 1), (64, 64, 64), (7, 300, 2)])
def test_batches_of_one_call_equal_calls_of_their_own(
    engine: Engine, sizes: tuple[int, ...]
) -> None:
    rows = ids(sum(sizes), seed=3)
    batches = np.split(rows, np.cumsum(sizes)[:-1])
    together = engine.forward(b"s", ALL, batches, 0)
    apart = run(engine, b"t", rows, sizes)
    assert [len(state) for state in together] == [*sizes]
    assert all(map(same, together, apart))
    assert engine.length(b"s", 0) == engine.length(b"t", 0) == len(rows)
    assert all(map(same, run(engine, b"s", ids(5)), run(engine, b"t", ids(5))))


def test_hidden_states_in_batches_equal_single_calls(middle: Engine) -> None:
    rows = states(100)
    together = middle.forward(b"s", middle.layers, [rows[:1], rows[1:68], rows[68:]], 0)
    assert all(map(same, together, run(middle, b"t", rows, (1, 67, 32))))


def test_a_replay_gives_the_same_bits_wherever_it_runs(loader: Loader, engine: Engine) -> None:
    rows = ids(sum(LONG), seed=4)
    expected = run(engine, b"s", rows, LONG)
    assert all(map(same, run(engine, b"t", rows, LONG), expected))  # in another session
    engine.close(b"s")
    assert all(map(same, run(engine, b"s", rows, LONG), expected))  # after close
    engine.truncate(b"s", 0)
    assert all(map(same, run(engine, b"s", rows, LONG), expected))  # after truncate
    other = loader.fresh()
    assert (other.numerics, other.device) == (engine.numerics, engine.device)
    run(other, b"t", ids(33, seed=5))  # with another history
    assert all(map(same, run(other, b"u", rows, LONG), expected))


def test_other_batches_agree_within_rounding(engine: Engine, case: EngineCase) -> None:
    rows = ids(600, seed=6)
    whole = np.concatenate(run(engine, b"s", rows, (600,)))
    for sizes in ((64,) * 9 + (24,), (63,) * 9 + (33,), (150,) * 4, (500, *(1,) * 100), (5,) * 120):
        engine.close(b"t")
        cut = run(engine, b"t", rows, sizes)
        assert distance(np.concatenate(cut), whole) <= case.rounding, sizes


def test_small_batches_agree_to_the_bit_where_that_is_promised(
    engine: Engine, case: EngineCase
) -> None:
    if case.exact_rows == 1:
        return
    rows = ids(600, seed=7)
    expected = np.concatenate(run(engine, b"s", rows, (1,) * 600))
    sizes = np.random.default_rng(0).integers(1, case.exact_rows + 1, 600)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), 600)]
    cut = run(engine, b"t", rows, (*map(int, sizes), 600 - int(sizes.sum())))
    assert same(np.concatenate(cut), expected)


def test_logits_of_many_rows_equal_single_rows(engine: Engine) -> None:
    hidden = states(70, seed=8)
    single = np.concatenate([engine.logits(hidden[row : row + 1]) for row in range(70)])
    for count in (1, 2, 4, 8, 31, 32, 33, 70):
        assert same(engine.logits(hidden[:count]), single[:count]), count


def test_the_last_norm_of_many_rows_equals_that_of_single_rows(engine: Engine) -> None:
    hidden = states(70, seed=8)
    kept = hidden.copy()
    single = np.concatenate([engine.normed(hidden[row : row + 1]) for row in range(70)])
    assert single.shape == hidden.shape
    for count in (1, 2, 33, 70):
        assert same(engine.normed(hidden[:count]), single[:count]), count
    assert same(hidden, kept)
    assert engine.normed(hidden[:0]).shape == (0, hidden.shape[1])


def test_results_are_the_callers_own(engine: Engine) -> None:
    [first] = run(engine, b"s", ids(10))
    kept, logits = first.copy(), engine.logits(first)
    kept_logits = logits.copy()
    run(engine, b"s", ids(10, seed=1))
    engine.logits(states(10))
    assert same(first, kept)
    assert same(logits, kept_logits)
    run(engine, b"t", ids(10))[0][:] = 0  # nor does the engine look at them again
    run(engine, b"u", ids(10))
    assert all(map(same, run(engine, b"t", ids(3)), run(engine, b"u", ids(3))))


def test_inputs_may_lie_anywhere_and_are_left_alone(engine: Engine, middle: Engine) -> None:
    rows, tokens = states(9), ids(9)
    [expected] = run(middle, b"s", rows)
    [of_tokens] = run(engine, b"s", tokens)
    for number, layout in enumerate(
        (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2], rows[::-1].copy()[::-1])
    ):
        layout.flags.writeable = False
        [ours] = run(middle, bytes([number]), layout)
        assert same(ours, expected)
        assert (layout == rows).all()
        assert same(engine.logits(layout), engine.logits(rows))
    for number, layout in enumerate((np.repeat(tokens, 3)[::3], tokens[::-1].copy()[::-1])):
        layout.flags.writeable = False
        assert same(run(engine, bytes([number]), layout)[0], of_tokens)


def test_the_profile_names_what_computes(loader: Loader, engine: Engine, middle: Engine) -> None:
    for each in (engine, middle):
        for name in (each.numerics, each.device):
            assert name
            assert name.isprintable()
            assert len(name.encode()) <= MOST_NUMERICS_BYTES
        assert 0 < each.kv_bytes_per_token_layer <= each.info.kv_bytes_per_token_layer
        assert each.weight_bytes >= 0
        assert each.info == read_model_info(loader.path())
    assert (engine.layers, middle.layers) == (ALL, range(1, 3))
    assert middle.numerics == engine.numerics
    assert middle.weight_bytes <= engine.weight_bytes
    assert engine.info.context_length == CONTEXT
