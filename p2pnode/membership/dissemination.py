"""News on its way: each piece is sent a number of times, the least-sent first, and then dropped.

SWIM section 4.1, with memberlist's order and limit. News about one member that supersedes older
news about it replaces that in the queue.
"""

from dataclasses import dataclass

from p2pnode.membership.records import SignedClaim, SignedRecord
from p2pnode.sansio import NodeId


@dataclass(slots=True)
class _Item:
    payload: bytes
    arrival: int
    sent: int = 0


class Broadcasts:
    """What this node still has to tell."""

    def __init__(self) -> None:
        # A record's second key is its subject, a claim's its claimant: nobody accuses itself.
        self._items: dict[tuple[NodeId, NodeId], _Item] = {}
        self._arrivals = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    def put_record(self, signed: SignedRecord) -> None:
        """Tell of a record; what was said of its older versions is told no longer."""
        subject = signed.record.node_id
        self._drop_about(subject)
        self._put((subject, subject), signed.encoded)

    def put_claim(self, signed: SignedClaim) -> None:
        """Tell of a claim; it replaces an older one of the same claimant."""
        self._put((signed.claim.subject, signed.claim.claimant), signed.encoded)

    def take(self, room: int, limit: int) -> list[bytes]:
        """Return what fits in ``room`` bytes; each piece counts as sent, ``limit`` times at most.

        The least-sent goes first, and of those the newest: a fresh refutation must not queue
        behind old news.
        """
        taken: list[bytes] = []
        waiting = sorted(self._items.items(), key=lambda pair: (pair[1].sent, -pair[1].arrival))
        for key, item in waiting:
            if len(item.payload) > room:
                continue
            room -= len(item.payload)
            taken.append(item.payload)
            item.sent += 1
            if item.sent >= limit:
                del self._items[key]
        return taken

    def _put(self, key: tuple[NodeId, NodeId], payload: bytes) -> None:
        self._arrivals += 1
        self._items[key] = _Item(payload, self._arrivals)

    def _drop_about(self, subject: NodeId) -> None:
        for key in [key for key in self._items if key[0] == subject]:
            del self._items[key]
