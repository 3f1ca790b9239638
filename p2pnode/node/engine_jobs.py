"""What the engine thread does for a node: compute for stages, and load layers."""

import logging
import math
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final

from p2pnode.engine.base import Engine, EngineProfile, StageCost, profile
from p2pnode.engine.registry import DEFAULT_OPTIONS, EngineOptions, load_engine
from p2pnode.errors import ModelChangedError, UserError
from p2pnode.inference.draws import Draws
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.running import be_quiet, run_work_quietly
from p2pnode.inference.work import (
    Computed,
    Work,
    WorkFailed,
    WorkResult,
    forwards_of,
    parts_of,
)
from p2pnode.net.jobs import Failed, Finished, Job
from p2pnode.node.core import NodeCore
from p2pnode.node.events import LoadRequested, MeasureRequested, NodeEvent, UnloadRequested
from p2pnode.node.fittings import PLAIN, Fittings
from p2pnode.node.grammars import ModelGrammars
from p2pnode.node.huge_pages import use_huge_pages
from p2pnode.node.model_file import ModelFile

logger = logging.getLogger(__name__)


MOST_FAILURES: Final = 4
"""Failures of an engine in a row that are laid to their sessions; the next node may do better."""

MENDING: Final = 3
"""Jobs done that make up for a failure: an engine that fails more often than that computes no
answer, and each requester would find that out anew."""


class EngineJobs:
    """Turns a core's requests into jobs; the engine is touched in the engine thread alone."""

    def __init__(
        self,
        model: ModelFile | None,
        kv_bytes: int,
        options: EngineOptions = DEFAULT_OPTIONS,
        fittings: Fittings = PLAIN,
    ) -> None:
        self._model = model
        self._options = options
        self._kv_bytes = kv_bytes
        self._fittings = fittings
        self._engine: Engine | None = None
        self._grammars = ModelGrammars(model)
        self._draws = Draws(self._grammars)
        self._ready: range | None = None  # layers of which every shard is here
        self._failures = 0

    def job_of(self, event: NodeEvent) -> Job[NodeCore, Any] | None:
        """Return what the engine thread is to do about ``event``, if anything."""
        if isinstance(event, ComputeRequested):
            job, work = event.job, event.work
            # No functions made here: to make one anew is to evaluate its annotations anew.
            run, done = partial(self._run, work), partial(_computed, job, event.space)
            return Job(run, done, units_of(work), lambda core: job in core.inference.jobs)
        if isinstance(event, LoadRequested):
            is_whole = self._model is None or not self._model.may_lack_shards
            return self._load_job(event) if is_whole or event.layers == self._ready else None
        if isinstance(event, MeasureRequested):
            return Job(self._measure, partial(_measured, event.space), math.inf)
        if isinstance(event, UnloadRequested):
            return Job(self._unload, lambda core, outcome, now: outcome.unwrap(), 0)
        return None

    def take(self, model: ModelFile) -> None:
        """Take the model as it was read again: what it held, under another stamp or with more."""
        self._model = self._grammars.model = model

    def ready(self, layers: range) -> None:
        """Every shard of ``layers`` is here."""
        self._ready = layers

    def _load_job(self, asked: LoadRequested) -> Job[NodeCore, EngineProfile]:
        """Load in the engine thread: computing waits, the loop does not."""
        space, layers = asked.space, asked.layers

        def done(core: NodeCore, outcome: Finished[EngineProfile] | Failed, now: float) -> None:
            if isinstance(outcome, Finished):
                core.layers_loaded(space, layers, outcome.value, now)
                return
            reason = reason_of(outcome.error)
            if isinstance(outcome.error, ModelChangedError):
                core.model_changed(space, f"the file changed: {reason}", now)
            else:
                core.load_failed(space, layers, reason, now)

        return Job(lambda: self._load(layers), done, math.inf)

    def _run(self, work: Work) -> WorkResult:
        if self._engine is None:
            return WorkFailed("no layers are loaded here")
        try:
            result = run_work_quietly(self._engine, work, self._fittings.clock, self._draws)
        except ModelChangedError as error:  # its weights changed under it; loading checks them anew
            result = WorkFailed(str(error), is_engine_gone=True)
        except Exception as error:
            logger.exception("the engine failed")
            result = WorkFailed(f"the engine failed: {error}", is_engine_suspect=True)
        result = self._judged(result)
        if isinstance(result, WorkFailed) and result.is_engine_gone:
            self._give_up(self._engine, result.reason)
        return result

    def _judged(self, result: WorkResult) -> WorkResult:
        """Take an engine for lost that fails again and again, with little computed between."""
        parts = parts_of(result)
        failed = [one for one in parts if isinstance(one, WorkFailed)]
        if not any(one.is_engine_suspect for one in failed):
            # Freeing is no proof that it works, nor is a failure of somebody else.
            is_proof = any(isinstance(one, Computed) and one.compute_us for one in parts)
            self._failures = max(0, self._failures - is_proof)
            return result
        self._failures += MENDING
        if self._failures < MENDING * MOST_FAILURES:
            return result
        return replace(failed[0], is_engine_gone=True)  # of a step, for all its sessions

    def _give_up(self, engine: Engine, reason: str) -> None:
        """Free what a failed engine held: the next must not be short of it."""
        logger.error("the engine failed: %s", reason)
        self._failures = 0
        self._grammars = ModelGrammars(self._model)
        self._engine, self._draws = None, Draws(self._grammars)
        _shut(engine)

    def _unload(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            _shut(engine)

    def _measure(self) -> StageCost | None:
        """Measure where nothing else computes meanwhile."""
        return None if self._engine is None else self._engine.measure()

    def _load(self, layers: range) -> EngineProfile:
        if self._model is None:
            raise UserError("this node has no model")
        be_quiet()  # nothing is computed in this thread before
        with ExitStack() as loaded:
            try:
                engine = load_engine(
                    self._model.path,
                    layers,
                    self._options,
                    kv_budget_bytes=self._kv_bytes,
                    tree=self._model.tree,
                )
                loaded.callback(_shut, engine)  # unless it is taken
                known = profile(engine)
            except UserError:
                raise  # it says itself what is wrong, and is told
            except Exception:
                logger.exception("loading failed")
                raise
            loaded.pop_all()
        before, self._engine = self._engine, self._fittings.engine(engine)
        if before is not None:
            _shut(before)
        collapsed = use_huge_pages()
        logger.debug("%d MiB more of the memory are in huge pages", collapsed >> 20)
        return known


def _shut(engine: Engine) -> None:
    """Free what an engine holds; one whose device is gone may fail at that, and is left."""
    try:
        engine.shut()
    except Exception:
        logger.exception("the engine could not be shut")


def reason_of(error: BaseException) -> str:
    """Return what is wrong, and what a person can do about it where that is known."""
    if isinstance(error, UserError) and error.hint:
        return f"{error}; try: {error.hint.rstrip('.')}"
    return str(error) or type(error).__name__


def _computed(
    job: int, space: int, core: NodeCore, outcome: Finished[WorkResult] | Failed, now: float
) -> None:
    # In the engine thread, for the next stage waits; that it raised would be our own mistake.
    result = outcome.value if isinstance(outcome, Finished) else outcome.unwrap()
    core.compute_finished(job, space, result, now)


def _measured(
    space: int, core: NodeCore, outcome: Finished[StageCost | None] | Failed, now: float
) -> None:
    """Take a measurement; where it failed, what is believed stays: no answer depends on it."""
    if isinstance(outcome, Finished) and outcome.value is not None:
        core.measured(space, outcome.value, now)
        return
    if isinstance(outcome, Failed):
        logger.warning("measuring failed: %s", outcome.error)
    core.measurement_failed(space, now)


def units_of(work: Work) -> int:
    """Return how much ``work`` is: rows times layers, and none for freeing memory."""
    units = 0
    for part in forwards_of(work):
        rows = 0
        for batch in part.batches:
            rows += batch.rows
        units += rows * len(part.layers)
    return units
