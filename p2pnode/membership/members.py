"""The table of members: what is believed of whom, on which evidence. It knows no timers."""

from collections.abc import Iterator
from dataclasses import dataclass

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
    """All other members known, and the graves of those forgotten.

    A grave keeps the last record and belief, so that old gossip cannot raise its dead.
    """

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._entries: dict[NodeId, Entry] = {}
        self._graves: dict[NodeId, Entry] = {}

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
        """Return the line of a member, or what its grave keeps."""
        return self._entries.get(node_id) or self._graves.get(node_id)

    def view(self) -> list[Member]:
        return [
            Member(entry.signed.record, entry.health, entry.since, entry.reason) for entry in self
        ]

    def with_health(self, *wanted: Health) -> list[NodeId]:
        return [node_id for node_id, entry in self._entries.items() if entry.health in wanted]

    def live(self) -> list[NodeId]:
        """Return whoever is not known to be gone."""
        return self.with_health(*LIVE)

    # Records

    def is_news(self, record: Record) -> bool:
        """Return whether ``record`` is newer than what is held, and the table has room for it."""
        known = self.belief(record.node_id)
        if known is None:
            return not record.left and self._has_room()
        if known.health is Health.LEFT:
            return record.boot_epoch > known.version.boot_epoch
        return record.version > known.version

    def accept(self, signed: SignedRecord, now: float) -> list[MembershipEvent]:
        """Take a genuine record that is news; return what it changed."""
        node_id = signed.record.node_id
        known = self._entries.get(node_id)
        if known is None:
            self._make_room()
            self._graves.pop(node_id, None)
            self._entries[node_id] = Entry(signed, Health.ALIVE, now)
            return [MemberJoined(signed.record)]
        before, old = known.health, known.signed.record
        evidence = _evidence_of(signed.record, old)
        known.signed = signed
        self._move(known, evidence, now, reason="")
        return _events_of(evidence, before, old, signed.record)

    # Claims

    def accuse(self, signed: SignedClaim, now: float, reason: str) -> bool:
        """Take a genuine claim about a version held; return whether the belief changed."""
        entry = self._entries[signed.claim.subject]
        if not self._move(entry, evidence_of_claim(signed.claim), now, reason):
            return False
        entry.claim = signed
        return True

    # Forgetting

    def forget_before(self, moment: float) -> None:
        """Bury whoever has been gone since before ``moment``."""
        gone = [
            node_id
            for node_id, entry in self._entries.items()
            if entry.health not in LIVE and entry.since < moment
        ]
        for node_id in gone:
            self._bury(node_id)

    def _move(self, entry: Entry, evidence: Evidence, now: float, reason: str) -> bool:
        after = weigh(entry.health, evidence)
        if after is entry.health:
            return False
        entry.health, entry.since, entry.reason = after, now, reason
        if after not in (Health.SUSPECT, Health.DEAD):
            entry.claim = None
        return True

    def _has_room(self) -> bool:
        return len(self._entries) < self._max_members or bool(self._gone())

    def _make_room(self) -> None:
        if len(self._entries) >= self._max_members:
            self._bury(min(self._gone(), key=lambda gone: self._entries[gone].since))

    def _gone(self) -> list[NodeId]:
        return self.with_health(Health.DEAD, Health.LEFT)

    def _bury(self, node_id: NodeId) -> None:
        self._graves[node_id] = self._entries.pop(node_id)
        if len(self._graves) > self._max_members:
            del self._graves[next(iter(self._graves))]


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
