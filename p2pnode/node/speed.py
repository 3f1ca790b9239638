"""What real work says about this machine's speed, after the calibration at loading time.

Only single-token steps count, and of those the median of the newest: the calibration may have
run while the whole house was loading, and a median forgets a hiccup.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median

from p2pnode.engine.base import StageCost
from p2pnode.inference.work import Computed, Forward, Work, WorkResult

_NEWEST = 32
_ENOUGH = 8  # samples that outweigh the calibration, and between two looks at them
_MOST_JOBS = 256
_NEWS = 0.2  # a change of a fifth is worth telling the swarm


@dataclass(slots=True)
class SpeedWatch:
    """Learns from finished jobs.

    Attributes:
        cost: What is believed; None before the calibration.
    """

    cost: StageCost | None = None
    _jobs: dict[int, Forward] = field(default_factory=dict)
    _count: int = 0
    _layer_us: deque[float] = field(default_factory=lambda: deque(maxlen=_NEWEST))

    def calibrated(self, cost: StageCost) -> None:
        """Start afresh from a calibration."""
        self.cost = cost
        self._layer_us.clear()

    def started(self, job: int, work: Work) -> None:
        if isinstance(work, Forward) and sum(batch.rows for batch in work.batches) == 1:
            if len(self._jobs) > _MOST_JOBS:
                self._jobs.clear()  # of sessions closed before their turn
            self._jobs[job] = work

    def finished(self, job: int, result: WorkResult) -> bool:
        """Take a result; True when the belief has moved enough to be told."""
        work, cost = self._jobs.pop(job, None), self.cost
        if work is None or cost is None or not isinstance(result, Computed):
            return False
        extra = cost.decode_fixed_us + (cost.head_us if work.sampling is not None else 0)
        self._layer_us.append(max(0.0, result.compute_us - extra) / len(work.layers))
        self._count += 1
        if self._count % _ENOUGH:
            return False  # a median each time would cost as much as sealing the result
        layer_us = round(median(self._layer_us))
        if abs(layer_us - cost.decode_layer_us) <= _NEWS * cost.decode_layer_us or not layer_us:
            return False
        self.cost = replace(cost, decode_layer_us=layer_us)
        return True
