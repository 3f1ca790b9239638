"""News on its way: each piece is sent a number of times, the least-sent first, and then dropped.

SWIM section 4.1, with memberlist's order and limit. News about one member that supersedes older
news about it replaces that in the queue.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from p2pnode.membership.records import SignedClaim, SignedRecord
from p2pnode.sansio import NodeId

MISFITS = 16  # pieces too large for the rest of a datagram that are passed over, at most


@dataclass(slots=True)
class _Item:
    subject: NodeId
    author: NodeId
    payload: bytes
    sent: int = 0


class Broadcasts:
    """What this node still has to tell: ``room`` pieces at most, and then the most-sent goes."""

    # Invariant: an item is in _about under its subject and author, and in the level of the number
    # of times it was sent; nowhere else.

    def __init__(self, room: int = 256, counters: Counter[str] | None = None) -> None:
        self._room = room
        self._counters = Counter() if counters is None else counters
        self._about: dict[NodeId, dict[NodeId, _Item]] = {}
        self._levels: list[dict[tuple[NodeId, NodeId], _Item]] = [{}]
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def __len__(self) -> int:
        return self._count

    def put_record(self, signed: SignedRecord) -> None:
        """Tell of a record; what was said of its older versions is told no longer."""
        subject = signed.record.node_id
        for item in [*self._about.get(subject, {}).values()]:
            self._drop(item)
        self._put(_Item(subject, subject, signed.encoded))  # nobody accuses itself

    def put_claim(self, signed: SignedClaim) -> None:
        """Tell of a claim; it replaces an older one of the same claimant."""
        subject, claimant = signed.claim.subject, signed.claim.claimant
        older = self._about.get(subject, {}).get(claimant)
        if older is not None:
            self._drop(older)
        self._put(_Item(subject, claimant, signed.encoded))

    def take(self, room: int, limit: int) -> list[bytes]:
        """Return what fits in ``room`` bytes; each piece counts as sent, ``limit`` times at most.

        The least-sent goes first, and of what was never sent the newest: a fresh refutation must
        not queue behind old news.
        """
        taken: list[_Item] = []
        misfits = 0
        for item in self._in_order():
            if len(item.payload) <= room:
                room -= len(item.payload)
                taken.append(item)
                continue
            misfits += 1
            if misfits == MISFITS:
                break
        for item in taken:
            del self._levels[item.sent][item.subject, item.author]
            item.sent += 1
            if item.sent >= limit:
                self._forget(item)
            else:
                self._place(item)
        return [item.payload for item in taken]

    def _in_order(self) -> Iterator[_Item]:
        yield from reversed(self._levels[0].values())
        for level in self._levels[1:]:
            yield from level.values()

    def _put(self, item: _Item) -> None:
        self._count += 1
        self._about.setdefault(item.subject, {})[item.author] = item
        self._place(item)
        if self._count > self._room:
            most_sent = next(level for level in reversed(self._levels) if level)
            self._drop(next(iter(most_sent.values())))
            self._counters["news dropped before it was told often enough"] += 1

    def _place(self, item: _Item) -> None:
        if item.sent == len(self._levels):
            self._levels.append({})
        self._levels[item.sent][item.subject, item.author] = item

    def _drop(self, item: _Item) -> None:
        del self._levels[item.sent][item.subject, item.author]
        self._forget(item)

    def _forget(self, item: _Item) -> None:
        self._count -= 1
        about = self._about[item.subject]
        del about[item.author]
        if not about:
            del self._about[item.subject]
