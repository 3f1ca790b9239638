"""What a membership core tells its node."""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.membership.records import Record
from p2pnode.sansio import NodeId


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
    """A suspect did not refute in time; or a member started anew.

    In the second case what its old self held in memory is gone, and a :class:`MemberJoined`
    follows at once.
    """

    node_id: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member said goodbye."""

    node_id: NodeId


MembershipEvent: TypeAlias = (
    MemberJoined | MemberUpdated | MemberSuspected | MemberRefuted | MemberDied | MemberLeft
)
