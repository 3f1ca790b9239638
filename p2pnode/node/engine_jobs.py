"""What the engine thread does for a node: compute for stages, and measure what it computes with.

Each model has an engine of its own, and one thread computes with all of them. An engine is loaded
in another thread, while the others compute; here it is measured in short steps, and takes its
place.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from p2pnode.engine.base import Engine, EngineProfile, StageCost, profile
from p2pnode.engine.registry import DEFAULT_OPTIONS, EngineOptions, load_engine
from p2pnode.errors import ModelChangedError, UserError
from p2pnode.inference.draws import Draws
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.running import be_quiet, run_work_quietly
from p2pnode.inference.work import (
    Adopt,
    Computed,
    Work,
    WorkFailed,
    WorkResult,
    forwards_of,
    parts_of,
)
from p2pnode.net.jobs import Failed, Finished, Job
from p2pnode.node.core import NodeCore
from p2pnode.node.events import (
    LoadRequested,
    MeasureRequested,
    NodeEvent,
    Unloaded,
    UnloadRequested,
)
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


@dataclass(slots=True)
class _Arrived:
    """An engine that was loaded, until it takes its place."""

    layers: range
    engine: Engine
    measuring: Iterator[StageCost | None] | None = None


@dataclass(slots=True)
class _Held:
    """What the engine thread computes one model with."""

    model: ModelFile
    grammars: ModelGrammars
    draws: Draws
    engine: Engine | None = None
    measuring: Iterator[StageCost | None] | None = None
    arrived: _Arrived | None = None
    stale: list[Engine] = field(default_factory=list)
    failures: int = 0

    @classmethod
    def of(cls, model: ModelFile) -> "_Held":
        grammars = ModelGrammars(model)
        return cls(model, grammars, Draws(grammars))

    def give_up(self) -> Engine | None:
        """Compute with nothing any more; return what is to be shut."""
        engine, self.engine, self.measuring = self.engine, None, None
        self.failures, self.grammars = 0, ModelGrammars(self.model)
        self.draws = Draws(self.grammars)
        return engine


class EngineJobs:
    """Turns a core's requests into jobs; an engine that has its place is touched in one alone."""

    def __init__(
        self,
        kv_bytes: int,
        options: EngineOptions = DEFAULT_OPTIONS,
        fittings: Fittings = PLAIN,
    ) -> None:
        self._options = options
        self._kv_bytes = kv_bytes
        self._fittings = fittings
        self._models: dict[int, _Held] = {}

    def job_of(self, event: NodeEvent) -> Job[NodeCore, Any] | None:
        """Return what the engine thread is to do about ``event``, if anything."""
        if isinstance(event, ComputeRequested):
            job, work, held = event.job, event.work, self._models.get(event.space)
            # No functions made here: to make one anew is to evaluate its annotations anew.
            run, done = partial(self._run, held, work), partial(_computed, job, event.space)
            return Job(run, done, units_of(work), lambda core: job in core.inference.jobs)
        if isinstance(event, LoadRequested):
            held = self._models.get(event.space)
            if held is None or held.arrived is None or held.arrived.layers != event.layers:
                return None  # it is to be loaded first
            return Job(partial(self._settle, held), partial(_settled, event), math.inf)
        if isinstance(event, MeasureRequested):
            run_step = partial(self._measure, event.space)
            return Job(run_step, partial(_measured, event), math.inf)
        if isinstance(event, UnloadRequested):
            return Job(
                partial(self._unload, event.space), partial(_unloaded, event.space), math.inf
            )
        return None

    # For the loop

    @property
    def is_busy(self) -> bool:
        """Whether an engine has its place already."""
        return any(held.engine is not None for held in list(self._models.values()))

    def take(self, model: ModelFile) -> None:
        """Take a model; or as it was read again: what it held, under another stamp or with more."""
        held = self._models.get(model.info.space_hash32)
        if held is None:
            self._models[model.info.space_hash32] = _Held.of(model)
        else:
            held.model = held.grammars.model = model

    def forget(self, space: int) -> None:
        """Do without a model of which nothing was loaded."""
        self._models.pop(space, None)

    # In another thread

    def load(self, model: ModelFile, layers: range) -> Engine:
        """Load layers, while whatever has its place computes.

        Raises:
            UserError: It cannot be done; says why.
        """
        try:
            return load_engine(
                model.path,
                layers,
                self._options,
                kv_budget_bytes=self._kv_bytes,
                tree=model.tree,
            )
        except UserError:
            raise  # it says itself what is wrong, and is told
        except Exception:
            logger.exception("loading failed")
            raise

    def arrive(self, space: int, layers: range, engine: Engine) -> None:
        """Let an engine that was loaded take its place as soon as that is asked for again."""
        held = self._models.get(space)
        if held is None:  # it was unloaded meanwhile
            _shut(engine)
            return
        if held.arrived is not None:
            held.stale.append(held.arrived.engine)
        held.arrived = _Arrived(layers, engine)

    # In the engine thread

    def _run(self, held: _Held | None, work: Work) -> WorkResult:
        if held is None or held.engine is None:
            return WorkFailed("no layers are loaded here")
        try:
            result = run_work_quietly(held.engine, work, self._fittings.clock, held.draws)
        except ModelChangedError as error:  # its weights changed under it; loading checks them anew
            result = WorkFailed(str(error), is_engine_gone=True)
        except Exception as error:
            logger.exception("the engine failed")
            result = WorkFailed(f"the engine failed: {error}", is_engine_suspect=True)
        result = self._judged(held, result)
        if isinstance(result, WorkFailed) and result.is_engine_gone:
            logger.error("the engine failed: %s", result.reason)
            _shut(held.give_up())  # the next must not be short of what it held
        return result

    def _judged(self, held: _Held, result: WorkResult) -> WorkResult:
        """Take an engine for lost that fails again and again, with little computed between."""
        parts = parts_of(result)
        suspect = [one for one in parts if isinstance(one, WorkFailed) and one.is_engine_suspect]
        if not suspect:
            # Freeing is no proof that it works, nor is a failure of somebody else.
            is_proof = any(isinstance(one, Computed) and one.compute_us for one in parts)
            held.failures = max(0, held.failures - is_proof)
            return result
        held.failures += MENDING
        if held.failures < MENDING * MOST_FAILURES:
            return result
        return replace(suspect[0], is_engine_gone=True)  # of a step, for all its sessions

    def _settle(self, held: _Held) -> EngineProfile | None:
        """Measure the engine that arrived, a step at each call; at last it takes its place.

        Returns:
            What it is, once it is measured; None before.
        """
        arrived = held.arrived
        if arrived is None:
            raise UserError("the engine was given up before it was measured")
        be_quiet()  # nothing may have been computed in this thread before
        while held.stale:
            _shut(held.stale.pop())
        with ExitStack() as failed:
            failed.callback(self._refuse, held, arrived)
            if arrived.measuring is None:
                arrived.engine.settle()
                arrived.measuring = arrived.engine.measuring()
            cost = next(arrived.measuring)
            known = None if cost is None else profile(arrived.engine, cost)
            failed.pop_all()
        if known is not None:
            self._place(held, arrived)
        return known

    def _place(self, held: _Held, arrived: _Arrived) -> None:
        is_first = not self.is_busy
        if held.arrived is arrived:  # else a newer one waits already
            held.arrived = None
        held.measuring, held.failures = None, 0
        before, held.engine = held.engine, self._fittings.engine(arrived.engine)
        _shut(before)
        if is_first:  # others would wait for it
            collapsed = use_huge_pages()
            logger.debug("%d MiB more of the memory are in huge pages", collapsed >> 20)

    def _refuse(self, held: _Held, arrived: _Arrived) -> None:
        """Let an engine go that could not be measured."""
        if held.arrived is arrived:
            held.arrived = None
        arrived.measuring = None
        _shut(arrived.engine)

    def _measure(self, space: int) -> StageCost | bool:
        """Measure a step where nothing else computes meanwhile.

        Returns:
            The cost, at last; before, whether there is one more step.
        """
        held = self._models.get(space)
        if held is None or held.engine is None:
            return False
        if held.measuring is None:
            held.measuring = held.engine.measuring()
        try:
            cost = next(held.measuring)
        except Exception:
            held.measuring = None
            raise
        if cost is not None:
            held.measuring = None
        return cost or True

    def _unload(self, space: int) -> None:
        """Free all that a model has here."""
        held = self._models.pop(space, None)
        if held is None:
            return
        arrived = [] if held.arrived is None else [held.arrived.engine]
        held.arrived = None
        for engine in (*arrived, *held.stale, held.give_up()):
            _shut(engine)


def _shut(engine: Engine | None) -> None:
    """Free what an engine holds; one whose device is gone may fail at that, and is left."""
    if engine is None:
        return
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


def _settled(
    asked: LoadRequested,
    core: NodeCore,
    outcome: Finished[EngineProfile | None] | Failed,
    now: float,
) -> None:
    """Tell what became of an engine that arrived; ask for its next step of measuring."""
    if isinstance(outcome, Failed):
        tell_failed(core, asked, outcome.error, now)
    elif outcome.value is None:
        core.events.append(asked)
    else:
        core.layers_loaded(asked.space, asked.layers, outcome.value, now)


def tell_failed(core: NodeCore, asked: LoadRequested, error: BaseException, now: float) -> None:
    """Tell a core why layers cannot be loaded."""
    reason = reason_of(error)
    if isinstance(error, ModelChangedError):
        core.model_changed(asked.space, f"the file changed: {reason}", now)
    else:
        core.load_failed(asked.space, asked.layers, reason, now)


def _measured(
    asked: MeasureRequested,
    core: NodeCore,
    outcome: Finished[StageCost | bool] | Failed,
    now: float,
) -> None:
    """Take a measurement; where it failed, what is believed stays: no answer depends on it."""
    if isinstance(outcome, Failed):
        logger.warning("measuring failed: %s", outcome.error)
        core.measurement_failed(asked.space, now)
    elif isinstance(outcome.value, StageCost):
        core.measured(asked.space, outcome.value, now)
    elif outcome.value:
        core.events.append(asked)
    else:
        core.measurement_failed(asked.space, now)


def _unloaded(space: int, core: NodeCore, outcome: Finished[None] | Failed, now: float) -> None:
    outcome.unwrap()
    core.events.append(Unloaded(space))


def units_of(work: Work) -> float:
    """Return how much ``work`` is: rows times layers, and none for freeing memory.

    To copy a cache takes another time for each: nobody knows how long.
    """
    if isinstance(work, Adopt):
        return math.inf
    units = 0
    for part in forwards_of(work):
        rows = 0
        for batch in part.batches:
            rows += batch.rows
        units += rows * len(part.layers)
    return units
