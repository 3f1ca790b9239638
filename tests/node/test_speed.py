"""Speed learnt from real work."""

from p2pnode.engine.base import StageCost
from p2pnode.inference.activations import Batch
from p2pnode.inference.work import Computed, Forward
from p2pnode.node.config import SpeedConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.events import MeasureRequested
from p2pnode.node.speed import SpeedMeter
from p2pnode.testing.swarm import Swarm
from tests.node.bundles import only

COST = StageCost(decode_fixed_us=0, decode_layer_us=1000, head_us=0, prefill_layer_ns=0)


def finish(
    meter: SpeedMeter, count: int, compute_us: int, *, rows: int = 1, now: float = 1.0
) -> bool:
    told = False
    for job in range(count):
        meter.started(job, Forward(b"s", range(10), (Batch(0, rows, ()),), "f16", None, 0))
        told |= meter.finished(job, Computed((), compute_us), now)
    return told


def test_steady_work_corrects_a_calibration_made_in_a_rush() -> None:
    meter = SpeedMeter()
    meter.calibrated(COST, 0.0)
    assert finish(meter, 8, 5_000)
    assert meter.cost is not None
    assert meter.cost.decode_layer_us == 500


def test_a_hiccup_and_a_prefill_change_nothing() -> None:
    meter = SpeedMeter()
    meter.calibrated(COST, 0.0)
    assert not finish(meter, 20, 10_000)
    assert not finish(meter, 1, 900_000)
    assert not finish(meter, 20, 900_000, rows=64)


def test_before_a_calibration_there_is_nothing_to_correct() -> None:
    assert not finish(SpeedMeter(), 20, 5_000)


SLOW = StageCost(decode_fixed_us=0, decode_layer_us=4000, head_us=0, prefill_layer_ns=0)
CONFIG = SpeedConfig(idle=10.0, confirm=60.0, longest=100.0)


def due(meter: SpeedMeter) -> float | None:
    return meter.due


def test_what_work_said_in_a_busy_moment_is_measured_anew_at_rest() -> None:
    meter = SpeedMeter(CONFIG)
    meter.calibrated(COST, 0.0)
    meter.measured(COST, 60.0)
    assert due(meter) is None
    assert finish(meter, 8, 40_000, now=70.0)
    assert meter.cost == SLOW
    assert due(meter) == 80.0
    finish(meter, 1, 40_000, now=75.0)
    assert due(meter) == 85.0  # not before it rests
    meter.asked()
    assert meter.measured(COST, 85.5)
    assert meter.cost == COST
    assert due(meter) is None


def test_measurements_go_on_ever_more_rarely_until_two_agree() -> None:
    meter = SpeedMeter(CONFIG)
    meter.calibrated(SLOW, 0.0)  # the whole house was loading
    assert due(meter) == 60.0
    now, costs, pauses = 60.0, [COST, SLOW, COST, COST], []
    for cost in costs:
        meter.asked()
        meter.measured(cost, now)
        if meter.due is not None:
            pauses.append(meter.due - now)
            now = meter.due
    assert pauses == [100.0, 100.0, 100.0]
    assert due(meter) is None
    assert meter.cost == COST


def test_a_measurement_that_says_the_same_is_no_news() -> None:
    meter = SpeedMeter(CONFIG)
    meter.calibrated(COST, 0.0)
    assert not meter.measured(StageCost(0, 1_050, 0, 0), 60.0)
    assert due(meter) is None


def test_a_measurement_that_failed_is_made_again_after_a_pause() -> None:
    meter = SpeedMeter(CONFIG)
    meter.calibrated(SLOW, 0.0)
    pauses, now = [], 60.0
    for _ in range(2):
        meter.asked()
        meter.failed(now)
        assert meter.due is not None
        pauses.append(meter.due - now)
        now = meter.due
    assert pauses == [100.0, 100.0]  # at most config.longest
    assert meter.cost == SLOW
    meter.asked()
    assert meter.measured(COST, now)
    assert meter.cost == COST


def test_a_node_that_could_not_be_measured_asks_again() -> None:
    swarm = Swarm(2)
    node = swarm.add("a", range(6))
    swarm.network.run(3)
    first = only(node).speed.due
    assert first is not None
    assert isinstance(only(node).measurement(first), MeasureRequested)
    assert node.serving.next_timeout() is None
    node.measurement_failed(only(node).space, first + 1.0)
    again = node.serving.next_timeout()
    assert again is not None
    assert first < again < first + 1_000.0
    assert isinstance(only(node).measurement(again), MeasureRequested)
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
            only(node).speed.started(job, work)
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
    again = only(slow).speed.due
    assert again is None or again > swarm.network.now
