"""One key on two machines: a copied card or home folder, as the other members see it.

Each of the two surpasses the record of the other, so the member seems to start anew again and
again, now here, now there. A node that restarts or moves does not come back to where an earlier
life was, again and again within minutes.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from p2pnode.membership.claimants import IsHeard
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.events import KeyShared, MembershipEvent
from p2pnode.membership.records import Record, Version
from p2pnode.sansio import Address, NodeId

PLACES = 4  # address sets remembered of one member


@dataclass(slots=True)
class _Lives:
    """Where the latest lives of one member were.

    Attributes:
        places: Their addresses, those left last at the end.
        returns: When a life began where an earlier one had been, with another in between.
        shared_until: Until then the key counts as used twice.
        reported_at: When that was told last.
        told: The latest record of the other one that we passed on to the one we hear.
    """

    places: dict[tuple[Address, ...], None] = field(default_factory=dict)
    returns: deque[float] = field(default_factory=deque)
    shared_until: float | None = None
    reported_at: float = 0.0
    told: Version | None = None


class SharedKeys:
    """Notices keys in use twice, and then believes the one whose session answers."""

    def __init__(
        self,
        config: MembershipConfig,
        is_heard: IsHeard,
        events: list[MembershipEvent],
        counters: Counter[str],
    ) -> None:
        self._config = config
        self._is_heard = is_heard
        self._events = events
        self._counters = counters
        self._lives: dict[NodeId, _Lives] = {}

    def renewed(self, old: Record, new: Record, now: float) -> None:
        """Note the next record of a live member: it may seem to have started anew."""
        if new.left or new.boot_epoch <= old.boot_epoch:
            return
        lives = self._lives.pop(new.node_id, None) or _Lives()
        self._lives[new.node_id] = lives
        if len(self._lives) > self._config.max_members:
            del self._lives[next(iter(self._lives))]
        returned = new.addresses in lives.places and new.addresses != old.addresses
        lives.places.pop(old.addresses, None)
        lives.places[old.addresses] = None
        if len(lives.places) > PLACES:
            del lives.places[next(iter(lives.places))]
        if not returned:
            return
        lives.returns.append(now)
        while now - lives.returns[0] > self._config.key_shared_within:
            lives.returns.popleft()
        if len(lives.returns) < self._config.key_shared_after:
            return
        self._counters["new life of a key in use twice"] += 1
        self._seen_shared(lives, old, new, now)

    def refuses(self, held: Record, record: Record, source: NodeId, now: float) -> bool:
        """Return whether ``record``, of another place than ``held``, is of the one we do not hear.

        What the member says to us itself always counts: it is the one whose session answers.
        """
        lives = self._lives.get(record.node_id)
        if lives is None or not self._is_shared(lives, now) or source == record.node_id:
            return False
        if record.addresses == held.addresses or not self._is_heard(record.node_id, now):
            return False
        self._seen_shared(lives, held, record, now)
        return True

    def only_outdone(self, held: Record, record: Record, now: float) -> bool:
        """Return whether a later life is none: the one we hear surpassed the other's record."""
        lives = self._lives.get(record.node_id)
        is_shared = lives is not None and self._is_shared(lives, now)
        return is_shared and record.addresses == held.addresses and not record.left

    def is_untold(self, record: Record) -> bool:
        """Return whether a refused record is newer than those the one we hear was told of."""
        lives = self._lives[record.node_id]
        if lives.told is not None and record.version <= lives.told:
            return False
        lives.told = record.version
        return True

    def _seen_shared(self, lives: _Lives, one: Record, other: Record, now: float) -> None:
        """Take a sign that the key is in use twice, and tell it, if it was not told lately."""
        is_told = now < lives.reported_at + self._config.key_shared_told_every
        if not (is_told and self._is_shared(lives, now)):
            self._events.append(KeyShared(one.node_id, (one.addresses, other.addresses)))
            lives.reported_at = now
        lives.shared_until = now + self._config.key_shared_within

    def _is_shared(self, lives: _Lives, now: float) -> bool:
        return lives.shared_until is not None and now < lives.shared_until
