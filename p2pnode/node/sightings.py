"""Nodes that announce themselves on the local network, as far as calling them is concerned.

Anyone may announce anything, so what is kept is bounded, and each call of an address that never
answered is paid for in bytes of announcements.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from p2pnode.node.config import DialerConfig
from p2pnode.node.reach import Reach
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.identity import is_possible

INIT_BYTES = 164
"""What one call of an unproven address sends: a single INIT of Noise XX, padded as it is."""

LEAST_ANNOUNCEMENT = 190
"""Bytes that an announcement takes at the very least: PTR, SRV, TXT and one address."""

NOT_TRIED = "not tried yet"

_GONE = 8  # calls in vain, some ten minutes of them, after which a node once met counts as gone


@dataclass(slots=True)
class Sighting:
    """A node that announced itself.

    Attributes:
        addresses: Where it says it can be reached.
        name: What it says it is called.
        ours: Whether it says it belongs to our swarm.
        reason: Why no session with it is up, for a person.
        heard: Bytes of the announcements of these addresses; as many may go there before it is met.
        sent: Bytes that went there.
        failures: Calls since it was met last.
        due: It is not called before.
        met: Whether a session with it ever came up.
        near: Of its addresses those on our links, once they were looked at.
        possible: Whether its key is one, once it was looked at.
    """

    addresses: tuple[Address, ...]
    name: str
    ours: bool
    reason: str = NOT_TRIED
    heard: int = LEAST_ANNOUNCEMENT
    sent: int = 0
    failures: int = 0
    due: float = 0.0
    met: bool = False
    near: tuple[Address, ...] | None = None
    possible: bool | None = None

    @property
    def is_callable(self) -> bool:
        """Whether a call is worth a thought, and paid for."""
        paid = self.met or self.sent + INIT_BYTES <= self.heard
        return self.ours and paid and self.possible is not False


class Sightings:
    """The announcements that a node remembers.

    Attributes:
        known: By identity, the latest last.
    """

    def __init__(self, config: DialerConfig, node_id: NodeId, counters: Counter[str]) -> None:
        self._config = config
        self._node_id = node_id
        self._counters = counters
        self.known: dict[NodeId, Sighting] = {}

    def note(self, peer: NodeId, said: Sighting, now: float) -> bool:
        """Take an announcement; False where there are too many to keep it."""
        known = self.known.get(peer)
        if known is not None:
            self._renew(known, said, now)
            return True
        if not self._has_room(said):
            self._counters["announcement not kept: too many"] += 1
            return False
        said.due = now
        self.known[peer] = said
        return True

    def met(self, peer: NodeId, now: float) -> None:
        """A session with ``peer`` is up."""
        sighting = self.known.get(peer)
        if sighting is not None:
            sighting.reason, sighting.failures, sighting.met = "", 0, True
            sighting.due = now

    def look_anew(self, now: float, *, moved: bool) -> None:
        """Forget who is near; whoever was not may be by now, and if we ``moved``, anybody."""
        for sighting in self.known.values():
            if moved or sighting.near == ():
                sighting.failures, sighting.due = 0, now
            sighting.near = None

    def worth_a_call(
        self, now: float, is_connected: Callable[[NodeId], bool], reach: Reach
    ) -> Iterator[tuple[Sighting, tuple[Address, ...]]]:
        """Yield whom to call now, with the addresses that are near.

        The latest comes first: a newcomer does not queue behind a flood of names that came before
        it. What takes time to check is checked as they are asked for.
        """
        announced = [
            (peer, one)
            for peer, one in reversed(self.known.items())
            if one.due <= now and one.is_callable and not is_connected(peer)
        ]
        announced.sort(key=lambda pair: pair[1].failures)
        for peer, one in announced:
            if self._is_worth_a_call(peer, one, reach, now) and one.near:
                yield one, one.near

    def dues(self, is_connected: Callable[[NodeId], bool]) -> Iterator[float]:
        """Yield when each may be called next."""
        for peer, one in self.known.items():
            if one.is_callable and not is_connected(peer):
                yield one.due

    def _is_worth_a_call(self, peer: NodeId, sighting: Sighting, reach: Reach, now: float) -> bool:
        """Check an announcement, the cheapest things first, and each of them once."""
        if peer == self._node_id:
            return False
        if sighting.near is None:
            near = (one for one in reach.order(sighting.addresses) if reach.is_near(one))
            sighting.near = tuple(near)[: self._config.addresses_each]
        if not sighting.near:
            sighting.reason = "it announces no address on a network of ours"
            sighting.due = now + self._config.backoff_most
            return False
        if sighting.possible is None:
            sighting.possible = is_possible(peer)
            if not sighting.possible:
                sighting.reason = "its key is no key: no such node exists"
                self._counters["dial failed"] += 1
        return sighting.possible

    def _renew(self, known: Sighting, said: Sighting, now: float) -> None:
        """Take what a known node announces now: it pays for further calls, but hastens none.

        Anyone may speak in its name: what was proven of its old addresses is not of new ones, and
        what was paid for calls of the old ones pays for none of the new.
        """
        if known.addresses != said.addresses:
            known.addresses, known.near, known.due = said.addresses, None, now
            known.met, known.heard, known.sent = False, 0, 0
        elif known.met:
            known.due = now
        known.heard = min(known.heard + said.heard, self._config.most_credit + known.sent)
        known.ours, known.name = said.ours, said.name

    def _has_room(self, newcomer: Sighting) -> bool:
        """Make room for a newcomer: what never answered gives way, of other swarms first."""
        if len(self.known) < self._config.most_sightings:
            return True
        goes = min(self.known, key=lambda peer: _worth(self.known[peer]))
        if _worth(self.known[goes]) > _worth(newcomer):
            return False
        del self.known[goes]
        self._counters["announcement forgotten for a newer one"] += 1
        return True


def _worth(sighting: Sighting) -> tuple[bool, bool, bool]:
    """Order sightings by what would be lost with them; of equals the oldest goes."""
    is_lost = sighting.failures >= _GONE
    return sighting.ours, sighting.met and not is_lost, sighting.failures == 0
