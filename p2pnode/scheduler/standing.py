"""What the ledger of trust says at one moment: what a plan needs to know of it, and no more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from p2pnode.sansio import Address, NodeId

FAILED: Final = "it has failed us lately"
"""Of a peer that was dead or lied."""

SLOW: Final = "it was slow lately"
"""Of a peer that took longer than it said."""


class Observed(NamedTuple):
    """How fast a peer was lately.

    Attributes:
        layer_us: Microseconds a token and layer.
        weight: How much of it counts still, 1 down to 0; the rest is what the peer says.
    """

    layer_us: float
    weight: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says at one moment; the default is that of an empty ledger.

    Attributes:
        excluded: Peers not to be planned, each with the reason as a clause: "stalled twice (no
            token for 3.0 s); tried again in 12 s".
        factors: What the prices of those who offended lately are multiplied by.
        troubles: What those did, as a clause.
        proven: Those who have computed enough of our tokens.
        tried: Those who have computed any that count.
        trial: Whether strangers are believed at their word.
        dues: What a stranger costs that is not believed, in prices of the slowest proven peer.
        introduced_before: Strangers met after this moment are not believed yet.
        entrance: What such a stranger costs, in prices of the slowest of those tried.
        newcomers_since: Strangers met after this moment are not believed in a trial either, and
            least of all outside of one: they may be whoever failed us last, under a fresh key.
        places: What strangers at these addresses are dearer by.
        observed: Speeds measured lately.
        hopeless: Those of the excluded that are not even a last resort.
    """

    excluded: Mapping[NodeId, str] = field(default_factory=dict)
    factors: Mapping[NodeId, float] = field(default_factory=dict)
    troubles: Mapping[NodeId, str] = field(default_factory=dict)
    proven: frozenset[NodeId] = frozenset()
    tried: frozenset[NodeId] = frozenset()
    trial: bool = True
    dues: float = 1.0
    introduced_before: float = math.inf
    entrance: float = 1.0
    newcomers_since: float = math.inf
    places: Mapping[str, float] = field(default_factory=dict)
    observed: Mapping[NodeId, Observed] = field(default_factory=dict)
    hopeless: Mapping[NodeId, str] = field(default_factory=dict)

    def factor(self, peer: NodeId) -> float:
        """Return what the peer's price is multiplied by, at least 1."""
        return self.factors.get(peer, 1.0)

    def is_proven(self, peer: NodeId) -> bool:
        return peer in self.proven

    def layer_us(self, peer: NodeId, promised: float) -> float:
        """Return the worse of what ``peer`` promises and what was observed lately."""
        seen = self.observed.get(peer)
        if seen is None or seen.layer_us <= promised:
            return promised
        return promised + (seen.layer_us - promised) * seen.weight

    def place_factor(self, address: Address | None) -> float:
        """Return what a stranger at ``address`` is dearer by, at least 1."""
        if address is None or not self.places:
            return 1.0
        return max(self.places.get(place, 1.0) for place in places_of(address))

    def last_resort(self) -> "Standing":
        """Return the same where better a peer that failed us is used than none.

        Those that lied, or failed us again and again, stay excluded.
        """
        return replace(self, excluded=self.hopeless)


def places_of(address: Address) -> tuple[str, str]:
    """Return the machine, and the socket on it: of two swarms behind one address each counts."""
    host, port = address
    return host, f"{host} {port}"
