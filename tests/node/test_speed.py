"""Speed learnt from real work."""

from p2pnode.engine.base import StageCost
from p2pnode.inference.activations import Batch
from p2pnode.inference.work import Computed, Forward
from p2pnode.node.config import SpeedConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.events import MeasureRequested
from p2pnode.node.speed import SpeedWatch
from p2pnode.testing.swarm import Swarm

COST = StageCost(decode_fixed_us=0, decode_layer_us=1000, head_us=0, prefill_layer_ns=0)


def finish(
    watch: SpeedWatch, count: int, compute_us: int, *, rows: int = 1, now: float = 1.0
) -> bool:
    told = False
    for job in range(count):
        watch.started(job, Forward(b"s", range(10), (Batch(0, rows, ()),), "f16", None, 0))
        told |= watch.finished(job, Computed((), compute_us), now)
    return told


def test_steady_work_corrects_a_calibration_made_in_a_rush() -> None:
    watch = SpeedWatch()
    watch.calibrated(COST, 0.0)
    assert finish(watch, 8, 5_000)
    assert watch.cost is not None
    assert watch.cost.decode_layer_us == 500


def test_a_hiccup_and_a_prefill_change_nothing() -> None:
    watch = SpeedWatch()
    watch.calibrated(COST, 0.0)
    assert not finish(watch, 20, 10_000)
    assert not finish(watch, 1, 900_000)
    assert not finish(watch, 20, 900_000, rows=64)


def test_before_a_calibration_there_is_nothing_to_correct() -> None:
    assert not finish(SpeedWatch(), 20, 5_000)


SLOW = StageCost(decode_fixed_us=0, decode_layer_us=4000, head_us=0, prefill_layer_ns=0)
CONFIG = SpeedConfig(idle=10.0, confirm=60.0, longest=100.0)


def due(watch: SpeedWatch) -> float | None:
    return watch.due


def test_what_work_said_in_a_busy_moment_is_measured_anew_at_rest() -> None:
    watch = SpeedWatch(CONFIG)
    watch.calibrated(COST, 0.0)
    watch.measured(COST, 60.0)
    assert due(watch) is None
    assert finish(watch, 8, 40_000, now=70.0)
    assert watch.cost == SLOW
    assert due(watch) == 80.0
    finish(watch, 1, 40_000, now=75.0)
    assert due(watch) == 85.0  # not before it rests
    watch.asked()
    assert watch.measured(COST, 85.5)
    assert watch.cost == COST
    assert due(watch) is None


def test_measurements_go_on_ever_more_rarely_until_two_agree() -> None:
    watch = SpeedWatch(CONFIG)
    watch.calibrated(SLOW, 0.0)  # the whole house was loading
    assert due(watch) == 60.0
    now, costs, pauses = 60.0, [COST, SLOW, COST, COST], []
    for cost in costs:
        watch.asked()
        watch.measured(cost, now)
        if watch.due is not None:
            pauses.append(watch.due - now)
            now = watch.due
    assert pauses == [100.0, 100.0, 100.0]
    assert due(watch) is None
    assert watch.cost == COST


def test_a_measurement_that_says_the_same_is_no_news() -> None:
    watch = SpeedWatch(CONFIG)
    watch.calibrated(COST, 0.0)
    assert not watch.measured(StageCost(0, 1_050, 0, 0), 60.0)
    assert due(watch) is None


def test_a_measurement_that_failed_is_made_again_after_a_pause() -> None:
    watch = SpeedWatch(CONFIG)
    watch.calibrated(SLOW, 0.0)
    pauses, now = [], 60.0
    for _ in range(2):
        watch.asked()
        watch.failed(now)
        assert watch.due is not None
        pauses.append(watch.due - now)
        now = watch.due
    assert pauses == [100.0, 100.0]  # at most config.longest
    assert watch.cost == SLOW
    watch.asked()
    assert watch.measured(COST, now)
    assert watch.cost == COST


def test_a_node_that_could_not_be_measured_asks_again() -> None:
    swarm = Swarm(2)
    node = swarm.add("a", range(6))
    swarm.network.run(3)
    first = node.serving.speed.due
    assert first is not None
    assert isinstance(node.serving.measurement(first), MeasureRequested)
    assert node.serving.next_timeout() is None
    node.measurement_failed(first + 1.0)
    again = node.serving.next_timeout()
    assert again is not None
    assert first < again < first + 1_000.0
    assert isinstance(node.serving.measurement(again), MeasureRequested)
    assert node.counters["measurement failed"] == 1


def test_a_node_at_rest_tells_the_swarm_its_speed_again() -> None:
    swarm = Swarm(2)
    slow, other = swarm.add("slow", range(6)), swarm.add("b", range(6))
    swarm.introduce("slow", "b")
    swarm.network.run(3)
    true = slow.advert.compose().decode_layer_us

    def be_busy(node: NodeCore, now: float) -> None:
        for job in range(1_000, 1_008):
            work = Forward(b"s", range(6), (Batch(0, 1, ()),), "f16", None, 0)
            node.serving.speed.started(job, work)
            node.serving.finished(job, Computed((), 60 * true), now)

    swarm.call("slow", be_busy)
    swarm.network.run(5)
    seen = other.planner.directory.line(slow.node_id)
    assert seen is not None
    assert seen.ad is not None
    assert seen.ad.decode_layer_us > 5 * true
    swarm.network.run(30)
    seen = other.planner.directory.line(slow.node_id)
    assert seen is not None
    assert seen.ad is not None
    assert seen.ad.decode_layer_us == true
    again = slow.serving.speed.due
    assert again is None or again > swarm.network.now
