"""Swarms of three that are measured: one that batches, one that does not, and who asks them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from p2pnode.bench.chain import WARM_UP, start_three
from p2pnode.bench.serve.asking import answers
from p2pnode.bench.serve.prompts import Prompts
from p2pnode.errors import UserError
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm

WAYS: Final = ("on", "off")
"""Of batching, as nodes are told."""

_AT_ONCE: Final = 8  # sessions that warm a swarm up
_STARTING: Final = 30.0  # seconds until an asker sees all layers
_GLANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Served:
    """Three nodes that serve, one of two swarms that take turns.

    Attributes:
        batching: ``on`` or ``off``.
        stages: The nodes, in the order of their layers.
        askers: Those that are asked: the first of them, or nodes that hold nothing.
    """

    batching: str
    stages: tuple[NodeProcess, ...]
    askers: tuple[NodeProcess, ...]

    def cpu_seconds(self) -> float:
        """Return the processor time that its nodes have had so far."""
        pids = {node.pid for node in (*self.stages, *self.askers)}
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return sum(one.user + one.system for one in times)

    def steps(self) -> int:
        """Return how many steps the engines of its stages have computed so far."""
        return sum(node.snapshot().engine.steps for node in self.stages)


@contextmanager
def warm_swarms(
    path: Path,
    prompts: Prompts,
    batching: Collection[str],
    *,
    engine: str,
    threads: int,
    askers: int,
) -> Iterator[tuple[Served, ...]]:
    """Yield a warm swarm for each way, those that batch first; all have ended afterwards."""
    with ExitStack() as stack:
        swarms = []
        for way in (way for way in WAYS if way in batching):
            swarm = stack.enter_context(local_swarm())
            options = ("--batching", way)
            first = start_three(swarm, path, *options, engine=engine, threads=threads)
            stages = tuple(swarm.nodes)
            asking = [_asker(swarm, path, number, *options) for number in range(askers)]
            swarms.append(Served(way, stages, tuple(asking) or (first,)))
            _warm_up(swarms[-1].askers, prompts)
        yield tuple(swarms)


def in_turn(swarms: Sequence[Served], number: int) -> Sequence[Served]:
    """Return them in the order of a turn: who is first changes."""
    return swarms if number % 2 else swarms[::-1]


def _asker(swarm: LocalSwarm, path: Path, number: int, *options: str) -> NodeProcess:
    """Start a node that holds no layers, and wait until it sees all of them."""
    held = ("--model", str(path), "--layers", "none", "--threads", "1")
    node = swarm.start(f"asker-{number + 1}", *held, *options)
    node.wait_until_up()
    began = time.monotonic()
    while (picture := node.snapshot()).missing_layers or picture.state == "joining":
        if time.monotonic() - began > _STARTING:
            raise UserError(f"{node.name} saw not all layers after {_STARTING:.0f} s")
        time.sleep(_GLANCE)
    return node


def _warm_up(askers: Sequence[NodeProcess], prompts: Prompts) -> None:
    """Answer until each link carried enough packets to be taken for clean."""
    questions = [prompts.question(32, -(-WARM_UP // _AT_ONCE)) for _ in range(_AT_ONCE)]
    answers(askers, questions)
