"""The table of members: what is believed of whom, on which evidence. It knows no timers."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from p2pnode.membership.changes import ChangeLog
from p2pnode.membership.events import (
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MembershipEvent,
    MemberUpdated,
)
from p2pnode.membership.health import LIVE, Evidence, Health, weigh
from p2pnode.membership.records import (
    Accusation,
    Claim,
    Record,
    SignedClaim,
    SignedRecord,
    Version,
)
from p2pnode.membership.roster import Roster
from p2pnode.sansio import NodeId


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the table, for others to read.

    Attributes:
        record: The latest record it signed.
        health: What is believed of it.
        since: When that began.
        reason: Why it is believed; empty for the living.
    """

    record: Record
    health: Health
    since: float
    reason: str


@dataclass(slots=True)
class Entry:
    """One line of the table.

    Attributes:
        signed: The latest record, as signed.
        health: What is believed of it.
        since: When that began.
        reason: Why.
        claim: The accusation that made it suspect or dead.
    """

    signed: SignedRecord
    health: Health
    since: float
    reason: str = ""
    claim: SignedClaim | None = None

    @property
    def version(self) -> Version:
        return self.signed.record.version


class Members:
    """All other members known, and the last versions of those forgotten.

    Those versions are kept so that old gossip cannot raise the dead.

    What a message needs is kept ready, so its work does not grow with the table: who is live and
    who dead (to draw from), who is gone (longest ago first), everyone by id prefix, and every line
    as others read it. :meth:`changed_since` lets others keep what they derive in the same way.
    """

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._entries: dict[NodeId, Entry] = {}
        self._forgotten: dict[NodeId, Entry] = {}
        self._views: dict[NodeId, Member] = {}
        self._live = Roster()
        self._dead = Roster()
        self._gone: dict[NodeId, None] = {}
        self._by_prefix: list[tuple[int, NodeId]] = []
        self._changes = ChangeLog(room=4 * max_members)

    # Reading

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._entries

    def entry(self, node_id: NodeId) -> Entry | None:
        """Return the line of a member that is not forgotten."""
        return self._entries.get(node_id)

    def belief(self, node_id: NodeId) -> Entry | None:
        """Return the line of a member, or what is remembered of a forgotten one."""
        return self._entries.get(node_id) or self._forgotten.get(node_id)

    def member(self, node_id: NodeId) -> Member | None:
        """Return the line of a member as others read it."""
        return self._views.get(node_id)

    def view(self) -> list[Member]:
        return list(self._views.values())

    @property
    def live(self) -> Sequence[NodeId]:
        """Whoever is not known to be gone, in no order that means anything."""
        return self._live

    @property
    def dead(self) -> Sequence[NodeId]:
        """Whoever is dead and not forgotten, likewise."""
        return self._dead

    def between(self, first: int, last: int) -> Iterator[Entry]:
        """Yield the members whose id prefixes lie in a range, in order."""
        start = bisect_left(self._by_prefix, (first, b""))
        stop = bisect_right(self._by_prefix, last, key=lambda pair: pair[0])
        for _, node_id in self._by_prefix[start:stop]:
            yield self._entries[node_id]

    # Following

    @property
    def version(self) -> int:
        """Grows with every change of a record or a belief."""
        return self._changes.version

    def changed_since(self, version: int) -> list[NodeId] | None:
        """Return whose line changed, appeared or vanished after ``version``, each once.

        Read each anew by :meth:`member`, where None means that it is gone from the table. None
        instead of a list means that the caller is too far behind: read :meth:`view`.
        """
        return self._changes.since(version)

    # Records

    def is_news(self, record: Record) -> bool:
        """Return whether ``record`` is newer than what is held, and the table has room for it."""
        known = self.belief(record.node_id)
        if record.node_id not in self._entries and not self._has_room():
            return False
        if known is None:
            return not record.left
        if known.health is Health.LEFT:
            return record.boot_epoch > known.version.boot_epoch
        return record.version > known.version

    def accept(self, signed: SignedRecord, now: float) -> list[MembershipEvent]:
        """Take a genuine record that is news; return what it changed."""
        node_id = signed.record.node_id
        known = self._entries.get(node_id)
        if known is None:
            self._make_room()
            self._forgotten.pop(node_id, None)
            self._entries[node_id] = Entry(signed, Health.ALIVE, now)
            insort(self._by_prefix, (prefix_of(node_id), node_id))
            self._note(node_id)
            return [MemberJoined(signed.record)]
        before, old = known.health, known.signed.record
        evidence = _evidence_of(signed.record, old)
        known.signed = signed
        self._move(known, evidence, now, reason="")
        self._note(node_id)
        return _events_of(evidence, before, old, signed.record)

    # Claims

    def accuse(self, signed: SignedClaim, now: float, reason: str) -> bool:
        """Take a genuine claim about a version held; return whether the belief changed."""
        entry = self._entries[signed.claim.subject]
        if not self._move(entry, evidence_of_claim(signed.claim), now, reason):
            return False
        entry.claim = signed
        self._note(signed.claim.subject)
        return True

    # Forgetting

    def forget_before(self, moment: float) -> None:
        """Forget whoever has been gone since before ``moment``."""
        while self._gone:
            longest = next(iter(self._gone))
            if self._entries[longest].since >= moment:
                return
            self._forget(longest)

    def _move(self, entry: Entry, evidence: Evidence, now: float, reason: str) -> bool:
        after = weigh(entry.health, evidence)
        if after is entry.health:
            return False
        entry.health, entry.since, entry.reason = after, now, reason
        if after not in (Health.SUSPECT, Health.DEAD):
            entry.claim = None
        self._gone.pop(entry.signed.record.node_id, None)  # to the end, if it is gone still
        return True

    def _note(self, node_id: NodeId) -> None:
        """Bring what is kept ready up to date with one line."""
        entry = self._entries.get(node_id)
        health = None if entry is None else entry.health
        (self._live.add if health in LIVE else self._live.remove)(node_id)
        (self._dead.add if health is Health.DEAD else self._dead.remove)(node_id)
        if health is None or health in LIVE:
            self._gone.pop(node_id, None)
        else:
            self._gone.setdefault(node_id)
        if entry is None:
            self._views.pop(node_id, None)
        else:
            view = Member(entry.signed.record, entry.health, entry.since, entry.reason)
            self._views[node_id] = view
        self._changes.note(node_id)

    def _has_room(self) -> bool:
        return len(self._entries) < self._max_members or bool(self._gone)

    def _make_room(self) -> None:
        if len(self._entries) >= self._max_members:
            self._forget(next(iter(self._gone)))

    def _forget(self, node_id: NodeId) -> None:
        self._forgotten[node_id] = self._entries.pop(node_id)
        del self._by_prefix[bisect_left(self._by_prefix, (prefix_of(node_id), node_id))]
        if len(self._forgotten) > self._max_members:
            del self._forgotten[next(iter(self._forgotten))]
        self._note(node_id)


def prefix_of(node_id: NodeId) -> int:
    """Return the first 8 bytes of an id as a number: what digests call it by."""
    return int.from_bytes(node_id[:8], "big")


def evidence_of_claim(claim: Claim) -> Evidence:
    return Evidence.DEATH if claim.accusation is Accusation.DEAD else Evidence.SUSPICION


def _evidence_of(new: Record, old: Record) -> Evidence:
    if new.left:
        return Evidence.FAREWELL
    return Evidence.REBIRTH if new.boot_epoch > old.boot_epoch else Evidence.ASSERTION


def _events_of(
    evidence: Evidence, before: Health, old: Record, new: Record
) -> list[MembershipEvent]:
    if evidence is Evidence.FAREWELL:
        return [MemberLeft(new.node_id)]
    if evidence is Evidence.REBIRTH and before in LIVE:
        return [MemberDied(new.node_id, "started anew"), MemberJoined(new)]
    if before not in LIVE:
        return [MemberJoined(new)]
    events: list[MembershipEvent] = []
    if before is Health.SUSPECT:
        events.append(MemberRefuted(new.node_id))
    if (old.addresses, old.ad) != (new.addresses, new.ad):
        events.append(MemberUpdated(new))
    return events
