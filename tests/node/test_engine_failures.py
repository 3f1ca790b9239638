"""An engine that runs out of memory or fails: sessions move on, and less is offered for a while."""

from collections.abc import Callable

import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import CapacityError, DeviceLostError, EngineError
from p2pnode.inference.activations import token_batch
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Forward, WorkFailed
from p2pnode.node.core import NodeCore
from p2pnode.node.events import LoadRequested
from p2pnode.node.holding_life import HoldingPhase
from p2pnode.node.kv_offer import PAUSE, KvOffer
from p2pnode.node.retries import FIRST_RETRY, LAST_RETRY, STEADY, Retries
from p2pnode.scheduler.offences import Kind
from p2pnode.testing.swarm import Swarm
from tests.node.bundles import offers_seen, only

WHOLE = 1 << 20
ASKED = GenerationRequest((1, 2, 3), 30, Sampling(), frozenset())
SHORT = WorkFailed("CPU has not enough memory", is_memory_short=True)
GONE = WorkFailed("CUDA0 failed: device lost", is_engine_gone=True)


def swarm_of_three(failure: WorkFailed | None) -> tuple[Swarm, NodeCore, list[int]]:
    """Let ``b``, or its spare, compute for ``a``; the first of them fails once, in mid-answer."""
    swarm = Swarm(1, kv_bytes=WHOLE)
    left = [failure] if failure is not None else []
    failed: list[str] = []

    def computer(name: str) -> Callable[[ComputeRequested], None]:
        def compute(request: ComputeRequested) -> None:
            is_late = isinstance(request.work, Forward) and request.work.batches[0].start > 8
            if left and is_late:
                failed.append(name)
                swarm.finish(name, request, left.pop())
            else:
                swarm.compute(name, request)

        return compute

    swarm.add("a", range(3))
    for name in ("b", "c"):
        swarm.add(name, range(3, 6), computer=computer(name))
    swarm.introduce("a", "b", "c")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    number = swarm.generate("a", ASKED)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    return swarm, swarm.nodes[failed[0] if failed else "b"], swarm.tokens("a", number)


def test_out_of_memory_moves_the_session_on_and_offers_less_for_a_while() -> None:
    undisturbed = swarm_of_three(None)[2]
    swarm, node, tokens = swarm_of_three(SHORT)
    assert tokens == undisturbed
    assert len(tokens) == 30
    assert node.served == range(3, 6)  # its engine goes on
    assert node.inference.all_counters()["compute failed: no memory"] == 1
    assert node.counters["memory ran out: less is offered"] == 1
    assert any("memory ran out" in line for line in node.log)
    assert node.advert.kv_total <= WHOLE // 2 + WHOLE // 16
    swarm.network.run(3)
    (seen,) = [one for one in offers_seen(swarm.nodes["a"]) if one.peer == node.node_id]
    assert seen.ad.kv_free_bytes <= WHOLE // 2
    swarm.network.run(5 * PAUSE)
    assert node.advert.kv_total == WHOLE
    (seen,) = [one for one in offers_seen(swarm.nodes["a"]) if one.peer == node.node_id]
    assert seen.ad.kv_free_bytes == WHOLE


def test_a_stage_without_memory_is_not_called_dishonest() -> None:
    swarm, node, _ = swarm_of_three(SHORT)
    entries = swarm.nodes["a"].ledger.entries(swarm.network.now)
    (entry,) = [one for one in entries if one.peer == node.node_id]
    assert entry.kind is Kind.DEAD
    assert entry.offences == {"failed": 1}
    assert entry.avoided_for < 60


def test_a_failed_engine_leaves_its_layers_and_is_tried_again() -> None:
    undisturbed = swarm_of_three(None)[2]
    swarm, node, tokens = swarm_of_three(GONE)
    assert tokens == undisturbed
    assert node.served == range(0)
    assert only(node).life.phase is HoldingPhase.IDLE
    assert node.inference.all_counters()["compute failed: the engine"] == 1
    assert node.counters["the engine failed: its layers left"] == 1
    assert any("device lost" in line and "tries again in 10 s" in line for line in node.log)
    swarm.network.run(FIRST_RETRY + 5)
    assert node.served == range(3, 6)


def test_layers_that_cannot_be_loaded_again_are_tried_ever_more_rarely() -> None:
    swarm, node, _ = swarm_of_three(GONE)
    assert swarm.network.run_until(lambda: only(node).life.phase is HoldingPhase.LOADING, 60)
    name = next(name for name, one in swarm.nodes.items() if one is node)
    swarm.call(
        name, lambda core, now: core.load_failed(only(core).space, range(3, 6), "still gone", now)
    )
    assert any("still gone; tries again in 20 s" in line for line in node.log)
    assert only(node).life.phase is HoldingPhase.IDLE
    swarm.network.run(15)
    assert node.served == range(0)
    swarm.network.run(10)
    assert node.served == range(3, 6)
    assert {one.trouble for one in offers_seen(node)} == {""}


def test_layers_that_never_could_be_loaded_are_not_tried_again() -> None:
    swarm = Swarm(1)
    node = swarm.add("a", range(6))
    assert swarm.network.run_until(lambda: only(node).life.phase is HoldingPhase.LOADING, 60)
    swarm.call(
        "a", lambda core, now: core.load_failed(only(core).space, range(6), "no memory", now)
    )
    [ours] = offers_seen(node)
    assert ours.trouble == "no memory"  # whoever asks here is told
    swarm.network.run(2 * LAST_RETRY)
    assert only(node).life.phase is HoldingPhase.IDLE
    assert not [event for event in node.take_events() if isinstance(event, LoadRequested)]


def test_an_engine_that_fails_while_its_node_leaves_changes_nothing() -> None:
    swarm = Swarm(1)
    node = swarm.add("a", range(6))
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.call("a", lambda core, now: core.leave(now))
    swarm.call("a", lambda core, now: core.compute_finished(10**6, only(core).space, GONE, now))
    assert node.leaving


def test_less_is_offered_each_time_and_all_of_it_in_the_end() -> None:
    offer = KvOffer(1600)
    offer.ran_out(400, 0.0)
    assert offer.total == 1000
    offer.ran_out(400, 1.0)
    assert offer.total == 700
    assert not offer.recover(PAUSE)
    totals = []
    now = 1.0
    while offer.due is not None:
        now += PAUSE
        assert offer.recover(now)
        totals.append(offer.total)
    assert totals == [1150, 1375, 1487, 1600]
    offer.ran_out(2000, now)  # more is promised than there is
    assert offer.total == 1600


def test_pauses_double_up_to_a_bound_and_begin_anew_after_steady_work() -> None:
    retries = Retries()
    had_failed = retries.has_failed
    pauses = [retries.failed(0.0) for _ in range(9)]
    assert pauses[:3] == [10, 20, 40]
    assert pauses[-1] == LAST_RETRY
    assert (had_failed, retries.has_failed) == (False, True)
    moments = (LAST_RETRY - 1, LAST_RETRY, LAST_RETRY)
    assert [retries.is_due(now) for now in moments] == [False, True, False]
    retries.loaded(1000.0)
    assert retries.failed(1000.0 + STEADY) == FIRST_RETRY


@pytest.mark.parametrize(
    ("error", "is_short", "is_gone"),
    [
        (CapacityError("no room"), True, False),
        (MemoryError(), True, False),
        (DeviceLostError("device lost"), False, True),
        (EngineError("a shape that it cannot compute"), False, False),
    ],
)
def test_work_says_what_the_engine_lacked(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_short: bool, is_gone: bool
) -> None:
    engine = random_model(1, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, layers=range(2))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(engine, "forward", fail)
    batch = token_batch((1, 2), 0)
    result = run_work(
        engine, Forward(b"s", range(2), (batch,), "f16", None, 0), iter([0.0, 1.0]).__next__
    )
    assert isinstance(result, WorkFailed)
    assert (result.is_memory_short, result.is_engine_gone) == (is_short, is_gone)
    assert result.reason
