"""How much of this machine its owner's programs use: all of it that is used, less what we use.

*We* are this node, the other nodes of this account on this machine, and the processes that they
started: a machine that lends itself to two nodes has one owner. To list the processes of a system
takes milliseconds, and one look at the clocks of those known takes 0.1 ms, so they are listed only
when the owner seems to use the machine: it may be a process of ours that nobody knew.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from p2pnode.net.local_nodes import local_nodes
from p2pnode.node.gpu_use import GpuUse
from p2pnode.node.resting import Load

_LISTED_EVERY = 1.0
"""Least seconds between two lists of processes, which take 6 ms for a hundred."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the clocks of a machine said at one moment, in seconds.

    Attributes:
        at: Of the clock on the wall, monotonic.
        busy: Of all its cores together, so far, in which they computed.
        ours: Of each process of ours, so far.
    """

    at: float
    busy: float
    ours: dict[int, float]


class OwnersLoad:
    """Looks at the machine; not for two threads at once."""

    def __init__(
        self,
        above: float,
        gpu: GpuUse | None = None,
        nodes: Callable[[], Iterable[int]] | None = None,
    ) -> None:
        """From a share ``above`` on, the processes that are ours are listed anew.

        ``nodes`` returns the process ids of the nodes that are ours, by default all of this account
        on this machine; ``gpu`` tells who uses the GPUs, None for nobody.
        """
        self._above = above
        self._gpu = gpu
        self._nodes = nodes or (lambda: [node.pid for node in local_nodes()])
        self._cores = psutil.cpu_count() or 1
        self._own = psutil.Process()
        self._known: dict[int, psutil.Process] = {}
        self._listed_at = time.monotonic()
        self._list()
        self._before = self._read()

    def __call__(self) -> Load:
        """Return what others used since the call before."""
        before, now = self._before, self._read()
        share = others_share(before, now, self._cores)
        if share > self._above and now.at - self._listed_at >= _LISTED_EVERY:
            self._listed_at = now.at
            self._list()
            now = self._read()
            share = others_share(before, now, self._cores)
        self._before = now
        return Load(share, None if self._gpu is None else self._gpu.others(self.ours))

    @property
    def ours(self) -> frozenset[int]:
        """The processes that are known to be ours."""
        return frozenset({self._own.pid, *self._known})

    def _read(self) -> Clocks:
        times = psutil.cpu_times()  # what a virtual machine lost to others is nobody's use here
        fields = ("user", "nice", "system", "irq", "softirq")
        ours = {self._own.pid: time.process_time()}
        for pid, process in list(self._known.items()):
            try:
                used = process.cpu_times()
            except psutil.Error:
                del self._known[pid]
                continue
            ours[pid] = used.user + used.system
        busy = sum(getattr(times, name, 0.0) for name in fields)
        return Clocks(time.monotonic(), busy, ours)

    def _list(self) -> None:
        """Find the processes that nodes of ours started, and those that these started."""
        parents: dict[int, tuple[int, psutil.Process]] = {}
        for process in psutil.process_iter():
            try:
                parents[process.pid] = process.ppid(), process
            except psutil.Error:
                continue
        family = descendants(
            {self._own.pid, *self._nodes()}, {p: of for p, (of, _) in parents.items()}
        )
        self._known = {pid: parents[pid][1] for pid in family - {self._own.pid}}


def others_share(before: Clocks, now: Clocks, cores: int) -> float:
    """Return the share of all cores that others than we used between two moments, 0 to 1.

    A process of ours that was not known before counts with all that it ever used, so that it is
    taken for the owner's in no case; one that ended meanwhile counts no more.
    """
    seconds = (now.at - before.at) * cores
    if seconds <= 0:
        return 0.0
    ours = sum(used - before.ours.get(pid, 0.0) for pid, used in now.ours.items())
    return min(1.0, max(0.0, (now.busy - before.busy - ours) / seconds))


def descendants(roots: set[int], parents: dict[int, int]) -> set[int]:
    """Return which of the processes in ``parents`` are ``roots``, or come from one."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    left = [pid for pid in roots if pid in parents]
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += children.get(pid, ())
    return found
