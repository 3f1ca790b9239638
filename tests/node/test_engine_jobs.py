"""What the engine thread is told of a node's work."""

import math
import os
import threading
from pathlib import Path

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
from p2pnode.inference.work import Computed, Forward, Release, WorkFailed, WorkResult
from p2pnode.net.jobs import Failed, Finished
from p2pnode.node import engine_jobs
from p2pnode.node.engine_jobs import MENDING, MOST_FAILURES, EngineJobs, units_of
from p2pnode.node.events import LoadRequested, MeasureRequested, NodeEvent, Noted
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
    assert units_of(Release(b"s")) == 0


def test_loading_is_long_and_what_is_neither_is_no_job() -> None:
    jobs = EngineJobs(None, 1 << 20)
    load = jobs.job_of(LoadRequested(SPACE, range(4), "alone"))
    compute = jobs.job_of(ComputeRequested(1, DECODE, SPACE))
    assert load is not None
    assert compute is not None
    assert math.isinf(load.units)
    assert compute.units == 10
    assert jobs.job_of(Noted("a line")) is None


class Core:
    """Hears what a node core would."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def compute_finished(self, job: int, space: int, result: object, now: float) -> None:
        assert space == SPACE
        self.heard.append((job, result))

    def layers_loaded(self, space: int, layers: range, profile: EngineProfile, now: float) -> None:
        assert space == SPACE
        self.heard.append((layers, profile.cost))

    def load_failed(self, space: int, layers: range, reason: str, now: float) -> None:
        assert space == SPACE
        self.heard.append((layers, reason))

    def measured(self, space: int, cost: StageCost, now: float) -> None:
        assert space == SPACE
        self.heard.append(cost)

    def measurement_failed(self, space: int, now: float) -> None:
        assert space == SPACE
        self.heard.append("not measured")


def test_work_without_an_engine_fails_by_name() -> None:
    core = Core()
    job = EngineJobs(None, 1 << 20).job_of(ComputeRequested(3, DECODE, SPACE))
    assert job is not None
    job.done(core, Finished(job.run()), 0.0)  # type: ignore[arg-type]
    assert core.heard == [(3, WorkFailed("no layers are loaded here"))]


def test_a_load_that_fails_is_told_to_the_core() -> None:
    core = Core()
    job = EngineJobs(None, 1 << 20).job_of(LoadRequested(SPACE, range(4), "alone"))
    assert job is not None
    job.done(core, Failed(MemoryError()), 0.0)  # type: ignore[arg-type]
    job.done(core, Finished(EngineProfile("numpy", "cpu", StageCost(1, 2, 3, 4), 64)), 0.0)  # type: ignore[arg-type]
    assert core.heard == [(range(4), "MemoryError"), (range(4), StageCost(1, 2, 3, 4))]


def test_a_load_that_a_person_can_mend_is_told_with_how(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.gguf"
    write_tiny_gguf(path)
    model = ModelFile.open(path, tmp_path / "hashes")
    core = Core()
    job = EngineJobs(model, 1 << 20, EngineOptions("numpy", "cuda:0")).job_of(
        LoadRequested(SPACE, range(4), "alone")
    )
    assert job is not None
    with pytest.raises(UsageError) as caught:
        job.run()
    job.done(core, Failed(caught.value), 0.0)  # type: ignore[arg-type]
    said = "the numpy engine computes on the CPU alone, not on cuda:0"
    how = "Use --engine ggml, or leave --device out"
    assert core.heard == [(range(4), f"{said}; try: {how}")]
    assert not caplog.messages  # no traceback for what is no fault of ours


def test_the_heap_is_collapsed_once_layers_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted() -> int:
        calls.append("collapse")
        return 0

    monkeypatch.setattr(engine_jobs, "use_huge_pages", counted)
    path = tmp_path / "model.gguf"
    write_tiny_gguf(path)
    model = ModelFile.open(path, tmp_path / "hashes")
    job = EngineJobs(model, 1 << 20, EngineOptions("numpy")).job_of(
        LoadRequested(SPACE, range(1), "alone")
    )
    assert job is not None
    job.run()
    assert calls == ["collapse"]


class Weak:
    """An engine that fails at what it is told to; counts how often it is shut."""

    numerics, device, kv_bytes_per_token_layer, weight_bytes = "numpy", "cpu", 4, 0
    kv_sizes = EXACT
    info = random_model(1, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2).info

    def __init__(self, *, fails_at: str = "") -> None:
        self._fails_at = fails_at
        self.shuts = 0

    def measure(self) -> StageCost:
        if self._fails_at == "measure":
            raise CapacityError("no memory to measure")
        return StageCost(1, 2, 3, 4)

    def forward(self, *_: object) -> list[object]:
        raise ModelChangedError("the model's file changed while it was computed with")

    def shut(self) -> None:
        self.shuts += 1
        if self._fails_at == "shut":
            raise EngineError("its device is gone")


def loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *engines: Weak) -> EngineJobs:
    """Let these be loaded, one after the other."""
    path, left = tmp_path / "model.gguf", iter(engines)
    write_tiny_gguf(path)
    monkeypatch.setattr(engine_jobs, "load_engine", lambda *_, **__: next(left))
    return EngineJobs(ModelFile.open(path, tmp_path / "hashes"), 1 << 20)


def run(jobs: EngineJobs, event: NodeEvent) -> object:
    job = jobs.job_of(event)
    assert job is not None
    return job.run()


def test_an_engine_that_cannot_be_measured_is_shut_and_the_one_before_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, weak = Weak(), Weak(fails_at="measure")
    jobs = loading(monkeypatch, tmp_path, before, weak)
    run(jobs, LoadRequested(SPACE, range(2), "alone"))
    with pytest.raises(CapacityError, match="no memory to measure"):
        run(jobs, LoadRequested(SPACE, range(2), "alone"))
    assert (before.shuts, weak.shuts) == (0, 1)
    assert run(jobs, MeasureRequested(SPACE)) == StageCost(1, 2, 3, 4)


def test_an_engine_that_cannot_be_shut_keeps_no_other_from_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stuck, after = Weak(fails_at="shut"), Weak()
    jobs = loading(monkeypatch, tmp_path, stuck, after)
    for _ in range(2):
        run(jobs, LoadRequested(SPACE, range(2), "alone"))
    assert (stuck.shuts, after.shuts) == (1, 0)
    assert run(jobs, MeasureRequested(SPACE)) == StageCost(1, 2, 3, 4)


def test_numpy_is_quiet_in_the_thread_that_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs = loading(monkeypatch, tmp_path, Weak())
    told = set[object]()

    def in_a_thread() -> None:
        run(jobs, LoadRequested(SPACE, range(2), "alone"))
        told.update(np.geterr().values())

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert told == {"ignore"}
    assert "warn" in np.geterr().values()  # here nothing changed


def test_weights_that_changed_under_an_engine_end_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = Weak()
    jobs = loading(monkeypatch, tmp_path, engine)
    run(jobs, LoadRequested(SPACE, range(2), "alone"))
    work = Forward(b"s", range(2), (token_batch((1,), 0),), "f16", None, 0)
    changed = "the model's file changed while it was computed with"
    assert run(jobs, ComputeRequested(1, work, SPACE)) == WorkFailed(changed, is_engine_gone=True)
    assert engine.shuts == 1
    assert run(jobs, ComputeRequested(2, work, SPACE)) == WorkFailed("no layers are loaded here")


def test_a_measurement_that_comes_to_nothing_is_told_to_the_core() -> None:
    core = Core()
    job = EngineJobs(None, 1 << 20).job_of(MeasureRequested(SPACE))
    assert job is not None
    for outcome in (Failed(MemoryError()), Finished(job.run()), Finished(StageCost(1, 2, 3, 4))):
        job.done(core, outcome, 0.0)  # type: ignore[arg-type]
    assert core.heard == ["not measured", "not measured", StageCost(1, 2, 3, 4)]


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
    failing: list[bool], is_lost: bool, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, engine = EngineJobs(None, 1 << 20), Failing(failing)
    jobs._engine = engine  # type: ignore[assignment]

    def work(*_: object) -> WorkResult:
        if not engine.failing.pop(0):
            return Computed((), 5)
        if isinstance(error, EngineError):
            return WorkFailed(str(error), is_engine_suspect=True)
        raise error

    monkeypatch.setattr("p2pnode.node.engine_jobs.run_work_quietly", work)
    results = [jobs._run(DECODE) for _ in range(len(failing))]
    gone = [isinstance(one, WorkFailed) and one.is_engine_gone for one in results]
    assert any(gone) == gone[-1] == engine.is_shut == is_lost


def test_a_file_that_was_touched_still_follows_schemas(tmp_path: Path) -> None:
    """Its vocabulary is read with the first schema, long after the file was hashed."""
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    model = ModelFile.open(path, tmp_path / "hashes")
    grammars = ModelGrammars(model)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DrawError, match="written to since"):
        grammars.matcher(ANY_OBJECT)
    jobs = EngineJobs(model, 1 << 20)
    jobs._grammars = grammars
    jobs.take(model.read_again(Stamp.of(path)))
    assert len(grammars.matcher(ANY_OBJECT).allowed((0,)))
