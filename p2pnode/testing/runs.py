"""The runs of a scenario: the swarm of each, and carrying them out on all cores."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from multiprocessing.pool import Pool
from typing import TypeVar

from p2pnode.engine.blas import limit_blas_threads
from p2pnode.testing.scenario import Run, Scenario
from p2pnode.testing.swarm import Swarm
from p2pnode.testing.traffic_hash import TrafficHash
from p2pnode.transport.config import TransportConfig

_T = TypeVar("_T")


def swarm_of(scenario: Scenario, run: Run) -> tuple[Swarm, TrafficHash]:
    """Return the swarm of a run, its members in it, and the hash of its traffic."""
    model = scenario.model
    swarm = Swarm(
        run.seed,
        replace(scenario.link, loss=run.weather.loss),
        n_layers=model.layers,
        d_model=model.d_model,
        n_heads=model.heads,
        n_kv_heads=model.kv_heads,
        layer_seconds=model.layer_seconds,
        kv_bytes=model.kv_bytes,
        transport=replace(TransportConfig.simulation(), fec=run.fec),
    )
    network = swarm.network
    traffic = TrafficHash(lambda: network.now)
    network.intercept = traffic.digest
    for member in scenario.members:
        swarm.add(member.name, member.layers)
    return swarm, traffic


def carry_out(
    perform: Callable[[Scenario, Run], _T],
    scenario: Scenario,
    runs: Sequence[Run],
    jobs: int | None = None,
) -> Iterator[_T]:
    """Yield what ``perform`` makes of each run, in order.

    Args:
        perform: A function of a module, since other processes have to find it.
        scenario: Whose runs.
        runs: Which.
        jobs: Processes; one a core unless told, and none but this for one.
    """
    jobs = min(jobs or _cores(), len(runs))
    if jobs == 1:
        for run in runs:
            yield _alone((perform, scenario, run))
        return
    # Spawned workers hash strings each in its own way: what leans on a set's order shows.
    context = multiprocessing.get_context("spawn")
    with _pool(context, jobs) as pool:
        yield from pool.imap(_alone, [(perform, scenario, run) for run in runs])


def _alone(task: tuple[Callable[[Scenario, Run], _T], Scenario, Run]) -> _T:
    perform, scenario, run = task
    limit_blas_threads(1)  # the runs share out the cores
    return perform(scenario, run)


def _pool(context: SpawnContext, jobs: int) -> Pool:
    """Start workers that hear no Ctrl-C, from their first moment on.

    It reaches every process of the terminal, and the parent ends its workers itself.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return context.Pool(jobs, initializer=_ignore_interrupts)
    resource_tracker.ensure_running()  # it would let them hear it again, were it started below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit it
    try:
        return context.Pool(jobs, initializer=_ignore_interrupts)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
