"""Who may have how much of a stage: all of it while nobody else asks, else an equal share.

Pure arithmetic over the sessions at hand. A share only bites while somebody without its own asks:
then those who hold more than theirs give way, what they never used first, and then the newest.
The node itself has its share even where so many ask that each holds but one session: keys are free,
and a stage that its own node cannot use is of no use to it.

For the same reason requesters that are not proven count together as one, the *strangers*, whenever
somebody proven asks as well. Among themselves they share what is left to them in the same way.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from p2pnode.inference.messages import Refusal
from p2pnode.sansio import NodeId

IsProven: TypeAlias = Callable[[NodeId], bool]
"""Whether a peer did something for its name; the node itself always did."""

STRANGERS: Final = NodeId(b"")
"""Stands for all requesters that are not proven, where they count as one."""


def everybody(peer: NodeId) -> bool:
    """Take all for proven: where nobody can tell, each counts for itself."""
    del peer
    return True


class Parties:
    """Who of those that ask counts for itself."""

    def __init__(self, requesters: Iterable[NodeId], is_proven: IsProven) -> None:
        asking = {*requesters}
        strangers = {peer for peer in asking if not is_proven(peer)}
        self.strangers = strangers if len(strangers) < len(asking) else set[NodeId]()

    def of(self, requester: NodeId) -> NodeId:
        """Return whom ``requester`` counts as: itself, or the strangers."""
        return STRANGERS if requester in self.strangers else requester


class Holding(Protocol):
    """A session that a requester has on a stage."""

    @property
    def requester(self) -> NodeId: ...
    @property
    def kv_bytes(self) -> int: ...
    @property
    def is_used(self) -> bool: ...
    @property
    def admitted_at(self) -> float: ...


HoldingT = TypeVar("HoldingT", bound=Holding)


class Shares(Generic[HoldingT]):
    """What sessions hold, and what each requester's share of it is."""

    def __init__(
        self,
        held: Iterable[HoldingT],
        kv_total: int,
        most_sessions: int,
        ours: NodeId | None = None,
        is_proven: IsProven = everybody,
    ) -> None:
        """``ours`` is the node itself."""
        self._ours = ours
        self._is_proven = is_proven
        self._held = list(held)
        self._kv_total = kv_total
        self._most = most_sessions
        self._kv, self._count = Counter[NodeId](), Counter[NodeId]()
        for one in self._held:
            self._kv[one.requester] += one.kv_bytes
            self._count[one.requester] += 1
        self._used = self._kv.total()
        # What those with nothing asked in vain, proven or not, for want of memory or of a session:
        # more of it is in vain for their like too.
        self._in_vain: dict[tuple[bool, bool], int] = {}

    def lack(self, needed: int) -> tuple[Refusal, str] | None:
        """Return what there is too little of for one more session, as a code and a reason."""
        if len(self._held) >= self._most:
            return Refusal.SESSIONS, f"{len(self._held)} sessions are all this node serves at once"
        free = self._kv_total - self._used
        if needed > free:
            asked, left = needed >> 10, max(free, 0) >> 10
            return Refusal.MEMORY, f"{asked} KiB of KV memory asked, {left} free"
        return None

    def give_way(self, asker: NodeId, needed: int) -> list[HoldingT] | None:
        """Return whose sessions end so that ``asker`` gets its own; None if that cannot be.

        Nobody within its share gives way, but for the node itself, and who has its own already
        waits like everybody. A first session may be larger than a share; then only those give way
        that hold more than it asks, or two that are each larger than a share would end each other
        for ever.
        """
        is_first = not self._count[asker] and asker != self._ours
        kind = self._is_proven(asker), self._used + needed > self._kv_total
        in_vain = self._in_vain.get(kind)
        if is_first and in_vain is not None and needed >= in_vain:
            return None
        parties = Parties((asker, *self._count), self._is_proven)
        going = self._among(parties, asker, needed)
        if going is None and asker in parties.strangers:
            going = self._of_strangers(parties).give_way(asker, needed)
        if going is None and is_first:
            self._in_vain[kind] = needed
        return going

    @property
    def spoken_for(self) -> int:
        """KV bytes that one more, proven requester could not have: of each what is its share."""
        held, _ = self._by(lambda one: one if self._is_proven(one) else STRANGERS)
        share = self._kv_total // (len(held) + 1)
        return sum(min(kv, share) for kv in held.values())

    def _among(self, parties: Parties, asker: NodeId, needed: int) -> list[HoldingT] | None:
        """Return who gives way to the party of ``asker``."""
        party = parties.of(asker)
        kv, count = self._by(parties.of)
        share_kv = self._kv_total / len({*count, party})
        share_count = max(1, self._most // len({*count, party}))
        if count[party] and (kv[party] + needed > share_kv or count[party] + 1 > share_count):
            return None
        share_kv = max(share_kv, needed)
        if asker != self._ours and not any(
            kv[one] > share_kv or count[one] > share_count for one in count if one != party
        ):
            return None
        own_kv, own_count = Counter(self._kv), Counter(self._count)
        left = sorted(self._held, key=lambda one: (not one.is_used, one.admitted_at))
        going: list[HoldingT] = []
        while True:
            lacks_kv = kv.total() + needed > self._kv_total
            if not lacks_kv and count.total() < self._most:
                return going
            held, own = (kv, own_kv) if lacks_kv else (count, own_count)
            share = share_kv if lacks_kv else share_count
            others = [one for one in left if parties.of(one.requester) != party]
            over = [one for one in others if held[parties.of(one.requester)] > share]
            if asker == self._ours:
                over = over or others
            if not over:
                return None
            most = max((held[parties.of(one.requester)], own[one.requester]) for one in over)
            goes = next(
                one
                for one in reversed(over)
                if (held[parties.of(one.requester)], own[one.requester]) == most
            )
            left.remove(goes)
            going.append(goes)
            for who, of_kv, of_count in (
                (parties.of(goes.requester), kv, count),
                (goes.requester, own_kv, own_count),
            ):
                of_kv[who] -= goes.kv_bytes
                of_count[who] -= 1

    def _of_strangers(self, parties: Parties) -> "Shares[HoldingT]":
        """Return what the strangers share among themselves: what the proven leave them."""
        strangers = [one for one in self._held if one.requester in parties.strangers]
        left = self._kv_total - self._used + sum(one.kv_bytes for one in strangers)
        return Shares(strangers, left, self._most - len(self._held) + len(strangers))

    def _by(self, whose: Callable[[NodeId], NodeId]) -> tuple[Counter[NodeId], Counter[NodeId]]:
        """Return the KV bytes and the sessions of each, requesters taken as ``whose``."""
        kv, count = Counter[NodeId](), Counter[NodeId]()
        for requester, sessions in self._count.items():
            kv[whose(requester)] += self._kv[requester]
            count[whose(requester)] += sessions
        return kv, count
