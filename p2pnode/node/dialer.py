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
from p2pnode.node.sightings import INIT_BYTES, NOT_TRIED, Sighting, Sightings
from p2pnode.sansio import Address, NodeId

_LEAST_ROUND = 0.1  # seconds: what is due already but must wait is looked at no more often


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
    reason: str = NOT_TRIED
    owner: NodeId | None = None
    failures: int = 0
    due: float = 0.0
    name: Address | None = None


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
        sightings: Nodes that announced themselves.
        due: When there may be somebody to call.
    """

    config: DialerConfig
    node_id: NodeId
    counters: Counter[str] = field(default_factory=Counter)
    fixed: dict[Address, Contact] = field(default_factory=dict)
    names: dict[Address, HostName] = field(default_factory=dict)
    remembered: dict[NodeId, Contact] = field(default_factory=dict)
    sightings: Sightings = field(init=False)
    due: float | None = None
    _budget: Budget[_Hint] = field(init=False)

    def __post_init__(self) -> None:
        self.sightings = Sightings(self.config, self.node_id, self.counters)
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
        if self.sightings.note(peer, sighting, now) and sighting.ours:
            self.due = now

    def sighting_withdrawn(self, peer: NodeId) -> None:
        self.sightings.known.pop(peer, None)

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
        for contact in (self.fixed.get(address), self.remembered.get(peer)):
            if contact is not None:
                contact.owner, contact.reason, contact.failures, contact.due = peer, "", 0, now
        self.sightings.met(peer, now)

    def hurry(self, now: float, *, moved: bool = True) -> None:
        """Look anew at who is near; if we ``moved``, call everybody as if for the first time."""
        if moved:
            self._budget.forgive()
        for contact in chain(self.fixed.values(), self.remembered.values()) if moved else ():
            contact.failures, contact.due = 0, now
            contact.owner = None if contact.owner == self.node_id else contact.owner
        self.sightings.look_anew(now, moved=moved)
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

        The remembered come in their own order, the longest known first.
        """
        remembered = (
            (one, one.addresses)
            for peer, one in self.remembered.items()
            if one.due <= now and not is_connected(peer)
        )
        announced = self.sightings.worth_a_call(now, is_connected, reach)
        for pair in zip_longest(remembered, announced):
            yield from (hint for hint in pair if hint is not None)

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
        if not (self.fixed or self.remembered or self.sightings.known):
            return None
        latest = now + self.config.redial
        remembered = (one.due for peer, one in self.remembered.items() if not is_connected(peer))
        announced = self.sightings.dues(is_connected)
        hint = min(chain(remembered, announced), default=latest)
        fixed = (one.due for one in self.fixed.values() if one.due > now)
        return min(max(hint, self._budget.next_room(now), now + _LEAST_ROUND), *fixed, latest)

    def _is_up(self, owner: NodeId | None, is_connected: Callable[[NodeId], bool]) -> bool:
        return owner is not None and (owner == self.node_id or is_connected(owner))
