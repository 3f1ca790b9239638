"""What real work says about this machine's speed, after the calibration at loading time.

Only single-token steps count, and of those the median of the newest: the calibration may have
run while every machine around was loading, and a median forgets a hiccup.

What work has said in a busy moment must not stick when the moment has passed and nobody asks any
more. So after some idle seconds the machine is measured anew; and again, ever more rarely, until
two measurements agree. One that failed is tried again in the same way.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median

from p2pnode.engine.base import StageCost
from p2pnode.inference.work import Computed, Forward, Work, WorkResult
from p2pnode.node.config import SpeedConfig

_NEWEST = 32
_ENOUGH = 8  # samples that outweigh the calibration, and between two looks at them
_MOST_JOBS = 256
_NEWS = 0.2  # a change of a fifth is worth telling the swarm


@dataclass(slots=True)
class SpeedMeter:
    """Learns from finished jobs.

    Attributes:
        config: When to measure again.
        cost: What is believed; None before the calibration.
        due: When the machine should be measured anew, if no work comes before; None if what is
            believed was measured twice.
    """

    config: SpeedConfig = field(default_factory=SpeedConfig)
    cost: StageCost | None = None
    due: float | None = None
    _measured: StageCost | None = None
    _pause: float = 0.0
    _jobs: dict[int, Forward] = field(default_factory=dict)
    _count: int = 0
    _layer_us: deque[float] = field(default_factory=lambda: deque(maxlen=_NEWEST))

    def calibrated(self, cost: StageCost, now: float) -> None:
        """Start afresh from a calibration, made while much else went on."""
        self.cost = self._measured = cost
        self._layer_us.clear()
        self._wait(self.config.confirm, now)

    def measured(self, cost: StageCost, now: float) -> bool:
        """Take a measurement made at rest; True when it is worth telling."""
        before, believed = self._measured, self.cost
        self.cost = self._measured = cost
        self._layer_us.clear()
        if before is None or _differ(before, cost):
            self._wait(min(2 * self._pause, self.config.longest), now)
        else:
            self.due = None
        return believed is None or _differ(believed, cost)

    def failed(self, now: float) -> None:
        """No measurement was had: what is believed stays, and is measured after a longer pause."""
        self._wait(min(2 * self._pause, self.config.longest), now)

    def asked(self) -> None:
        """The measurement that was due is under way."""
        self.due = None

    def started(self, job: int, work: Work) -> None:
        if isinstance(work, Forward) and len(work.batches) == 1 and work.batches[0].rows == 1:
            if len(self._jobs) > _MOST_JOBS:
                self._jobs.clear()  # of sessions closed before their turn
            self._jobs[job] = work

    def finished(self, job: int, result: WorkResult, now: float) -> bool:
        """Take a result; True when the belief has moved enough to be told."""
        if self.due is not None:
            self.due = max(self.due, now + self._pause)  # not before it rests
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
        self._wait(self.config.idle, now)
        return True

    def _wait(self, pause: float, now: float) -> None:
        self._pause = pause
        self.due = now + pause


def _differ(one: StageCost, other: StageCost) -> bool:
    return abs(one.decode_layer_us - other.decode_layer_us) > _NEWS * one.decode_layer_us
