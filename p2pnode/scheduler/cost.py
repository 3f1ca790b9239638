"""What a token costs: the time of a hop, and of a visit to a peer.

A visit costs ``fixed + slope x layers``, as the peer measured it on warm samples; the last one
also pays for the head. A hop costs half a round trip, the time its
bytes take, and a handover. What nobody
has measured gets a pessimistic price, never exclusion: a newcomer would otherwise get no work,
and so never be measured.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from p2pnode.errors import ConfigError
from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.terrain import Floats
from p2pnode.wire.ad import CapabilityAd

RttUs: TypeAlias = Callable[[NodeId, NodeId], float | None]
"""Round trip between two peers in microseconds, or None if nobody has measured it."""

Peers: TypeAlias = tuple[NodeId, ...]

RttsUs: TypeAlias = Callable[[Peers, Peers], Floats]
"""The same from each of some peers to each of others, NaN where nobody has measured it."""

Goodput: TypeAlias = Callable[[NodeId, NodeId], float | None]
"""Bytes a second that large messages reach from one peer to another, or None if unknown."""

TOKEN_BYTES = 64
"""A frame that carries a token instead of hidden values: its header, nearly."""

HIDDEN_VALUE_BYTES = 4
"""Hidden values travel as F32 by default, and at cuts that a repair adds always."""


@dataclass(frozen=True, slots=True)
class CostConfig:
    """Prices for what has not been measured.

    Attributes:
        pessimism: An unmeasured peer is priced at this many times the slowest measured one, at
            least 1. A guess.
        unmeasured_fixed_us: Price of a visit when no peer has been measured, microseconds. A
            guess; a small model on a laptop takes about 500.
        unmeasured_layer_us: The same, a layer. A guess; 600 was measured for a model of 135
            million parameters on one core.
        handover_us: What a hop between two peers costs beside the wire: coding, sealing, and waking
            a process on either side. ``p2pnode bench chain`` measured 1 ms on two cores; without
            it a plan would cut a run in two wherever measurement noise makes that look cheaper.
        one_numerics: A chain whose stages all compute alike is taken where it costs at most so many
            times what the cheapest chain does, at least 1: whichever stage is lost then, others
            can go on with the same bits. A guess: what a person would not notice.
        same_numerics: Who takes over from a lost stage computes as that did, where it costs at most
            so many times what the cheapest does, at least 1. An answer that stays the same is
            worth more than one that might have; but whoever claims an arithmetic must not be
            taken at any price. A guess.
        unmeasured_rtt_us: Round trip assumed between peers that have not met, microseconds. The
            default is that between two continents; far more would amount to exclusion.
    """

    pessimism: float = 2.0
    unmeasured_fixed_us: float = 2_000.0
    unmeasured_layer_us: float = 3_000.0
    handover_us: float = 1_000.0
    one_numerics: float = 1.25
    same_numerics: float = 2.0
    unmeasured_rtt_us: float = 150_000.0

    def __post_init__(self) -> None:
        if self.pessimism < 1:
            raise ConfigError(f"pessimism is at least 1, not {self.pessimism}")
        if min(self.one_numerics, self.same_numerics) < 1:
            raise ConfigError("no chain costs less than the cheapest")
        if self.handover_us < 0:
            raise ConfigError(f"a handover is not worth {self.handover_us} us")
        if min(self.unmeasured_fixed_us, self.unmeasured_layer_us, self.unmeasured_rtt_us) <= 0:
            raise ConfigError("a price for what is unmeasured is positive, or it is no pessimism")


@dataclass(frozen=True, slots=True)
class Price:
    """What one peer's visit costs.

    Attributes:
        fixed_us: Each visit, microseconds.
        layer_us: Each layer of it.
        head_us: On top, when it ends with the model's last layer.
        measured: Whether the peer measured this itself.
        why: Why it is not what the peer says, as a clause; empty if it is.
        expected: What a visit is expected to take, where the peer is dearer than that for want of
            trust; None where this is it.
    """

    fixed_us: float
    layer_us: float
    head_us: float
    measured: bool
    why: str = ""
    expected: "Price | None" = None

    def visit_us(self, layer_count: int, *, head: bool) -> float:
        """Return what a visit counts for in a plan, in microseconds."""
        fixed_us = float(self.fixed_us)  # a peer's own figures are whole numbers
        return fixed_us + self.layer_us * layer_count + (self.head_us if head else 0.0)

    def expected_us(self, layer_count: int, *, head: bool) -> float:
        """Return the time a visit is expected to take, in microseconds."""
        return (self.expected or self).visit_us(layer_count, head=head)

    def times(self, factor: float, why: str) -> "Price":
        """Return the same made dearer, for want of trust."""
        return Price(
            self.fixed_us * factor,
            self.layer_us * factor,
            self.head_us * factor,
            self.measured,
            _both(self.why, why),
            self.expected or self,
        )

    def at_least(self, floor: "Price", why: str) -> "Price":
        """Return the same, but no cheaper in anything than ``floor``, for want of trust."""
        return Price(
            max(self.fixed_us, floor.fixed_us),
            max(self.layer_us, floor.layer_us),
            max(self.head_us, floor.head_us),
            self.measured,
            _both(self.why, why),
            self.expected or self,
        )


def _both(why: str, more: str) -> str:
    """Join two clauses; the same is said once."""
    said = [clause for clause in why.split("; ") if clause]
    return "; ".join(dict.fromkeys([*said, *([more] if more else [])]))


def price_offers(offers: Iterable[Offer], config: CostConfig) -> dict[NodeId, Price]:
    """Price every offer; the unmeasured ones by the slowest of the measured."""
    offers = list(offers)
    ads = [offer.ad for offer in offers if offer.is_measured]
    unmeasured = Price(
        _worst([ad.decode_fixed_us for ad in ads], config.unmeasured_fixed_us, config),
        _worst([ad.decode_layer_us for ad in ads], config.unmeasured_layer_us, config),
        _worst([ad.head_us for ad in ads], config.unmeasured_layer_us, config),
        measured=False,
    )
    return {
        offer.peer: _as_promised(offer.ad) if offer.is_measured else unmeasured for offer in offers
    }


@dataclass(frozen=True, slots=True, eq=False)
class Hops:
    """The price of sending between any two peers.

    Attributes:
        rtt_us: Round trips.
        goodput: Rates of large messages; None if none is known.
        config: Prices of the unmeasured.
        rtts_us: Round trips of many at once, NaN for the unmeasured; much faster.
    """

    rtt_us: RttUs
    goodput: Goodput | None
    config: CostConfig
    rtts_us: RttsUs | None = None
    _one_way: dict[tuple[Peers, Peers], Floats] = field(default_factory=dict)

    def latency_us(self, source: NodeId, destination: NodeId, size: int) -> float:
        """Return how long ``size`` bytes take to arrive, in microseconds."""
        if source == destination:
            return 0.0
        rtt = self.rtt_us(source, destination)
        one_way = (self.config.unmeasured_rtt_us if rtt is None else rtt) / 2
        handover = self.config.handover_us
        return one_way + handover + self.occupancy_us(source, destination, size)

    def latencies_us(self, sources: Peers, destinations: Peers, size: int) -> Floats:
        """Return the same from each source to each destination, [from, to]."""
        known = self._one_way.get((sources, destinations))
        if known is None:
            known = self._one_way[sources, destinations] = self._handovers(sources, destinations)
        return known + self.occupancies_us(sources, destinations, size)

    def occupancy_us(self, source: NodeId, destination: NodeId, size: int) -> float:
        """Return how long ``size`` bytes keep the link busy: its share of a bottleneck."""
        rate = None if self.goodput is None else self.goodput(source, destination)
        if source == destination or not rate:
            return 0.0
        return size / rate * 1e6

    def occupancies_us(self, sources: Peers, destinations: Peers, size: int) -> Floats:
        """Return the same from each source to each destination, [from, to]."""
        if self.goodput is None:
            return np.zeros((len(sources), len(destinations)))
        return np.array(
            [[self.occupancy_us(one, other, size) for other in destinations] for one in sources]
        ).reshape(len(sources), len(destinations))

    def _handovers(self, sources: Peers, destinations: Peers) -> Floats:
        """Return what hops of no bytes take, [from, to]."""
        if self.rtts_us is None:
            some = [[self.rtt_us(one, other) for other in destinations] for one in sources]
            rtts = np.array(some, np.float64).reshape(len(sources), len(destinations))
        else:
            rtts = self.rtts_us(sources, destinations)
        rtts[np.isnan(rtts)] = self.config.unmeasured_rtt_us
        us: Floats = rtts / 2 + self.config.handover_us
        numbers = {peer: number for number, peer in enumerate(destinations)}
        for number, peer in enumerate(sources):
            if peer in numbers:
                us[number, numbers[peer]] = 0.0
        return us


def hidden_bytes(d_model: int, value_bytes: int = HIDDEN_VALUE_BYTES) -> int:
    """Return the size of a frame that carries one token's hidden values."""
    return TOKEN_BYTES + value_bytes * d_model


def _as_promised(ad: CapabilityAd) -> Price:
    return Price(ad.decode_fixed_us, ad.decode_layer_us, ad.head_us, measured=True)


def _worst(measured: list[int], unmeasured: float, config: CostConfig) -> float:
    return max(measured) * config.pessimism if measured else unmeasured
