"""What the engine thread is told of a node's work."""

import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import EXACT, EngineProfile, StageCost
from p2pnode.engine.random_model import random_model
from p2pnode.engine.registry import EngineOptions
from p2pnode.engine.sampling.schema_text import ANY_OBJECT
from p2pnode.errors import (
    CapacityError,
    DrawError,
    EngineError,
    LocalProtocolError,
    ModelChangedError,
    UsageError,
)
from p2pnode.inference.activations import token_batch
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.work import (
    Adopt,
    Computed,
    Forward,
    Keep,
    Release,
    Step,
    Stepped,
    WorkFailed,
    WorkResult,
)
from p2pnode.net.jobs import Finished, outcome_of
from p2pnode.node import engine_jobs
from p2pnode.node.engine_jobs import (
    MENDING,
    MOST_FAILURES,
    EngineJobs,
    tell_failed,
    units_of,
)
from p2pnode.node.events import (
    LoadRequested,
    MeasureRequested,
    NodeEvent,
    Noted,
    UnloadRequested,
)
from p2pnode.node.grammars import ModelGrammars
from p2pnode.node.model_file import ModelFile
from p2pnode.node.stamp import Stamp
from p2pnode.testing.tiny_gguf import write_tiny_gguf

SPACE = 7
DECODE = Forward(b"s", range(10, 20), (token_batch((1,), 7),), "f16", None, 0)
PREFILL = Forward(
    b"s", range(10, 20), (token_batch((1,) * 64, 0), token_batch((1,) * 32, 64)), "f16", None, 0
)


def test_work_is_measured_in_rows_and_layers() -> None:
    assert units_of(DECODE) == 10
    assert units_of(PREFILL) == 96 * 10
    assert units_of(Release(b"s")) == units_of(Keep(b"s", b"k", 3, range(4), is_copy=False)) == 0
    assert units_of(Adopt(b"s", b"k", range(4), 3, 9, is_copy=True)) == math.inf
    assert units_of(Step((DECODE, replace(DECODE, session=b"t")))) == 20


def test_measuring_is_long_and_what_is_not_loaded_yet_is_no_job() -> None:
    jobs = EngineJobs(1 << 20)
    measure = jobs.job_of(MeasureRequested(SPACE))
    compute = jobs.job_of(ComputeRequested(1, DECODE, SPACE))
    assert measure is not None
    assert compute is not None
    assert math.isinf(measure.units)
    assert compute.units == 10
    assert jobs.job_of(Noted("a line")) is None
    assert jobs.job_of(LoadRequested(SPACE, range(4), "alone")) is None


class Core:
    """Hears what a node core would."""

    def __init__(self, *events: NodeEvent) -> None:
        self.heard: list[object] = []
        self.events = list(events)

    def compute_finished(self, job: int, space: int, result: object, now: float) -> None:
        self.heard.append((job, result))

    def layers_loaded(self, space: int, layers: range, profile: EngineProfile, now: float) -> None:
        self.heard.append((layers, profile.cost))

    def load_failed(self, space: int, layers: range, reason: str, now: float) -> None:
        self.heard.append((layers, reason))

    def measured(self, space: int, cost: StageCost, now: float) -> None:
        self.heard.append(cost)

    def measurement_failed(self, space: int, now: float) -> None:
        self.heard.append("not measured")


def test_work_without_an_engine_fails_by_name() -> None:
    core = Core()
    job = EngineJobs(1 << 20).job_of(ComputeRequested(3, DECODE, SPACE))
    assert job is not None
    job.done(core, Finished(job.run()), 0.0)  # type: ignore[arg-type]
    assert core.heard == [(3, WorkFailed("no layers are loaded here"))]


def run(jobs: EngineJobs, event: NodeEvent) -> list[object]:
    """Do what an event leads to, job after job; return what the core hears of it."""
    core = Core(event)
    while core.events:
        job = jobs.job_of(core.events.pop(0))
        if job is None:
            return [*core.heard, "nothing"]
        job.done(core, outcome_of(job.run), 0.0)  # type: ignore[arg-type]
    return core.heard


def load(jobs: EngineJobs, model: ModelFile, layers: range = range(2)) -> list[object]:
    """Load layers, and let them take their place; return what the core hears of it."""
    asked = LoadRequested(model.info.space_hash32, layers, "alone")
    jobs.arrive(asked.space, layers, jobs.load(model, layers))
    return run(jobs, asked)


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> ModelFile:
    path = tmp_path / "model.gguf"
    write_tiny_gguf(path)
    return ModelFile.open(path, tmp_path / "hashes")


def test_a_load_that_fails_is_told_to_the_core() -> None:
    core, asked = Core(), LoadRequested(SPACE, range(4), "alone")
    tell_failed(core, asked, MemoryError(), 0.0)  # type: ignore[arg-type]
    tell_failed(core, asked, UsageError("no", hint="Do this."), 0.0)  # type: ignore[arg-type]
    assert core.heard == [(range(4), "MemoryError"), (range(4), "no; try: Do this")]


def test_a_load_that_a_person_can_mend_leaves_no_traceback(
    model: ModelFile, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = EngineJobs(1 << 20, EngineOptions("numpy", "cuda:0"))
    with pytest.raises(UsageError, match="computes on the CPU alone, not on cuda:0"):
        jobs.load(model, range(4))
    assert not caplog.messages


def test_the_heap_is_collapsed_once_the_first_layers_are_loaded(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted() -> int:
        calls.append("collapse")
        return 0

    monkeypatch.setattr(engine_jobs, "use_huge_pages", counted)
    jobs = EngineJobs(1 << 20, EngineOptions("numpy"))
    jobs.take(model)
    load(jobs, model)
    assert calls == ["collapse"]
    load(jobs, model)  # the ones before compute for others meanwhile
    assert calls == ["collapse"]


class Weak:
    """An engine that fails at what it is told to; counts how often it is shut."""

    numerics, device, kv_bytes_per_token_layer, weight_bytes = "numpy", "cpu", 4, 0
    kv_sizes = EXACT
    info = random_model(1, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2).info

    def __init__(self, *, fails_at: str = "") -> None:
        self.settled_in = 0
        self._fails_at = fails_at
        self.shuts = 0

    def measuring(self) -> Iterator[StageCost | None]:
        yield None
        if self._fails_at == "measure":
            raise CapacityError("no memory to measure")
        yield StageCost(1, 2, 3, 4)

    def settle(self) -> None:
        self.settled_in = threading.get_ident()

    def forward(self, *_: object) -> list[object]:
        raise ModelChangedError("the model's file changed while it was computed with")

    def shut(self) -> None:
        self.shuts += 1
        if self._fails_at == "shut":
            raise EngineError("its device is gone")


def loading(
    monkeypatch: pytest.MonkeyPatch, *models: ModelFile, engines: Sequence[Weak]
) -> EngineJobs:
    """Let these be loaded, one after the other."""
    left = iter(engines)
    monkeypatch.setattr(engine_jobs, "load_engine", lambda *_, **__: next(left))
    jobs = EngineJobs(1 << 20)
    for model in models:
        jobs.take(model)
    return jobs


COST = StageCost(1, 2, 3, 4)
WORK = Forward(b"s", range(2), (token_batch((1,), 0),), "f16", None, 0)


def test_an_engine_that_cannot_be_measured_is_shut_and_the_one_before_stays(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    before, weak = Weak(), Weak(fails_at="measure")
    jobs = loading(monkeypatch, model, engines=(before, weak))
    assert load(jobs, model) == [(range(2), COST)]
    assert load(jobs, model) == [(range(2), "no memory to measure")]
    assert (before.shuts, weak.shuts) == (0, 1)
    assert run(jobs, MeasureRequested(model.info.space_hash32)) == [COST]


def test_an_engine_that_cannot_be_shut_keeps_no_other_from_its_place(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    stuck, after = Weak(fails_at="shut"), Weak()
    jobs = loading(monkeypatch, model, engines=(stuck, after))
    for _ in range(2):
        load(jobs, model)
    assert (stuck.shuts, after.shuts) == (1, 0)
    assert run(jobs, MeasureRequested(model.info.space_hash32)) == [COST]


def test_an_engine_is_at_home_in_the_thread_that_computes_with_it(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    engine = Weak()
    jobs = loading(monkeypatch, model, engines=(engine,))
    told = set[object]()

    def in_a_thread() -> None:
        load(jobs, model)
        told.update((threading.get_ident(), *np.geterr().values()))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert told == {engine.settled_in, "ignore"}
    assert "warn" in np.geterr().values()  # here nothing changed


def test_weights_that_changed_under_an_engine_end_it(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    engine, space = Weak(), model.info.space_hash32
    jobs = loading(monkeypatch, model, engines=(engine,))
    load(jobs, model)
    changed = "the model's file changed while it was computed with"
    failed = WorkFailed(changed, is_engine_gone=True)
    assert run(jobs, ComputeRequested(1, WORK, space)) == [(1, failed)]
    assert engine.shuts == 1
    gone = WorkFailed("no layers are loaded here")
    assert run(jobs, ComputeRequested(2, WORK, space)) == [(2, gone)]


def test_each_model_has_an_engine_of_its_own(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile, tmp_path: Path
) -> None:
    path = tmp_path / "other.gguf"
    write_tiny_gguf(path, seed=1)
    other, one, two = ModelFile.open(path, tmp_path / "hashes"), Weak(), Weak()
    jobs = loading(monkeypatch, model, other, engines=(one, two))
    load(jobs, model)
    load(jobs, other)
    assert (one.shuts, two.shuts) == (0, 0)
    run(jobs, ComputeRequested(1, WORK, model.info.space_hash32))
    assert (one.shuts, two.shuts) == (1, 0)
    space = other.info.space_hash32
    assert run(jobs, MeasureRequested(space)) == [COST]
    assert run(jobs, UnloadRequested(space)) == ["nothing"]  # but that the loop hears of it
    assert two.shuts == 1
    assert run(jobs, MeasureRequested(space)) == ["not measured"]
    assert not jobs.is_busy


def test_others_compute_between_two_steps_of_measuring(
    monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    jobs = loading(monkeypatch, model, engines=(Weak(),))
    asked = LoadRequested(model.info.space_hash32, range(2), "alone")
    jobs.arrive(asked.space, asked.layers, jobs.load(model, asked.layers))
    core = Core()
    job = jobs.job_of(asked)
    assert job is not None
    job.done(core, outcome_of(job.run), 0.0)  # type: ignore[arg-type]
    assert (core.heard, core.events) == ([], [asked])


def test_what_arrives_for_nobody_is_shut(monkeypatch: pytest.MonkeyPatch, model: ModelFile) -> None:
    engines = [Weak() for _ in range(4)]
    jobs = loading(monkeypatch, model, engines=engines)
    space = model.info.space_hash32
    jobs.arrive(space, range(1), jobs.load(model, range(1)))
    assert load(jobs, model) == [(range(2), COST)]  # the one before is wanted no more
    assert [one.shuts for one in engines] == [1, 0, 0, 0]
    jobs.arrive(space, range(3), jobs.load(model, range(3)))
    run(jobs, UnloadRequested(space))
    jobs.arrive(space, range(3), jobs.load(model, range(3)))
    assert [one.shuts for one in engines] == [1, 1, 1, 1]


def test_a_measurement_that_comes_to_nothing_is_told_to_the_core() -> None:
    jobs = EngineJobs(1 << 20)
    assert run(jobs, MeasureRequested(SPACE)) == ["not measured"]


class Failing:
    """An engine of whose steps some fail."""

    def __init__(self, failing: list[bool]) -> None:
        self.failing = list(failing)
        self.is_shut = False

    def shut(self) -> None:
        self.is_shut = True


@pytest.mark.parametrize(
    ("failing", "is_lost"),
    [
        ([True] * (MOST_FAILURES - 1), False),
        ([True] * MOST_FAILURES, True),
        ([True, *[False] * MENDING] * 4 * MOST_FAILURES, False),
        ([True, False] * (MOST_FAILURES + 1) + [True], True),
    ],
)
@pytest.mark.parametrize("error", [EngineError("a bad step"), LocalProtocolError("a bad shape")])
def test_what_fails_one_session_is_no_lost_device_and_again_and_again_it_is(
    failing: list[bool],
    is_lost: bool,
    error: Exception,
    model: ModelFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs, engine = EngineJobs(1 << 20), Failing(failing)
    jobs.take(model)
    held = jobs._models[model.info.space_hash32]
    held.engine = engine  # type: ignore[assignment]

    def work(*_: object) -> WorkResult:
        if not engine.failing.pop(0):
            return Computed((), 5)
        if isinstance(error, EngineError):
            return WorkFailed(str(error), is_engine_suspect=True)
        raise error

    monkeypatch.setattr("p2pnode.node.engine_jobs.run_work_quietly", work)
    results = [jobs._run(held, DECODE) for _ in range(len(failing))]
    gone = [isinstance(one, WorkFailed) and one.is_engine_gone for one in results]
    assert any(gone) == gone[-1] == engine.is_shut == is_lost


def test_a_file_that_was_touched_still_follows_schemas(model: ModelFile) -> None:
    """Its vocabulary is read with the first schema, long after the file was hashed."""
    path = model.path
    grammars = ModelGrammars(model)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DrawError, match="written to since"):
        grammars.matcher(ANY_OBJECT)
    jobs = EngineJobs(1 << 20)
    jobs.take(model)
    jobs._models[model.info.space_hash32].grammars = grammars
    jobs.take(model.read_again(Stamp.of(path)))
    assert len(grammars.matcher(ANY_OBJECT).allowed((0,)))


def held_by_nobody() -> Any:
    """Return what keeps count of an engine's failures."""
    return SimpleNamespace(failures=0)


def test_an_engine_that_fails_a_part_of_every_step_is_lost_for_all_of_it() -> None:
    """The parts that went well are no excuse: each requester would find that out anew."""
    jobs, held = EngineJobs(1 << 20), held_by_nobody()
    odd = WorkFailed("odd", is_engine_suspect=True)
    step = Stepped((WorkFailed("bad input", is_input_bad=True), Computed((), 5), odd))
    judged = [jobs._judged(held, step) for _ in range(MOST_FAILURES)]
    assert judged[:-1] == [step] * (MOST_FAILURES - 1)
    assert judged[-1] == replace(odd, is_engine_gone=True)


def test_a_step_that_fails_by_its_senders_says_nothing_of_the_engine() -> None:
    jobs, held = EngineJobs(1 << 20), held_by_nobody()
    step = Stepped((WorkFailed("bad input", is_input_bad=True), Computed((), 5)))
    assert all(jobs._judged(held, step) == step for _ in range(3 * MOST_FAILURES))
