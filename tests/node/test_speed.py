"""Speed learnt from real work."""

from p2pnode.engine.base import StageCost
from p2pnode.inference.activations import Batch
from p2pnode.inference.work import Computed, Forward
from p2pnode.node.speed import SpeedWatch

COST = StageCost(decode_fixed_us=0, decode_layer_us=1000, head_us=0, prefill_layer_ns=0)


def finish(watch: SpeedWatch, count: int, compute_us: int, *, rows: int = 1) -> bool:
    told = False
    for job in range(count):
        watch.started(job, Forward(b"s", range(10), (Batch(0, rows, ()),), "f16", None, 0))
        told |= watch.finished(job, Computed((), compute_us))
    return told


def test_steady_work_corrects_a_calibration_made_in_a_rush() -> None:
    watch = SpeedWatch()
    watch.calibrated(COST)
    assert finish(watch, 8, 5_000)
    assert watch.cost is not None
    assert watch.cost.decode_layer_us == 500


def test_a_hiccup_and_a_prefill_change_nothing() -> None:
    watch = SpeedWatch()
    watch.calibrated(COST)
    assert not finish(watch, 20, 10_000)
    assert not finish(watch, 1, 900_000)
    assert not finish(watch, 20, 900_000, rows=64)


def test_before_a_calibration_there_is_nothing_to_correct() -> None:
    assert not finish(SpeedWatch(), 20, 5_000)
