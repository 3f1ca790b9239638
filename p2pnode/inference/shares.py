"""Who may have how much of a stage: all of it while nobody else asks, else an equal share.

Pure arithmetic over the sessions at hand. A share only bites while somebody without its own asks:
then those who hold more than theirs give way, what they never used first, and then the newest.
The node itself has its share even where so many ask that each holds but one session: keys are free,
and a stage that its own node cannot use is of no use to it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from p2pnode.inference.messages import Refusal
from p2pnode.sansio import NodeId


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
    ) -> None:
        """``ours`` is the node itself."""
        self._ours = ours
        self._held = list(held)
        self._kv_total = kv_total
        self._most = most_sessions
        self._kv: Counter[NodeId] = Counter()
        self._count: Counter[NodeId] = Counter()
        for one in self._held:
            self._kv[one.requester] += one.kv_bytes
            self._count[one.requester] += 1

    def lack(self, needed: int) -> tuple[Refusal, str] | None:
        """Return what there is too little of for one more session, as a code and a reason."""
        if len(self._held) >= self._most:
            return Refusal.SESSIONS, f"{len(self._held)} sessions are all this node serves at once"
        free = self._kv_total - self._kv.total()
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
        requesters = {*self._count, asker}
        share_kv = self._kv_total / len(requesters)
        share_count = max(1, self._most // len(requesters))
        if self._count[asker] and (
            self._kv[asker] + needed > share_kv or self._count[asker] + 1 > share_count
        ):
            return None
        share_kv = max(share_kv, needed)
        kv, count = Counter(self._kv), Counter(self._count)
        left = sorted(self._held, key=lambda one: (not one.is_used, one.admitted_at))
        going: list[HoldingT] = []
        while True:
            lacks_kv = kv.total() + needed > self._kv_total
            if not lacks_kv and count.total() < self._most:
                return going
            held, share = (kv, share_kv) if lacks_kv else (count, float(share_count))
            others = [one for one in left if one.requester != asker]
            over = [one for one in others if held[one.requester] > share]
            if asker == self._ours:
                over = over or others
            if not over:
                return None
            most = max(held[one.requester] for one in over)
            goes = next(one for one in reversed(over) if held[one.requester] == most)
            left.remove(goes)
            going.append(goes)
            kv[goes.requester] -= goes.kv_bytes
            count[goes.requester] -= 1

    @property
    def spoken_for(self) -> int:
        """KV bytes that one more requester could not have: what of each is within its share."""
        share = self._kv_total // (len(self._count) + 1)
        return sum(min(held, share) for held in self._kv.values())
