"""Steps of several sessions: each has its own outcome, and the bits that it has alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Engine, SessionRows
from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import (
    CapacityError,
    DeviceLostError,
    EngineError,
    ModelChangedError,
)
from p2pnode.inference.activations import Batch, token_batch
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Computed, Forward, Step, Stepped, WorkFailed, WorkResult
from p2pnode.testing.stand_in import stand_in
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

LAYERS = range(4)
COUNT = 5


def engine(kv_sessions: int = COUNT) -> Engine:
    budget = kv_sessions * 40 * 4 * random_model(5, n_layers=4).info.kv_bytes_per_token_layer
    return random_model(5, n_layers=4, kv_budget_bytes=budget)


def part(number: int, batch: Batch, **more: Any) -> Forward:
    layers = more.pop("layers", LAYERS)
    sampling = more.pop("sampling", Sampling())
    return Forward(bytes([number]) * 44, layers, (batch,), "f16", sampling, 0, 40, **more)


def prompts(**more: Any) -> tuple[Forward, ...]:
    return tuple(
        part(number, token_batch(tuple(range(3, 5 + 3 * number)), 0), **more)
        for number in range(COUNT)
    )


def alone(works: tuple[Forward, ...]) -> list[WorkResult]:
    made = engine()
    return [run_work(made, work, lambda: 0.0) for work in works]


def together(made: Engine, works: tuple[Forward, ...]) -> tuple[Computed | WorkFailed, ...]:
    result = run_work(made, Step(works), lambda: 0.0)
    assert isinstance(result, Stepped)
    return result.results


@pytest.mark.parametrize("layers", [LAYERS, range(3)])
def test_each_part_gets_what_it_gets_alone(layers: range) -> None:
    works = prompts(layers=layers, sampling=Sampling() if layers is LAYERS else None)
    assert list(together(engine(), works)) == alone(works)


def test_tokens_follow_each_other_as_alone() -> None:
    one, many = engine(), engine()
    works = prompts(sampling=Sampling(temperature=1.0, seed=7))
    for _ in range(6):
        results = together(many, works)
        assert list(results) == [run_work(one, work, lambda: 0.0) for work in works]
        works = tuple(
            replace(work, batches=result.batches)
            for work, result in zip(works, results, strict=True)
            if isinstance(result, Computed)
        )
        assert len(works) == COUNT


def test_logits_of_all_draws_are_computed_at_once() -> None:
    made = engine()
    calls: list[int] = []

    def counted(rows: np.ndarray[Any, Any]) -> object:
        calls.append(len(rows))
        return made.logits(rows)

    together(stand_in(made, logits=counted), prompts())
    assert calls == [COUNT]


# Whoever is to blame fails alone


def bad_states() -> Batch:
    width = random_model(5, n_layers=4).info.d_model
    payload = np.full((1, width), np.nan, "<f4").tobytes()
    return Batch(0, 1, ((Slice(DType.F32, (1, width), payload),),))


def one_fails(culprit: Forward, made: Engine | None = None) -> WorkFailed:
    works = list(prompts())
    works[2] = culprit
    results = together(made or engine(), tuple(works))
    expected = alone(prompts())
    assert [one for number, one in enumerate(results) if number != 2] == [
        one for number, one in enumerate(expected) if number != 2
    ]
    failed = results[2]
    assert isinstance(failed, WorkFailed)
    return failed


def test_a_token_beyond_the_vocabulary_fails_its_sender_alone() -> None:
    assert one_fails(part(2, token_batch((10**6,), 0))).is_input_bad


def test_states_that_are_no_numbers_fail_their_sender_alone() -> None:
    works = tuple(
        part(number, bad_states() if number == 1 else _states(number), layers=range(1, 4))
        for number in range(3)
    )
    first, bad, third = together(engine(), works)
    assert isinstance(bad, WorkFailed)
    assert bad.is_input_bad
    assert isinstance(first, Computed)
    assert isinstance(third, Computed)


def _states(seed: int) -> Batch:
    width = random_model(5, n_layers=4).info.d_model
    rows = np.random.default_rng(seed).standard_normal((1, width)).astype("<f4")
    return Batch(0, 1, ((Slice(DType.F32, (1, width), rows.tobytes()),),))


def test_a_schema_that_cannot_be_followed_fails_its_session_alone() -> None:
    sampling = Sampling(schema='{"type": "object"}', ends=(1,))
    assert one_fails(part(2, token_batch((3,), 0), sampling=sampling)).is_undrawable


def test_a_position_that_is_not_next_fails_its_session_alone() -> None:
    """It is our own mistake, and the engine refuses all of the step; the others are computed."""
    assert one_fails(part(2, token_batch((3,), 17))).is_engine_suspect


def test_memory_that_runs_out_fails_those_who_lack_it() -> None:
    results = together(engine(kv_sessions=3), prompts())
    failed = [one for one in results if isinstance(one, WorkFailed)]
    assert len(failed) == 2
    assert all(one.is_memory_short for one in failed)
    assert list(results[:3]) == alone(prompts())[:3]


@pytest.mark.parametrize("error", [CapacityError("full"), EngineError("odd"), MemoryError()])
def test_where_a_step_fails_as_a_whole_each_session_is_computed_by_itself(
    error: Exception,
) -> None:
    assert list(together(failing(error), prompts())) == alone(prompts())


def failing(error: Exception) -> Engine:
    def refuse(layers: range, parts: list[SessionRows]) -> None:
        raise error

    return stand_in(engine(), forward_many=refuse)


def test_a_device_that_is_lost_is_lost_for_all() -> None:
    result = run_work(failing(DeviceLostError("gone")), Step(prompts()), lambda: 0.0)
    assert isinstance(result, WorkFailed)
    assert result.is_engine_gone


def test_weights_that_changed_are_told_to_whoever_runs_it() -> None:
    with pytest.raises(ModelChangedError):
        run_work(failing(ModelChangedError("changed")), Step(prompts()), lambda: 0.0)


def test_an_engine_without_logits_for_many_draws_them_one_by_one() -> None:
    made = engine()
    logits = made.logits

    def few(rows: np.ndarray[Any, Any]) -> object:
        if len(rows) > 1:
            raise CapacityError("too many")
        return logits(rows)

    assert list(together(stand_in(made, logits=few), prompts())) == alone(prompts())


# What it took


def test_each_part_is_told_its_share_of_the_time() -> None:
    works = tuple(part(n, token_batch((3,) * (1 + n), 0), sampling=None) for n in range(3))
    moments = iter((0.0, 0.6))
    last = [0.0]

    def now() -> float:
        last[0] = next(moments, last[0])
        return last[0]

    result = run_work(engine(), Step(works), now)
    assert isinstance(result, Stepped)
    spent = [one.compute_us for one in result.results if isinstance(one, Computed)]
    assert spent == [100_000, 200_000, 300_000]
