"""The weather between two peers: what a link loses, delays, doubles, damages and refuses.

A :class:`Link` is a frozen description of one direction. A :class:`Path` is that description in
motion: it keeps the state of the loss chain and of the bottleneck's queue, and owns a generator
of its own, so that one more peer on the network leaves everybody else's weather as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from typing import TypeAlias

IP_UDP_OVERHEAD = 28
"""Bytes that IPv4 and UDP put around a payload; the MTU and the rate count them."""

LossProcess: TypeAlias = Callable[[], bool]
"""Says whether the next datagram is lost."""


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Every datagram is lost with probability ``p``, whatever became of the others."""

    p: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unless_probability("p", self.p)

    @property
    def mean_loss(self) -> float:
        return self.p

    @property
    def mean_burst(self) -> float:
        """Mean number of losses in a row, given one."""
        return 1 / (1 - self.p) if self.p < 1 else float("inf")

    def start(self, rng: Random) -> LossProcess:
        return lambda: rng.random() < self.p


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Two states, good and bad; datagrams are lost at ``bad_loss`` while the link is bad.

    With the default losses this is Gilbert's simple chain: bursts are geometric with mean
    ``1 / r``, gaps with mean ``1 / p``, and ``p / (p + r)`` of all datagrams are lost
    (Gilbert 1960; Hasslinger and Hohlfeld 2008).

    Attributes:
        p: Probability, a datagram, of turning from good to bad.
        r: Probability, a datagram, of turning from bad to good.
        good_loss: Share lost while good.
        bad_loss: Share lost while bad.
    """

    p: float
    r: float
    good_loss: float = 0.0
    bad_loss: float = 1.0

    def __post_init__(self) -> None:
        for name in ("p", "r", "good_loss", "bad_loss"):
            _refuse_unless_probability(name, getattr(self, name))
        if self.p + self.r == 0:
            raise ValueError("a chain that never changes state has no mean: use Bernoulli")

    @property
    def mean_loss(self) -> float:
        bad = self.p / (self.p + self.r)
        return bad * self.bad_loss + (1 - bad) * self.good_loss

    @property
    def mean_burst(self) -> float:
        """Mean number of datagrams spent bad in a row; of losses, if bad loses everything."""
        return 1 / self.r if self.r else float("inf")

    def start(self, rng: Random) -> LossProcess:
        # From the stationary distribution: short runs then have the stated mean as well.
        bad = rng.random() < self.p / (self.p + self.r)

        def lost() -> bool:
            nonlocal bad
            now_bad = bad
            bad = rng.random() >= self.r if bad else rng.random() < self.p
            share = self.bad_loss if now_bad else self.good_loss
            return share > 0 and (share >= 1 or rng.random() < share)

        return lost


@dataclass(frozen=True, slots=True)
class Trace:
    """Losses exactly as recorded, over and over: True is lost."""

    pattern: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("a trace holds at least one datagram")

    @property
    def mean_loss(self) -> float:
        return sum(self.pattern) / len(self.pattern)

    def start(self, rng: Random) -> LossProcess:
        steps = cycle(self.pattern)
        return lambda: next(steps)


Loss: TypeAlias = Bernoulli | GilbertElliott | Trace


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two peers.

    Attributes:
        loss: Which datagrams vanish.
        latency: Shortest and longest one-way delay in seconds, drawn evenly. A link is a queue:
            a datagram never overtakes the one before it, however the draws fall.
        reorder: Share that is held back, and so does get overtaken.
        reorder_by: How long such a datagram is held back at most, in seconds.
        duplicate: Share that arrives twice.
        corrupt: Share that arrives with one bit flipped.
        rate: Bytes a second, IP and UDP headers included; None is no limit.
        queue: Bytes waiting for the rate; what finds more than this ahead of it is dropped.
        mtu: Largest IP packet in bytes; anything larger is dropped in silence.
    """

    loss: Loss = field(default_factory=Bernoulli)
    latency: tuple[float, float] = (0.001, 0.001)
    reorder: float = 0.0
    reorder_by: float = 0.02
    duplicate: float = 0.0
    corrupt: float = 0.0
    rate: float | None = None
    queue: int = 256 * 1024
    mtu: int = 1500

    def __post_init__(self) -> None:
        for name in ("reorder", "duplicate", "corrupt"):
            _refuse_unless_probability(name, getattr(self, name))
        shortest, longest = self.latency
        if not 0 <= shortest <= longest or self.reorder_by < 0:
            raise ValueError(f"delays are not negative and in order: {self}")
        if (self.rate is not None and self.rate <= 0) or self.queue < 0 or self.mtu < 1:
            raise ValueError(f"rate and MTU are positive, the queue is not negative: {self}")


@dataclass(frozen=True, slots=True)
class Fate:
    """What a link does to one datagram: the copies that arrive, or why none does."""

    copies: tuple[tuple[float, bytes], ...] = ()
    dropped: str = ""


class Path:
    """A :class:`Link` in motion, from one peer to another."""

    __slots__ = ("_free_at", "_last_arrival", "_lost", "_rng", "link")

    def __init__(self, link: Link, rng: Random) -> None:
        self.link = link
        self._rng = rng
        self._lost = link.loss.start(rng)
        self._free_at = 0.0
        self._last_arrival = 0.0

    def replace(self, link: Link) -> None:
        """Change the weather; datagrams already on their way are not touched."""
        self.link = link
        self._lost = link.loss.start(self._rng)

    def carry(self, payload: bytes, now: float) -> Fate:
        """Decide the fate of a datagram sent at ``now``."""
        link = self.link
        size = len(payload) + IP_UDP_OVERHEAD
        if size > link.mtu:
            return Fate(dropped="mtu")
        departure = self._enqueue(size, now)
        if departure is None:
            return Fate(dropped="queue")
        # The queue is before the air: what is lost has used the bottleneck all the same.
        if self._lost():
            return Fate(dropped="loss")
        copy = (self._arrival(departure), self._damage(payload))
        if link.duplicate and self._rng.random() < link.duplicate:
            return Fate((copy, (self._arrival(departure), self._damage(payload))))
        return Fate((copy,))

    def carry_reliably(self, payload: bytes, now: float) -> Fate:
        """Carry what a reliable layer below would: it waits out losses instead of vanishing."""
        patience = 16
        start = now
        while self._lost() and patience:
            patience -= 1
            now += 3 * self.link.latency[1]  # a lost attempt costs about a round trip and a half
        if not patience:
            return Fate(dropped="loss")
        rate = self.link.rate
        self._free_at = max(self._free_at, start) + (len(payload) / rate if rate else 0.0)
        return Fate(((max(self._free_at, now) + self._rng.uniform(*self.link.latency), payload),))

    def _enqueue(self, size: int, now: float) -> float | None:
        rate = self.link.rate
        if rate is None:
            return now
        free_at = max(self._free_at, now)
        if (free_at - now) * rate > self.link.queue:
            return None
        self._free_at = free_at + size / rate
        return self._free_at

    def _arrival(self, departure: float) -> float:
        link = self.link
        shortest, longest = link.latency
        arrival = departure + shortest
        if longest > shortest:
            arrival += (longest - shortest) * self._rng.random()
        if link.reorder and self._rng.random() < link.reorder:
            return arrival + link.reorder_by * self._rng.random()
        self._last_arrival = max(arrival, self._last_arrival)
        return self._last_arrival

    def _damage(self, payload: bytes) -> bytes:
        if not self.link.corrupt or not payload or self._rng.random() >= self.link.corrupt:
            return payload
        damaged = bytearray(payload)
        damaged[self._rng.randrange(len(damaged))] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)


def _refuse_unless_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability, not {value}")


# (p, r) as other projects ship them; none was measured by us.
WIFI = GilbertElliott(1 / 200, 1 / 2)
LOSSY_WIFI = GilbertElliott(1 / 40, 1 / 2)
CELLULAR = GilbertElliott(1 / 100, 1 / 2)
SATELLITE = GilbertElliott(1 / 100, 1 / 3)
CONGESTED = GilbertElliott(1 / 20, 1 / 2)
BURSTS_OF_FOUR = GilbertElliott(0.02777, 0.25)
"""10 % lost, four at a time on average."""
