"""Whom to call: peers given by hand, remembered, or announced by mDNS, and what became of it.

An announcement is a hint, never a proof: it earns a dial and a line in the snapshot, with the
reason while no handshake has succeeded. Dials are repeated at a fixed pace.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from p2pnode.sansio import Address, NodeId

_MOST_SIGHTINGS = 256  # announcements are unauthenticated: whoever floods them gains nothing


@dataclass(slots=True)
class Sighting:
    """A node that announced itself.

    Attributes:
        addresses: Where it says it can be reached.
        name: What it says it is called.
        ours: Whether it says it belongs to our swarm.
        reason: Why no session with it is up, for a person.
    """

    addresses: tuple[Address, ...]
    name: str
    ours: bool
    reason: str = "not tried yet"


@dataclass(slots=True)
class Dialer:
    """Remembers whom to call and when to call again.

    Attributes:
        redial: Seconds between attempts.
        fixed: Addresses given by hand or remembered, without a known identity.
        sightings: Nodes that announced themselves, by identity.
    """

    redial: float
    fixed: dict[Address, str] = field(default_factory=dict)
    sightings: dict[NodeId, Sighting] = field(default_factory=dict)
    due: float | None = None

    def add_fixed(self, address: Address, now: float) -> None:
        self.fixed.setdefault(address, "not tried yet")
        self.due = now

    def saw(self, peer: NodeId, sighting: Sighting, now: float) -> None:
        """Note an announcement; a known one only refreshes its addresses."""
        known = self.sightings.get(peer)
        if known is not None:
            known.addresses, known.ours = sighting.addresses, sighting.ours
        elif len(self.sightings) < _MOST_SIGHTINGS:
            self.sightings[peer] = sighting
        if sighting.ours:
            self.due = now

    def unsaw(self, peer: NodeId) -> None:
        self.sightings.pop(peer, None)

    def failed(self, address: Address, peer: NodeId | None, reason: str) -> bool:
        """Note that a dial came to nothing; True when that is news about a fixed address."""
        news = self.fixed.get(address, reason) != reason
        if address in self.fixed:
            self.fixed[address] = reason
        if peer is not None and peer in self.sightings:
            self.sightings[peer].reason = reason
        return news

    def reached(self, peer: NodeId, address: Address) -> None:
        """A session with ``peer`` is up."""
        if address in self.fixed:
            self.fixed[address] = ""
        if peer in self.sightings:
            self.sightings[peer].reason = ""

    def calls(
        self,
        now: float,
        is_connected: Callable[[NodeId], bool],
        connected_addresses: Iterable[Address],
    ) -> list[tuple[Address, NodeId | None]]:
        """Return whom to call now, and set the next round's time."""
        if self.due is None or now < self.due:
            return []
        reached = set(connected_addresses)
        calls: list[tuple[Address, NodeId | None]] = [
            (address, None) for address in self.fixed if address not in reached
        ]
        for peer, sighting in self.sightings.items():
            if sighting.ours and not is_connected(peer):
                calls += [(address, peer) for address in sighting.addresses]
        self.due = now + self.redial if self.fixed or self.sightings else None
        return calls
