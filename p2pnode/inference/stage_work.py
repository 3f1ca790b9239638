"""What the engine is asked to do for the stages of a node, and for whom next.

What a stage has waiting becomes work of bounded size; what is computed next, and what together, is
the batch scheduler's to say (:mod:`p2pnode.scheduler.batcher`).
"""

from collections.abc import Sequence

from p2pnode.engine.base import MOST_ROWS_TOGETHER, SessionKey, StageCost
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import ComputeRequested, InferenceEvent
from p2pnode.inference.stage import Stage, StageKey, size_of
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.inference.table import StageTable
from p2pnode.inference.work import Adopt, Forward, Keep, Release, Step, Work
from p2pnode.scheduler.batcher import Batcher, EngineQueue
from p2pnode.scheduler.step_cost import StepCost
from p2pnode.scheduler.waiting import Kind, Waiting

Keys = tuple[StageKey | None, ...]
"""The stages that wait for a piece of work, part by part; None for one that is gone."""


class StageWork:
    """The work of one node's engine.

    Invariants: a stage waits while it has batches and no job: it is ``_alone`` where no other
    waits, since ``_since``, and with the batcher else. ``_step`` is the step that the batcher takes
    to be with the engine, and in ``jobs`` while any stage waits for it; ``_now`` is the moment of
    the newest input.

    Attributes:
        jobs: The stages that wait for each piece of work; none where memory is to be freed.
        handed: The kept cache that each piece of work hands on, in either direction; such work is
            done whoever waits for it, or a cache would be lost between two names.
    """

    def __init__(
        self,
        config: InferenceConfig,
        stages: StageTable,
        coding: StageCoding,
        events: list[InferenceEvent],
    ) -> None:
        """What is asked of the engine is put behind ``events``."""
        self._config = config
        self._stages = stages
        self._coding = coding
        self._events = events
        self._batcher = Batcher(config.step_ms, is_batching=config.batching)
        self._step: int | None = None
        self._next_job = 0
        self.handed: dict[int, SessionKey] = {}
        self._now = 0.0
        self._alone: Stage | None = None
        self._since = 0.0
        self.jobs: dict[int, Keys] = {}

    @property
    def figures(self) -> EngineQueue:
        return self._batcher.figures

    @property
    def gathers(self) -> bool:
        """Whether a step is to be composed now, and sessions are here that may yet join it."""
        batcher = self._batcher
        waiting = len(batcher) if self._alone is None else 1
        return not batcher.is_busy and 0 < waiting < len(self._stages)

    def measured(self, space: int, cost: StageCost) -> None:
        """The engine takes so long for a model."""
        known = StepCost(
            cost.decode_fixed_us,
            cost.decode_layer_us,
            cost.head_us,
            rows4_us=cost.rows4_layer_us,
            rows8_us=cost.rows8_layer_us,
            prefill_us=cost.prefill_layer_ns / 1000,
        )
        self._batcher.measured(space, known)

    def compute(self, stage: Stage, now: float) -> None:
        """Have computed what waits in ``stage``, when it is its turn."""
        self._now = now
        if stage.job is not None or not stage.queue:
            return
        alone = self._alone
        if alone is stage:
            return
        if alone is None and not len(self._batcher):  # the rule, and a hop's time counts
            self._alone, self._since = stage, now
            return
        if alone is not None:
            self._alone = None
            self._line_up(alone, self._since)
        self._line_up(stage, now)

    def _line_up(self, stage: Stage, since: float) -> None:
        order, first = stage.order, stage.queue[0]
        kind = Kind.ROWS
        if len(stage.queue) > 1 or first.rows > MOST_ROWS_TOGETHER:
            kind = Kind.REPLAY if order.epoch else Kind.PROMPT
        layers = order.layers
        group = stage.space, layers.start, layers.stop
        draws = order.sampling is not None and first.end >= order.sample_from
        self._batcher.ready(Waiting(stage.key, group, kind, first.rows, draws, since))

    def compose(self) -> ComputeRequested | None:
        """Return the next step, if the engine is idle and anything waits."""
        alone, batcher = self._alone, self._batcher
        if batcher.is_busy:
            return None
        if alone is not None:
            self._alone = None
            batcher.began_alone(alone.queue[0].rows, self._now - self._since)
            return self._begin((alone,), self._take(alone, is_only=True))
        if not len(batcher):
            return None
        picked = [self._stages[one.session] for one in batcher.compose(self._now)]
        if len(picked) == 1:
            return self._begin(picked, self._take(picked[0], is_only=True))
        return self._begin(picked, Step(tuple(self._take(one, is_only=False) for one in picked)))

    def moved(self, stage: Stage, now: float) -> None:
        """``stage`` is of another epoch: what it has to compute may be nothing, or less urgent."""
        if stage is self._alone or stage.key in self._batcher:
            self._leave(stage)
            self.compute(stage, now)

    def ended(self, job: int, now: float) -> Keys:
        """A piece of work is done; return whose it was, nobody's where none waits any more."""
        self._now = now
        if job == self._step:
            self._step = None
            self._batcher.finished()
        return self.jobs.pop(job, ())

    def release(self, stage: Stage) -> None:
        """``stage`` is no more: free what the engine keeps for it, after what it has in hand."""
        self._end(stage, Release(stage.session_key))

    def keep(self, stage: Stage, kept: SessionKey, length: int, *, is_copy: bool) -> None:
        """``stage`` is no more, and so much of its cache is to be kept under another name."""
        keep = Keep(stage.session_key, kept, length, stage.order.layers, is_copy)
        self.handed[self._end(stage, keep)] = kept

    def adopt(self, stage: Stage, kept: SessionKey, *, is_copy: bool) -> None:
        """Begin ``stage``, which has computed nothing itself, with a kept cache."""
        order, length = stage.order, stage.computed
        where = stage.session_key, kept, order.layers
        work = Adopt(*where, length, order.positions, is_copy, order.sampling)
        stage.job = self._ask(work, stage.space, (stage.key,))
        self.handed[stage.job] = kept

    def let_go(self, kept: SessionKey, space: int) -> None:
        """Free a cache that is kept no more."""
        self._ask(Release(kept), space)

    def _end(self, stage: Stage, work: Work) -> int:
        self._leave(stage)
        if stage.job is not None:
            self._abandon(stage.job, stage.key)
        return self._ask(work, stage.space)

    def _ask(self, work: Work, space: int, keys: Keys = ()) -> int:
        """Have done at once what computes nothing; the engine does it in the order of asking."""
        job, self._next_job = self._next_job, self._next_job + 1
        self.jobs[job] = keys
        self._events.append(ComputeRequested(job, work, space))
        return job

    def _leave(self, stage: Stage) -> None:
        if self._alone is stage:
            self._alone = None
        elif len(self._batcher):
            self._batcher.leave(stage.key)

    def _abandon(self, job: int, key: StageKey) -> None:
        """Let nobody hear of a part; whoever computes need not begin a step without any other."""
        if job in self.handed:  # or a cache would be lost between two names
            self.jobs[job] = ()
            return
        keys = tuple(None if one == key else one for one in self.jobs.get(job, ()))
        if any(one is not None for one in keys):
            self.jobs[job] = keys
            return
        self.jobs.pop(job, None)
        if job == self._step:
            self._step = None
            self._batcher.finished()

    def _begin(self, stages: Sequence[Stage], work: Work) -> ComputeRequested:
        job, self._next_job = self._next_job, self._next_job + 1
        for stage in stages:
            stage.job = job
        self.jobs[job], self._step = tuple([stage.key for stage in stages]), job
        return ComputeRequested(job, work, stages[0].space)

    def _take(self, stage: Stage, *, is_only: bool) -> Forward:
        """Take what a stage has waiting off its queue: one batch, where others are in the step."""
        if is_only and len(stage.queue) > 1:
            batches = stage.take_job(self._config.max_batches, self._most_rows(stage))
        else:
            batches = stage.take_job(1, 0)
        order, model = stage.order, stage.model
        taken = size_of(batches[0]) if len(batches) == 1 else sum(map(size_of, batches))
        self._stages.recount(stage, stage.waiting - taken)
        return Forward(
            stage.session_key,
            order.layers,
            batches,
            order.out_dtype,
            order.sampling,
            order.sample_from,
            order.positions,
            self._coding.recipe(order, batches, model, stage.codings),
            self._coding.calibration(order.terms, order.layers.start, model.space_hash32),
            stage.past,
        )

    def _most_rows(self, stage: Stage) -> int:
        """Return how many rows of a prompt or a replay are computed in one step, if not one batch.

        A large batch is a step of its own where others have sessions.
        """
        most = self._config.job_rows
        if len(self._stages) == 1:
            return most
        if stage.queue[0].rows > MOST_ROWS_TOGETHER:
            return 0
        return min(most, self._batcher.rows_within(stage.space, len(stage.order.layers)))
