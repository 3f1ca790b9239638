"""What stands around a node's core, for a measurement or the command that runs it to replace."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from p2pnode.engine.base import Engine
from p2pnode.net.engine_thread import EngineThread, ThreadMaker
from p2pnode.net.jobs import Job
from p2pnode.net.pump import DatagramSocket
from p2pnode.node.core import NodeCore
from p2pnode.node.events import NodeEvent
from p2pnode.node.observer import Observer

T = TypeVar("T")

JobOf: TypeAlias = Callable[[NodeEvent], Job[NodeCore, Any] | None]


def _unchanged(part: T) -> T:
    return part


@dataclass(frozen=True, slots=True)
class Fittings:
    """What a node is put together with; a node that people run has these.

    Attributes:
        socket: Returns what the node sends and receives with, given its socket.
        engine: Returns what computes, given the engine that was loaded.
        job_of: Returns what makes jobs of events, given what does.
        clock: Read right before and after the engine's part of a job, in seconds.
        thread: Makes the thread that computes and waits at the socket.
        observer: Hears of the moments that only the core knows.
    """

    socket: Callable[[DatagramSocket], DatagramSocket] = _unchanged
    engine: Callable[[Engine], Engine] = _unchanged
    job_of: Callable[[JobOf], JobOf] = _unchanged
    clock: Callable[[], float] = time.perf_counter
    thread: ThreadMaker = EngineThread
    observer: Observer | None = None


PLAIN = Fittings()
