"""From totals since start to what happens now: rates, sparklines and counters that moved.

The clock is the node's own (``uptime_s`` of each snapshot): a poll that comes late changes no
rate, and a node that was started anew is told by its clock running backwards.
"""

import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pnode.node.snapshot import NodeSnapshot

Series: TypeAlias = tuple[str, str]
"""What is counted, and the measure: ``("think", "bytes_in")``, ``("counter", "replayed")``."""

MEMORY = 62.0  # s of samples: the sparkline's minute, and its first bucket's beginning
SPARK_SECONDS = 60
RATE_WINDOW = 3.0  # s; long enough to read the digits, short enough to see a stall. A guess.
RECENT_WINDOW = 10.0  # s a counter that moved stays highlighted. A guess.


@dataclass(frozen=True, slots=True)
class Sample:
    """All totals at one moment of the node's clock."""

    at: float
    totals: Mapping[Series, int]


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes through something in a second."""

    bytes_in: float = 0.0
    bytes_out: float = 0.0
    frames_in: float = 0.0
    frames_out: float = 0.0


STILL = Flow()


@dataclass(frozen=True, slots=True)
class Rates:
    """Everything that only two snapshots or more can tell.

    Attributes:
        kinds: By kind of traffic.
        peers: By node id, bytes alone.
        sparks: By kind of traffic, bytes of both directions in each of the last 60 seconds.
        moved: Counters that grew over the last ten seconds, and by how much.
    """

    kinds: Mapping[str, Flow] = field(default_factory=dict)
    peers: Mapping[str, Flow] = field(default_factory=dict)
    sparks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    moved: Mapping[str, int] = field(default_factory=dict)


class History:
    """The totals of the last minute."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()
        self._node_id = ""

    def add(self, node: NodeSnapshot) -> None:
        """Remember ``node``'s totals; a node that began anew, or is another, forgets the rest."""
        samples = self._samples
        if samples and (node.node_id != self._node_id or node.uptime_s < samples[-1].at):
            samples.clear()
        if samples and node.uptime_s == samples[-1].at:
            samples.pop()
        self._node_id = node.node_id
        samples.append(Sample(node.uptime_s, dict(_totals(node))))
        while samples[0].at < node.uptime_s - MEMORY:
            samples.popleft()

    def rates(self) -> Rates:
        """Return what the remembered minute tells."""
        samples = tuple(self._samples)
        if not samples:
            return Rates()
        named = list(samples[-1].totals)
        kinds = {name for name, measure in named if measure == "frames_in"}
        peers = {name for name, measure in named if measure == "bytes_in"} - kinds
        counters = [series for series in named if series[0] == "counter"]
        grown = {name: growth(samples, ("counter", name), RECENT_WINDOW) for _, name in counters}
        return Rates(
            kinds={kind: flow(samples, kind) for kind in kinds},
            peers={peer: flow(samples, peer) for peer in peers},
            sparks={kind: spark(samples, kind) for kind in kinds},
            moved={name: round(by) for name, by in grown.items() if by > 0},
        )


def flow(samples: Sequence[Sample], name: str) -> Flow:
    """Return the present rates of ``name``."""
    return Flow(
        per_second(samples, (name, "bytes_in")),
        per_second(samples, (name, "bytes_out")),
        per_second(samples, (name, "frames_in")),
        per_second(samples, (name, "frames_out")),
    )


def per_second(samples: Sequence[Sample], series: Series, window: float = RATE_WINDOW) -> float:
    """Return the mean rate over the last ``window`` seconds; 0 before the second sample."""
    covered = min(window, samples[-1].at - samples[0].at)
    return growth(samples, series, window) / covered if covered > 0 else 0.0


def growth(samples: Sequence[Sample], series: Series, window: float) -> float:
    """Return by how much ``series`` grew over the last ``window`` seconds.

    A total that shrank (a connection that was made anew) counts as 0.
    """
    end = samples[-1].at
    return max(0.0, total_at(samples, series, end) - total_at(samples, series, end - window))


def spark(samples: Sequence[Sample], kind: str, seconds: int = SPARK_SECONDS) -> tuple[float, ...]:
    """Return the bytes of ``kind``, both ways, in each of the last ``seconds``, oldest first.

    Buckets lie on whole seconds of the node's clock, so a picture moves on once a second rather
    than shimmering with every poll.
    """
    end = int(samples[-1].at)
    both = [
        total_at(samples, (kind, "bytes_in"), moment)
        + total_at(samples, (kind, "bytes_out"), moment)
        for moment in range(end - seconds, end + 1)
    ]
    return tuple(max(0.0, after - before) for before, after in itertools.pairwise(both))


def total_at(samples: Sequence[Sample], series: Series, moment: float) -> float:
    """Return the total at ``moment``, straight between samples and level beyond them.

    A sample that does not know the series (a reason to drop that had not occurred, a peer not met)
    counts as zero.
    """
    after = min(bisect_right(samples, moment, key=lambda sample: sample.at), len(samples) - 1)
    first, second = samples[max(0, after - 1)], samples[after]
    low, high = first.totals.get(series, 0), second.totals.get(series, 0)
    if moment <= first.at:
        return low
    if moment >= second.at:
        return high
    return low + (high - low) * (moment - first.at) / (second.at - first.at)


def _totals(node: NodeSnapshot) -> Iterator[tuple[Series, int]]:
    for kind in node.traffic:
        yield (kind.kind, "bytes_in"), kind.bytes_in
        yield (kind.kind, "bytes_out"), kind.bytes_out
        yield (kind.kind, "frames_in"), kind.frames_in
        yield (kind.kind, "frames_out"), kind.frames_out
    for peer in node.peers:
        yield (peer.node_id, "bytes_in"), peer.bytes_in
        yield (peer.node_id, "bytes_out"), peer.bytes_out
    for name, count in node.counters.items():
        yield ("counter", name), count
