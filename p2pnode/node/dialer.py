"""Whom to call, and when: peers given by hand, remembered, or announced on the local network.

A person's word is kept to: an address given by hand is called at a fixed pace until somebody of
the swarm answers there. The other two are hints. What a stranger announces must cost little and
harm nobody, so hints share a budget of calls (:class:`Budget`), an unanswered one is called ever
more rarely, and one that never was answered is called no further than its announcement paid for
in bytes. What became of each call is kept with it, for a person.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from p2pnode.node.config import DialerConfig
from p2pnode.node.dial_budget import Budget
from p2pnode.node.reach import Reach
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.identity import is_possible

INIT_BYTES = 164
"""What one call of an unproven address sends: a single INIT of Noise XX, padded as it is."""

LEAST_ANNOUNCEMENT = 190
"""Bytes that an announcement takes at the very least: PTR, SRV, TXT and one address."""

_LEAST_ROUND = 0.1  # seconds: what is due already but must wait is looked at no more often
_GONE = 8  # calls in vain, some ten minutes of them, after which a node once met counts as gone
_NOT_TRIED = "not tried yet"


@dataclass(frozen=True, slots=True)
class Call:
    """An address to be dialled.

    Attributes:
        address: Where.
        tries: How often the first message may be sent; None for the transport's own patience.
    """

    address: Address
    tries: int | None = None


@dataclass(slots=True)
class Contact:
    """Somebody to call.

    Attributes:
        addresses: Where it may be reached, the likeliest first.
        reason: Why no session is up, for a person; empty once it was met.
        owner: Who answered there, or is expected there; then it is not called while a session
            with that node is up, at whatever address.
        failures: Calls since it was met last.
        due: It is not called before.
        name: The host name and port that a person gave, of which this address was found.
    """

    addresses: tuple[Address, ...]
    reason: str = _NOT_TRIED
    owner: NodeId | None = None
    failures: int = 0
    due: float = 0.0
    name: Address | None = None


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
    reason: str = _NOT_TRIED
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


@dataclass(slots=True)
class HostName:
    """A name that a person gave: what it stood for last, and why it was not found if so."""

    addresses: tuple[Address, ...] = ()
    reason: str = "not looked up yet"


_Hint = Contact | Sighting


@dataclass(slots=True)
class Dialer:
    """Remembers whom to call and when to call again.

    Attributes:
        config: How often, and how much at once.
        node_id: This node, which is never called.
        counters: What was not called, by reason.
        fixed: Addresses given by hand.
        names: Host names given by hand; their addresses are among ``fixed``.
        remembered: Peers met at an earlier start.
        sightings: Nodes that announced themselves, by identity, the latest last.
        due: When there may be somebody to call.
    """

    config: DialerConfig
    node_id: NodeId
    counters: Counter[str] = field(default_factory=Counter)
    fixed: dict[Address, Contact] = field(default_factory=dict)
    names: dict[Address, HostName] = field(default_factory=dict)
    remembered: dict[NodeId, Contact] = field(default_factory=dict)
    sightings: dict[NodeId, Sighting] = field(default_factory=dict)
    due: float | None = None
    _budget: Budget[_Hint] = field(init=False)

    def __post_init__(self) -> None:
        self._budget = Budget(self.config)

    # What a person says

    def add_fixed(self, address: Address, now: float, *, name: Address | None = None) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        if address not in self.fixed and len(self.fixed) >= self.config.most_fixed:
            self.counters["address not called: too many were given by hand"] += 1
            return
        self.fixed.setdefault(address, Contact((address,), due=now, name=name))
        self.due = now

    def resolved(self, name: Address, found: tuple[Address, ...], now: float) -> None:
        """Call the addresses that ``name`` stands for now, and those no more that it did."""
        known = self.names.setdefault(name, HostName())
        for address in known.addresses:
            contact = self.fixed.get(address)
            if address not in found and contact is not None and contact.name == name:
                del self.fixed[address]
        known.addresses, known.reason = found, ""
        for address in found:
            if address not in self.fixed:
                self.add_fixed(address, now, name=name)

    def unresolved(self, name: Address, reason: str) -> bool:
        """Note that ``name`` is unknown; True when that is news."""
        known = self.names.setdefault(name, HostName())
        news, known.reason = known.reason != reason, reason
        return news

    def is_met(self, name: Address, is_connected: Callable[[NodeId], bool]) -> bool:
        """Tell whether a session is up with somebody at an address of ``name``."""
        known = self.names.get(name, HostName())
        contacts = (self.fixed.get(address) for address in known.addresses)
        return any(one is not None and self._is_up(one.owner, is_connected) for one in contacts)

    # Hints

    def remember(self, peer: NodeId, addresses: tuple[Address, ...], now: float) -> None:
        """Call a peer met at an earlier start; those said first are called first."""
        if peer != self.node_id and addresses:
            self.remembered[peer] = Contact(addresses, owner=peer, due=now)
            self.due = now

    def forget_all_but(self, peers: Container[NodeId]) -> None:
        """Call the remembered no more that are not among ``peers``: they are gone for too long."""
        for peer in [peer for peer in self.remembered if peer not in peers]:
            del self.remembered[peer]

    def sighted(self, peer: NodeId, sighting: Sighting, now: float) -> None:
        """Note an announcement; a known one pays for further calls, but hastens none."""
        known = self.sightings.get(peer)
        if known is None:
            if not self._has_room(sighting):
                self.counters["announcement not kept: too many"] += 1
                return
            sighting.due = now
            self.sightings[peer] = sighting
        else:
            self._renew(known, sighting, now)
        if sighting.ours:
            self.due = now

    def sighting_withdrawn(self, peer: NodeId) -> None:
        self.sightings.pop(peer, None)

    # What became of a call

    def failed(self, address: Address, peer: NodeId | None, reason: str, now: float) -> bool:
        """Note that a dial came to nothing; True when that is news about a fixed address.

        Where ``peer`` answered all the same (it is connected at another address), the address is
        another of its own.
        """
        self.due = now
        hint = self._budget.done(address)
        if hint is not None:
            hint.reason = reason
        contact = self.fixed.get(address)
        if contact is None:
            return False
        contact.owner = peer or contact.owner
        news, contact.reason = contact.reason not in (reason, ""), reason
        return news

    def reached(self, peer: NodeId, address: Address, now: float) -> None:
        """A session with ``peer`` is up."""
        self.due = now
        self._budget.met(address)
        sighting = self.sightings.get(peer)
        for contact in (self.fixed.get(address), self.remembered.get(peer)):
            if contact is not None:
                contact.owner, contact.reason, contact.failures, contact.due = peer, "", 0, now
        if sighting is not None:
            sighting.reason, sighting.failures, sighting.met = "", 0, True
            sighting.due = now

    def hurry(self, now: float, *, moved: bool = True) -> None:
        """Look anew at who is near; if we ``moved``, call everybody as if for the first time."""
        if moved:
            self._budget.forgive()
        for contact in chain(self.fixed.values(), self.remembered.values()) if moved else ():
            contact.failures, contact.due = 0, now
            contact.owner = None if contact.owner == self.node_id else contact.owner
        for sighting in self.sightings.values():
            if moved or sighting.near == ():
                sighting.failures, sighting.due = 0, now
            sighting.near = None
        self.due = now

    # Whom to call

    def calls(
        self,
        now: float,
        is_connected: Callable[[NodeId], bool],
        connected_addresses: Iterable[Address],
        reach: Reach,
    ) -> list[Call]:
        """Return whom to call now, and set the next round's time."""
        if self.due is None or now < self.due:
            return []
        up = set(connected_addresses)
        calls = self._fixed_calls(now, is_connected, up, reach)
        asked = {call.address for call in calls} | up
        self._budget.renew(now)
        for hint, addresses in self._due_hints(now, is_connected, reach):
            if not self._budget.has_room:
                break
            free = [one for one in addresses if one not in asked and not reach.is_ours(one)]
            address = self._budget.choose(free, hint.failures, now)
            if address is None:
                hint.due = now + self.config.redial
                continue
            asked.add(address)
            calls.append(self._call(hint, address, now))
        self.due = self._next_round(now, is_connected)
        return calls

    def _fixed_calls(
        self, now: float, is_connected: Callable[[NodeId], bool], up: set[Address], reach: Reach
    ) -> list[Call]:
        calls = []
        names: set[Address | None] = set()  # whose addresses are called one after the other
        for address, contact in self.fixed.items():
            if address in up or self._is_up(contact.owner, is_connected) or contact.due > now:
                continue
            if contact.name and contact.name in names:
                contact.due = now + self.config.stagger
                continue
            names.add(contact.name)
            contact.due = now + self.config.redial
            if not reach.is_ours(address):
                calls.append(Call(address))
        return calls

    def _due_hints(
        self, now: float, is_connected: Callable[[NodeId], bool], reach: Reach
    ) -> Iterator[tuple[_Hint, tuple[Address, ...]]]:
        """Yield the hints to be followed, the remembered and the announced in turn.

        The remembered come in their own order, the longest known first. Of the announced the latest
        comes first: a newcomer does not queue behind a flood of names that came before it. What
        takes time to check is checked as they are asked for.
        """
        remembered = (
            (one, one.addresses)
            for peer, one in self.remembered.items()
            if one.due <= now and not is_connected(peer)
        )
        announced = [
            (peer, one)
            for peer, one in reversed(self.sightings.items())
            if one.due <= now and one.is_callable and not is_connected(peer)
        ]
        announced.sort(key=lambda pair: pair[1].failures)
        checked = (
            (one, one.near)
            for peer, one in announced
            if self._is_worth_a_call(peer, one, reach, now) and one.near
        )
        for pair in zip_longest(remembered, checked):
            yield from (hint for hint in pair if hint is not None)

    def _is_worth_a_call(self, peer: NodeId, sighting: Sighting, reach: Reach, now: float) -> bool:
        """Check an announcement, the cheapest things first, and each of them once."""
        if peer == self.node_id:
            return False
        if sighting.near is None:
            near = (one for one in reach.order(sighting.addresses) if reach.is_near(one))
            sighting.near = tuple(near)[: self.config.addresses_each]
        if not sighting.near:
            sighting.reason = "it announces no address on a network of ours"
            sighting.due = now + self.config.backoff_most
            return False
        if sighting.possible is None:
            sighting.possible = is_possible(peer)
            if not sighting.possible:
                sighting.reason = "its key is no key: no such node exists"
                self.counters["dial failed"] += 1
        return sighting.possible

    def _call(self, hint: _Hint, address: Address, now: float) -> Call:
        hint.failures += 1
        met = isinstance(hint, Sighting) and hint.met
        hint.due = now + self.config.pause(hint.failures, met=met)
        self._budget.spend(address, hint, now, met=met)
        if isinstance(hint, Contact):
            return Call(address, self.config.remembered_tries)
        hint.sent += INIT_BYTES
        return Call(address, 1)

    def _next_round(self, now: float, is_connected: Callable[[NodeId], bool]) -> float | None:
        """Return when to look again: at the latest after a redial, for a session may have ended."""
        if not (self.fixed or self.remembered or self.sightings):
            return None
        latest = now + self.config.redial
        remembered = (one.due for peer, one in self.remembered.items() if not is_connected(peer))
        announced = (
            one.due
            for peer, one in self.sightings.items()
            if one.is_callable and not is_connected(peer)
        )
        hint = min(chain(remembered, announced), default=latest)
        fixed = (one.due for one in self.fixed.values() if one.due > now)
        return min(max(hint, self._budget.next_room(now), now + _LEAST_ROUND), *fixed, latest)

    def _renew(self, known: Sighting, said: Sighting, now: float) -> None:
        """Take what a known node announces now.

        Anyone may speak in its name: what was proven of its old addresses is not of new ones, and
        what was paid for calls of the old ones pays for none of the new.
        """
        if known.addresses != said.addresses:
            known.addresses, known.near, known.due = said.addresses, None, now
            known.met, known.heard, known.sent = False, 0, 0
        elif known.met:
            known.due = now
        known.heard = min(known.heard + said.heard, self.config.most_credit + known.sent)
        known.ours, known.name = said.ours, said.name

    def _has_room(self, newcomer: Sighting) -> bool:
        """Make room for a newcomer: what never answered gives way, of other swarms first."""
        if len(self.sightings) < self.config.most_sightings:
            return True
        goes = min(self.sightings, key=lambda peer: _worth(self.sightings[peer]))
        if _worth(self.sightings[goes]) > _worth(newcomer):
            return False
        del self.sightings[goes]
        self.counters["announcement forgotten for a newer one"] += 1
        return True

    def _is_up(self, owner: NodeId | None, is_connected: Callable[[NodeId], bool]) -> bool:
        return owner is not None and (owner == self.node_id or is_connected(owner))


def _worth(sighting: Sighting) -> tuple[bool, bool, bool]:
    """Order sightings by what would be lost with them; of equals the oldest goes."""
    is_lost = sighting.failures >= _GONE
    return sighting.ours, sighting.met and not is_lost, sighting.failures == 0
