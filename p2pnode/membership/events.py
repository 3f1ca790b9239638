"""What a membership core tells its node."""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.membership.records import Record
from p2pnode.sansio import Address, NodeId


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A node is a member from now on: new, returned from death, or started anew."""

    record: Record


@dataclass(frozen=True, slots=True)
class MemberUpdated:
    """A live member changed its addresses or its ad."""

    record: Record


@dataclass(frozen=True, slots=True)
class MemberSuspected:
    """A member does not answer somebody; it may still refute."""

    node_id: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class MemberRefuted:
    """A suspect proved that it lives."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class MemberDied:
    """A suspect did not refute in time; or a member started anew, or gave way in a full table.

    If it started anew, what its old self held in memory is gone, and a :class:`MemberJoined`
    follows at once.
    """

    node_id: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member said that it leaves."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class KeyShared:
    """Two machines use one member's key: it seems to start anew at two places in turn.

    Told again every ``key_shared_told_every`` while it goes on. The cure is a new key for one of
    them.

    Attributes:
        node_id: The key.
        addresses: Where the two are, each with all addresses it tells.
    """

    node_id: NodeId
    addresses: tuple[tuple[Address, ...], tuple[Address, ...]]


@dataclass(frozen=True, slots=True)
class OwnKeyUsedElsewhere:
    """Another machine uses our key: it signs our record as often as we do.

    Told again every ``key_shared_told_every`` while it goes on. The cure is a new key for one of
    the two.

    Attributes:
        addresses: Where the other says it is.
    """

    addresses: tuple[Address, ...]


MembershipEvent: TypeAlias = (
    MemberJoined
    | MemberUpdated
    | MemberSuspected
    | MemberRefuted
    | MemberDied
    | MemberLeft
    | KeyShared
    | OwnKeyUsedElsewhere
)
