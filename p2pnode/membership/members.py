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
        claimant: Who accused it, if it is suspect or dead.
    """

    record: Record
    health: Health
    since: float
    reason: str
    claimant: NodeId | None = None


@dataclass(slots=True)
class Entry:
    """One line of the table.

    Attributes:
        signed: The latest record, as signed.
        version: That record's: each digest tells it of everybody.
        health: What is believed of it.
        since: When that began.
        reason: Why.
        claim: The accusation that made it suspect or dead.
        heard: Whether a message of its own ever reached us; else others told us of it.
        introducer: Who told us of it first; None if it did so itself.
    """

    signed: SignedRecord
    version: Version
    health: Health
    since: float
    reason: str = ""
    claim: SignedClaim | None = None
    heard: bool = False
    introducer: NodeId | None = None


class Members:
    """All other members known, and the last versions of those forgotten.

    Those versions are kept so that old gossip cannot bring back a member that is gone.

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
        self._heard = Roster()
        self._dead = Roster()
        self._gone: dict[NodeId, None] = {}
        self._unheard: dict[NodeId | None, dict[NodeId, None]] = {}
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
    def heard(self) -> Sequence[NodeId]:
        """Those of the live that ever spoke to us themselves, likewise."""
        return self._heard

    @property
    def dead(self) -> Sequence[NodeId]:
        """Whoever is dead and not forgotten, likewise."""
        return self._dead

    def between(self, first: int, last: int) -> Iterator[Entry]:
        """Yield the members whose id prefixes lie in a range, in order."""
        start, stop = self._range(first, last)
        for _, node_id in self._by_prefix[start:stop]:
            yield self._entries[node_id]

    def count_between(self, first: int, last: int) -> int:
        """Return how many those are."""
        start, stop = self._range(first, last)
        return stop - start

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

    def has_room(self, node_id: NodeId, source: NodeId | None) -> bool:
        """Return whether the table has room for one not in it, brought by ``source``.

        In a full table the gone give way first. Then one who speaks for itself takes the place of
        one we were only told of, never the other way round; and introducers share alike: one we
        are told of takes the place of one whose introducer told us of more.
        """
        if len(self._entries) < self._max_members or self._gone:
            return True
        told = self._most_told()
        if source == node_id:
            return bool(told)
        return len(told) > len(self._unheard.get(source, ())) + 1

    def is_news(self, record: Record, source: NodeId | None = None) -> bool:
        """Return whether ``record`` is newer than what is held, and the table has room for it."""
        known = self.belief(record.node_id)
        if record.node_id not in self._entries and not self.has_room(record.node_id, source):
            return False
        if known is None:
            return not record.left
        if known.health is Health.LEFT:
            return record.boot_epoch > known.version.boot_epoch
        return record.version > known.version

    def accept(
        self,
        signed: SignedRecord,
        now: float,
        source: NodeId | None = None,
        *,
        same_life: bool = False,
    ) -> list[MembershipEvent]:
        """Take a genuine record that is news, brought by ``source``; return what it changed.

        With ``same_life`` a later boot epoch does not mean that the member started anew.
        """
        node_id = signed.record.node_id
        known = self._entries.get(node_id)
        if known is None:
            events = self._make_room()
            self._forgotten.pop(node_id, None)
            heard = source == node_id
            introducer = None if heard else source
            version = signed.record.version
            entry = Entry(signed, version, Health.ALIVE, now, heard=heard, introducer=introducer)
            self._entries[node_id] = entry
            insort(self._by_prefix, (prefix_of(node_id), node_id))
            self._note(node_id)
            return [*events, MemberJoined(signed.record)]
        before, old = known.health, known.signed.record
        evidence = _evidence_of(signed.record, old)
        if same_life and evidence is Evidence.REBIRTH and before is not Health.LEFT:
            evidence = Evidence.ASSERTION
        known.signed, known.version = signed, signed.record.version
        self._move(known, evidence, now, reason="")
        self._note(node_id)
        return _events_of(evidence, before, old, signed.record)

    def hear(self, node_id: NodeId) -> bool:
        """Note that a message of its own reached us; return whether it is a member's first."""
        entry = self._entries.get(node_id)
        if entry is None or entry.heard:
            return False
        entry.heard = True
        self._index_heard(node_id, entry)
        return True

    # Claims

    def suspect(self, signed: SignedClaim, now: float, reason: str) -> bool:
        """Take a genuine claim about a version held; return whether the belief changed."""
        return self._accuse(signed, Evidence.SUSPICION, now, reason)

    def declare_dead(self, signed: SignedClaim, now: float, reason: str) -> bool:
        """Take a claim of death that our own evidence bears out, likewise."""
        return self._accuse(signed, Evidence.DEATH, now, reason)

    def believe(self, node_id: NodeId, evidence: Evidence, now: float) -> None:
        """Take evidence for a member that is no claim and no record."""
        if self._move(self._entries[node_id], evidence, now, reason=""):
            self._note(node_id)

    # Forgetting

    def forget_before(self, moment: float) -> None:
        """Forget whoever has been gone since before ``moment``."""
        while self._gone:
            longest = next(iter(self._gone))
            if self._entries[longest].since >= moment:
                return
            self._forget(longest)

    def _accuse(self, signed: SignedClaim, evidence: Evidence, now: float, reason: str) -> bool:
        entry = self._entries[signed.claim.subject]
        if not self._move(entry, evidence, now, reason):
            return False
        entry.claim = signed
        self._note(signed.claim.subject)
        return True

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
            claimant = None if entry.claim is None else entry.claim.claim.claimant
            record = entry.signed.record
            view = Member(record, entry.health, entry.since, entry.reason, claimant)
            self._views[node_id] = view
            self._index_heard(node_id, entry)
        self._changes.note(node_id)

    def _range(self, first: int, last: int) -> tuple[int, int]:
        start = bisect_left(self._by_prefix, (first, b""))
        return start, bisect_right(self._by_prefix, last, key=lambda pair: pair[0])

    def _make_room(self) -> list[MembershipEvent]:
        if len(self._entries) < self._max_members:
            return []
        if self._gone:
            self._forget(next(iter(self._gone)))
            return []
        latest = next(reversed(self._most_told()))
        self._remove(latest)  # not remembered as gone: it may be told of again
        return [MemberDied(latest, "gave way to another in a full table")]

    def _most_told(self) -> dict[NodeId, None]:
        """Return those only told of by whoever told us of most, the latest last."""
        return max(self._unheard.values(), key=len, default={})

    def _forget(self, node_id: NodeId) -> None:
        self._forgotten[node_id] = self._remove(node_id)
        if len(self._forgotten) > self._max_members:
            del self._forgotten[next(iter(self._forgotten))]

    def _remove(self, node_id: NodeId) -> Entry:
        entry = self._entries.pop(node_id)
        del self._by_prefix[bisect_left(self._by_prefix, (prefix_of(node_id), node_id))]
        self._index_heard(node_id, entry, is_member=False)
        self._note(node_id)
        return entry

    def _index_heard(self, node_id: NodeId, entry: Entry, *, is_member: bool = True) -> None:
        is_live = is_member and entry.health in LIVE
        (self._heard.add if is_live and entry.heard else self._heard.remove)(node_id)
        told = self._unheard.setdefault(entry.introducer, {})
        if is_live and not entry.heard:
            told[node_id] = None
        else:
            told.pop(node_id, None)
        if not told:
            del self._unheard[entry.introducer]


def prefix_of(node_id: NodeId) -> int:
    """Return the first 8 bytes of an id as a number: what digests call it by."""
    return int.from_bytes(node_id[:8], "big")


def _evidence_of(new: Record, old: Record) -> Evidence:
    if new.left:
        return Evidence.DEPARTURE
    return Evidence.REBIRTH if new.boot_epoch > old.boot_epoch else Evidence.ASSERTION


def _events_of(
    evidence: Evidence, before: Health, old: Record, new: Record
) -> list[MembershipEvent]:
    if evidence is Evidence.DEPARTURE:
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
