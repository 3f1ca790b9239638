"""Push/pull: two members compare all they know, and each sends what the other lacks.

memberlist sends its whole table both ways. Here each side first sends a digest, 21 bytes a
member; records follow only where they differ, so a push/pull between equals is nearly free. A
large table is cut into ranges of id prefixes, each compared by itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from p2pnode.membership.health import LIVE, Health
from p2pnode.membership.members import Entry, Members, prefix_of
from p2pnode.membership.messages import LAST_PREFIX, Digest, DigestEntry
from p2pnode.membership.records import SignedRecord
from p2pnode.sansio import NodeId


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a peer's digest asks of us.

    Attributes:
        lacking: Records and claims, as signed, that the peer lacks.
        contested: Members that we hold alive and the peer holds dead, in the same version.
        own_death: Whether the peer holds us suspect or dead, in our present version.
    """

    lacking: tuple[bytes, ...]
    contested: tuple[NodeId, ...]
    own_death: bool


def digests(
    members: Members,
    own: SignedRecord,
    *,
    answer_wanted: bool,
    room: int,
    first: int = 0,
    last: int = LAST_PREFIX,
) -> Iterator[Digest]:
    """Yield digests of all we know from ``first`` to ``last``, ``room`` entries in each."""
    entries = sorted(_entries(members, own, first, last), key=lambda entry: entry.prefix)
    for start in range(0, max(1, len(entries)), room):
        page = tuple(entries[start : start + room])
        is_last = start + room >= len(entries)
        end = last if is_last else page[-1].prefix
        yield Digest(answer_wanted, first, end, page)
        if end == LAST_PREFIX:
            return
        first = end + 1


def compare(digest: Digest, members: Members, own: SignedRecord) -> Comparison:
    """Hold a peer's digest against what we know."""
    theirs = {entry.prefix: entry for entry in digest.entries}
    in_range = list(members.between(digest.first, digest.last))
    lacking = [payload for entry in in_range for payload in _lacking(entry, theirs)]
    own_prefix = prefix_of(own.record.node_id)
    about_us = theirs.get(own_prefix)
    if digest.first <= own_prefix <= digest.last and (
        about_us is None or about_us.version < own.record.version
    ):
        lacking.append(own.encoded)
    return Comparison(
        tuple(lacking),
        tuple(entry.signed.record.node_id for entry in in_range if _is_contested(entry, theirs)),
        about_us is not None
        and about_us.version == own.record.version
        and about_us.health in (Health.SUSPECT, Health.DEAD),
    )


def pages(payloads: Iterable[bytes], room: int) -> Iterator[bytes]:
    """Put pieces together into pages of at most ``room`` bytes."""
    page: list[bytes] = []
    size = 0
    for payload in payloads:
        if page and size + len(payload) > room:
            yield b"".join(page)
            page, size = [], 0
        page.append(payload)
        size += len(payload)
    if page:
        yield b"".join(page)


def _entries(members: Members, own: SignedRecord, first: int, last: int) -> Iterator[DigestEntry]:
    own_prefix = prefix_of(own.record.node_id)
    if first <= own_prefix <= last:
        health = Health.LEFT if own.record.left else Health.ALIVE
        yield DigestEntry(own_prefix, own.record.version, health)
    for entry in members.between(first, last):
        yield DigestEntry(prefix_of(entry.signed.record.node_id), entry.version, entry.health)


def _lacking(entry: Entry, theirs: Mapping[int, DigestEntry]) -> list[bytes]:
    """Return what to send about one member.

    The dead are not introduced to those who never met them, nor kept fresh: whoever believes an
    older record alive finds out by asking. A departure is proof, so it goes to all who met them.
    """
    known = theirs.get(prefix_of(entry.signed.record.node_id))
    if known is None and entry.health not in LIVE:
        return []
    if entry.health is Health.DEAD or (known is not None and known.version >= entry.version):
        return []
    claims = [entry.claim.encoded] if entry.claim is not None else []
    return [entry.signed.encoded, *claims]


def _is_contested(entry: Entry, theirs: Mapping[int, DigestEntry]) -> bool:
    known = theirs.get(prefix_of(entry.signed.record.node_id))
    return (
        entry.health is Health.ALIVE
        and known is not None
        and known.health is Health.DEAD
        and known.version == entry.version
    )
