"""What the engine is asked to do for the stages of a node, and for whom next.

Requesters take turns (:mod:`.turns`); what a stage has waiting becomes jobs of bounded size.
"""

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import ComputeRequested, InferenceEvent
from p2pnode.inference.stage import Stage, size_of
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.inference.table import StageTable
from p2pnode.inference.turns import StageKey, Turns
from p2pnode.inference.work import Forward, Release


class StageWork:
    """The work of one node's engine.

    Attributes:
        jobs: The stage that waits for each piece of work; none where memory is to be freed.
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
        self._turns = Turns(config.engine_ahead)
        self._next_job = 0
        self.jobs: dict[int, StageKey | None] = {}

    def compute(self, stage: Stage) -> None:
        """Compute what waits in ``stage``, now or when it is its turn."""
        if stage.job is not None or not stage.queue:
            return
        if self._turns.is_idle:  # the rule, and a hop's time counts
            self._begin(stage)
            return
        self._turns.wait(stage.key)
        self.take_turns()

    def take_turns(self) -> None:
        """Give the engine what it has room for; requesters take turns."""
        while (key := self._turns.next()) is not None:
            self._begin(self._stages[key])

    def moved(self, stage: Stage) -> None:
        """``stage`` is of another epoch, and may have nothing to compute any more."""
        if not stage.queue:
            self._turns.leave(stage.key)

    def ended(self, job: int) -> StageKey | None:
        """A job is done; return whose it was, None where nobody waits for it any more."""
        self._turns.ended(job)
        return self.jobs.pop(job, None)

    def go_on(self) -> None:
        """A result was taken: the next may begin."""
        if self._turns.waiting:
            self.take_turns()

    def release(self, stage: Stage) -> None:
        """``stage`` is no more: free what the engine keeps for it."""
        self._turns.leave(stage.key)
        if stage.job is not None:
            self.jobs.pop(stage.job, None)  # whoever computes need not begin
            self._turns.ended(stage.job)
        self._request(Release(stage.session_key), stage, None)
        self.take_turns()

    def _begin(self, stage: Stage) -> None:
        batches, order, model = stage.take_job(self._config), stage.order, stage.model
        taken = size_of(batches[0]) if len(batches) == 1 else sum(map(size_of, batches))
        self._stages.recount(stage, stage.waiting - taken)
        stage.job = self._request(
            Forward(
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
            ),
            stage,
            stage.key,
        )
        self._turns.began(stage.job)

    def _request(self, work: Forward | Release, stage: Stage, key: StageKey | None) -> int:
        job, self._next_job = self._next_job, self._next_job + 1
        self.jobs[job] = key
        self._events.append(ComputeRequested(job, work, stage.space))
        return job
