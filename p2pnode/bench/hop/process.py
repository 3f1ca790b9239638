"""A node that is measured: production code, with stamps around what its core is given.

``python -m p2pnode.bench.hop.process FOLDER --state DIR ...`` serves until its standard input
closes, and leaves its stamps in FOLDER. :mod:`p2pnode.bench.hop.swarm` starts these.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import trio

from p2pnode.bench.hop.knobs import Knobs, Wait
from p2pnode.bench.hop.rehearsal import Rehearsal
from p2pnode.bench.hop.stamps import Moment, Stamps, mark_of
from p2pnode.bench.hop.stand_in import StandIn, as_engine
from p2pnode.engine.blas import limit_blas_threads
from p2pnode.engine.registry import EngineOptions
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.work import Forward, WorkResult
from p2pnode.net.engine_thread import EngineThread
from p2pnode.net.jobs import Job
from p2pnode.net.pump import DatagramSocket
from p2pnode.node.config import HoldingsConfig, NodeConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.events import NodeEvent
from p2pnode.node.fittings import Fittings, JobOf
from p2pnode.node.model_cache import cache_dir
from p2pnode.node.node import Node
from p2pnode.node.settings import ModelChoice, NodeSettings
from p2pnode.sansio import Address

LEAD: Final = 0.002
"""Seconds before a job is due at which its wait ends, and after which it counts as overdue. One for
a sleep's overrun, half a one for the rehearsal, the rest a guess."""


class StampedSocket:
    """A socket that notes when datagrams leave and arrive."""

    def __init__(self, socket: DatagramSocket, stamps: Stamps, thread: Callable[[], int]) -> None:
        """``thread`` returns the identity of the thread that computes."""
        self._socket = socket
        self._stamps = stamps
        self._thread = thread
        self.wait_readable = socket.wait_readable

    @property
    def fileno(self) -> int:
        return self._socket.fileno

    def receive(self) -> tuple[bytes, Address] | None:
        asked = time.perf_counter_ns()
        datagram = self._socket.receive()
        if datagram is not None:
            self._stamps.take_at(Moment.ASKED, asked)
            is_thread = threading.get_ident() == self._thread()
            self._stamps.take(Moment.RECEIVED, mark_of(datagram[0]), is_thread)
        return datagram

    def send(self, payload: bytes, destination: Address, *, is_probe: bool = False) -> bool:
        self._stamps.take(Moment.SEALED, mark_of(payload))
        is_taken = self._socket.send(payload, destination, is_probe=is_probe)
        self._stamps.take(Moment.SENT)
        return is_taken


class StampedThread(EngineThread):
    """A thread that notes when it wakes, and waits as the knobs say."""

    def __init__(
        self, body: Callable[[EngineThread], None], *, stop_grace: float, around: Around
    ) -> None:
        super().__init__(self._begin, stop_grace=stop_grace)
        self._around = around
        self._main = body
        self._is_woken = False

    def wake(self) -> None:
        self._is_woken = True
        super().wake()

    def sleep(self, seconds: float | None) -> tuple[bool, float]:
        match self._around.wait:
            case Wait.POLL:
                has_arrived, slept = self._poll_for(seconds)
            case Wait.REHEARSE | Wait.REHEARSE_POLL:
                has_arrived, slept = self._rehearse(seconds)
            case _:
                has_arrived, slept = super().sleep(seconds)
        self._is_woken = False
        if has_arrived:
            self._around.stamps.take(Moment.AWAKE)
        return has_arrived, slept

    def _poll_for(self, seconds: float | None) -> tuple[bool, float]:
        began = time.perf_counter()
        while True:
            has_arrived, _ = super().sleep(0.0)
            slept = time.perf_counter() - began
            is_over = seconds is not None and slept >= seconds
            if has_arrived or is_over or self._is_woken or self.is_stopping:
                return has_arrived, slept
            if hasattr(os, "sched_yield"):
                os.sched_yield()

    def _rehearse(self, seconds: float | None) -> tuple[bool, float]:
        """Sleep until the next job is nearly due, and rehearse once; then sleep, or ask."""
        now, idle = time.perf_counter(), self._around.idle
        due = idle.due
        if due is None or now > due + LEAD:
            return super().sleep(seconds)
        spare = math.floor(1e3 * (due - LEAD - now)) / 1e3  # poll() knows milliseconds alone
        if spare > 0:
            return super().sleep(spare if seconds is None else min(spare, seconds))
        if not idle.is_rehearsed:
            idle.is_rehearsed = True
            self._around.rehearsal.run()
        if self._around.wait is Wait.REHEARSE:
            return super().sleep(seconds)
        left = max(0.0, due + LEAD - time.perf_counter())
        return self._poll_for(left if seconds is None else min(left, seconds))

    def _begin(self, thread: EngineThread) -> None:
        self._around.thread = threading.get_ident()
        self._main(thread)


class Idle:
    """When the next job is due, by how long the last ones were waited for.

    Attributes:
        is_rehearsed: Whether that was done already in this wait.
    """

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=5)
        self._since: float | None = None
        self.is_rehearsed = False

    @property
    def due(self) -> float | None:
        """The moment; None where nobody knows."""
        if self._since is None or len(self._waits) < 3:
            return None
        return self._since + median(self._waits)

    def ended(self) -> None:
        """A wait has ended: a job begins."""
        if self._since is not None:
            self._waits.append(time.perf_counter() - self._since)

    def began(self) -> None:
        """A wait begins: a job is done."""
        self._since, self.is_rehearsed = time.perf_counter(), False


class Around:
    """Everything that stands around the core of a node that is measured.

    Attributes:
        stamps: What was noted.
        wait: How the thread that computes waits.
        thread: Its identity.
        idle: When it will have something to do.
        rehearsal: What it may run shortly before.
    """

    def __init__(self, knobs: Knobs) -> None:
        self.stamps = Stamps()
        self.wait = Wait.SLEEP
        self.thread = 0
        self.idle = Idle()
        self.rehearsal = Rehearsal()
        self._knobs = knobs

    def fittings(self) -> Fittings:
        return Fittings(
            socket=lambda socket: StampedSocket(socket, self.stamps, lambda: self.thread),
            engine=lambda engine: as_engine(StandIn(engine, self._knobs)),
            job_of=self._job_of,
            clock=self._clock,
            thread=partial(StampedThread, around=self),
            observer=self,
        )

    def frame_built(self) -> None:
        self.stamps.take(Moment.BUILT)

    def datagram_opened(self) -> None:
        self.stamps.take(Moment.OPENED)

    def _clock(self) -> float:
        self.stamps.take(Moment.ENGINE)
        return time.perf_counter()

    def _job_of(self, job_of: JobOf) -> JobOf:
        def stamped(event: NodeEvent) -> Job[NodeCore, Any] | None:
            job = job_of(event)
            if job is None or not isinstance(event, ComputeRequested):
                return job
            work = event.work
            if not isinstance(work, Forward):
                return job
            self.stamps.take(Moment.REQUESTED)
            return Job(partial(self._run, work, job.run), job.done, job.units, job.is_wanted)

        return stamped

    def _run(self, work: Forward, run: Callable[[], WorkResult]) -> WorkResult:
        begun = time.perf_counter_ns()
        self.idle.ended()
        setting = self._knobs.setting
        self.stamps.number, self.wait = setting.number, setting.wait
        if len(work.batches) != 1 or work.batches[0].rows != 1:
            self.stamps.number = 0  # a prompt
            return run()
        batch, layer = work.batches[0], work.layers.start
        self.stamps.take_at(Moment.BEGUN, begun, batch.start, setting.number << 32 | layer)
        result = run()
        self.stamps.take(Moment.CODED)
        self.idle.began()
        return result


def main() -> None:
    """Serve as the arguments say, until standard input closes."""
    parser = argparse.ArgumentParser(prog="p2pnode.bench.hop.process")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--layers", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    first, stop = map(int, given.layers.split(":"))
    limit_blas_threads(given.threads)
    settings = NodeSettings(
        config=NodeConfig(given.name, holdings=HoldingsConfig(layers=range(first, stop))),
        state=given.state,
        models=(ModelChoice(given.model),),
        host=given.listen,
        port=given.port,
        engine=EngineOptions(given.engine, threads=given.threads, cache=cache_dir()),
    )
    with Knobs(given.folder / f"{given.name}.knobs") as knobs:
        around = Around(knobs)
        trio.run(_serve, Node(settings, around.fittings()))
        around.stamps.write(given.folder / f"{given.name}.npy")


async def _serve(node: Node) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        picture = node.snapshot()
        facts = {"node_id": picture.node_id, "listening": list(picture.listening)}
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
            while await stdin.receive_some():
                pass
        node.stop()


if __name__ == "__main__":
    main()
