"""Where nodes lie in a space whose distances are round trips: Vivaldi, as Serf runs it.

Dabek et al., "Vivaldi: a decentralized network coordinate system" (SIGCOMM 2004), with a height
(the access link, section 5.4), and with Serf's three additions: a median filter on each peer's
samples, an adjustment term for what a Euclidean space cannot hold (Ledlie et al., "Network
coordinates in the wild", NSDI 2007), and a pull towards the origin that keeps all from drifting.
Constants are Serf's. Coordinates ride on pings and acks, so every node learns every other's and
can estimate the round trip between any two.
"""

import math
import struct
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, replace
from statistics import median

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import NodeId, Rng

DIMENSIONS = 8
ERROR_MAX = 1.5
ERROR_GAIN = 0.25  # c_e in the paper
FORCE_GAIN = 0.25  # c_c
ADJUSTMENT_WINDOW = 20
FILTER_WINDOW = 3
HEIGHT_MIN = 1e-5
GRAVITY_RADIUS = 150.0
RTT_MAX = 10.0
FARTHEST = 100.0  # seconds; a peer may claim any place, but it pushes us no farther than this
_ZERO = 1e-6

_LAYOUT = struct.Struct(f"<{DIMENSIONS + 3}e")  # half floats: 11 bits, where 8 would do
COORDINATE_SIZE = _LAYOUT.size


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A place, in seconds.

    Attributes:
        vector: Position in the Euclidean part, ``DIMENSIONS`` numbers.
        error: How much it is to be trusted: relative error, 0 to 1.5, small is good.
        adjustment: Correction added to every distance; may be negative.
        height: Length of the access link, at least 10 us.

    Raises:
        LocalProtocolError: A number is not finite, or out of its bounds.
    """

    vector: tuple[float, ...] = (0.0,) * DIMENSIONS
    error: float = ERROR_MAX
    adjustment: float = 0.0
    height: float = HEIGHT_MIN

    def __post_init__(self) -> None:
        numbers = (*self.vector, self.adjustment)
        if len(self.vector) != DIMENSIONS or not all(-1e3 < number < 1e3 for number in numbers):
            raise LocalProtocolError(f"not a place: {self}")
        if not (0 <= self.error <= ERROR_MAX and 0 <= self.height < 1e3):
            raise LocalProtocolError(f"not a place: {self}")

    def distance(self, other: "Coordinate") -> float:
        """Return the estimated round trip between the two, in seconds."""
        plain = self.plain_distance(other)
        adjusted = plain + self.adjustment + other.adjustment
        return adjusted if adjusted > 0 else plain

    def plain_distance(self, other: "Coordinate") -> float:
        """Return the distance without the adjustments."""
        return math.dist(self.vector, other.vector) + self.height + other.height

    def encode(self) -> bytes:
        """Return its 22 bytes."""
        return _LAYOUT.pack(*self.vector, self.error, self.adjustment, self.height)

    @classmethod
    def decode_untrusted(cls, data: bytes) -> "Coordinate":
        """Parse bytes from the network.

        Raises:
            RemoteProtocolError: For any malformed input, and nothing else ever.
        """
        try:
            *vector, error, adjustment, height = _LAYOUT.unpack(data)
            return cls(tuple(vector), error, adjustment, height)
        except (struct.error, LocalProtocolError) as problem:
            raise RemoteProtocolError(f"malformed coordinate: {data.hex()}") from problem


class Vivaldi:
    """Our own place, and the places that others told us."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._known: dict[NodeId, Coordinate] = {}
        self._samples: dict[NodeId, deque[float]] = {}
        self._residues: deque[float] = deque(maxlen=ADJUSTMENT_WINDOW)
        self.own = Coordinate()

    def place_of(self, peer: NodeId) -> Coordinate | None:
        return self._known.get(peer)

    def measured(self, peer: NodeId) -> float | None:
        """Return the round trip to ``peer``: the median of its last samples, in seconds."""
        samples = self._samples.get(peer)
        return median(samples) if samples else None

    def note(self, peer: NodeId, place: Coordinate) -> None:
        """Remember where ``peer`` says it is."""
        self._known[peer] = place

    def forget_all_but(self, peers: Container[NodeId]) -> None:
        for table in (self._known, self._samples):
            for peer in [peer for peer in table if peer not in peers]:
                del table[peer]

    def learn(self, peer: NodeId, place: Coordinate, rtt: float) -> None:
        """Move by one measured round trip to ``peer``, which is at ``place``."""
        self.note(peer, place)
        if not 0 <= rtt <= RTT_MAX:
            return
        samples = self._samples.setdefault(peer, deque(maxlen=FILTER_WINDOW))
        samples.append(rtt)
        self._move(place, max(median(samples), _ZERO))

    def _move(self, other: Coordinate, rtt: float) -> None:
        before = self.own
        distance = before.plain_distance(other)
        weight = before.error / max(before.error + other.error, _ZERO)
        wrongness = abs(distance - rtt) / rtt
        gain = ERROR_GAIN * weight
        error = min(ERROR_MAX, wrongness * gain + before.error * (1 - gain))
        pushed = self._push(before, other, FORCE_GAIN * weight * (rtt - distance))
        self._residues.append(rtt - pushed.plain_distance(other))
        adjustment = _bounded(math.fsum(self._residues) / (2 * ADJUSTMENT_WINDOW))
        self.own = self._gravitate(replace(pushed, error=error, adjustment=adjustment))

    def _gravitate(self, place: Coordinate) -> Coordinate:
        origin = Coordinate()
        return self._push(place, origin, -((origin.distance(place) / GRAVITY_RADIUS) ** 2))

    def _push(self, place: Coordinate, other: Coordinate, force: float) -> Coordinate:
        """Return ``place`` moved by ``force`` seconds away from ``other``."""
        span = math.dist(place.vector, other.vector)
        if span > _ZERO:
            height = (place.height + other.height) * force / span + place.height
            unit = [(a - b) / span for a, b in zip(place.vector, other.vector, strict=True)]
        else:  # two nodes at one place must part in some direction, and any will do
            height = place.height
            unit = self._random_unit()
        vector = tuple(_bounded(a + u * force) for a, u in zip(place.vector, unit, strict=True))
        return replace(place, vector=vector, height=min(max(height, HEIGHT_MIN), RTT_MAX))

    def _random_unit(self) -> list[float]:
        while True:
            vector = [self._rng.uniform(-1, 1) for _ in range(DIMENSIONS)]
            length = math.hypot(*vector)
            if length > _ZERO:
                return [part / length for part in vector]


def _bounded(seconds: float) -> float:
    return min(max(seconds, -FARTHEST), FARTHEST)
