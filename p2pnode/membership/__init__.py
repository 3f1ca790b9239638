"""SWIM gossip: who is alive; ignorant of models."""

from p2pnode.membership.config import MembershipConfig, lan, simulation, wan
from p2pnode.membership.events import (
    KeyShared,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MembershipEvent,
    MemberSuspected,
    MemberUpdated,
    OwnKeyUsedElsewhere,
)
from p2pnode.membership.health import Health
from p2pnode.membership.members import Member
from p2pnode.membership.outgoing import Outgoing
from p2pnode.membership.records import Record, Signer, Verify
from p2pnode.membership.swim import Swim

__all__ = [
    "Health",
    "KeyShared",
    "Member",
    "MemberDied",
    "MemberJoined",
    "MemberLeft",
    "MemberRefuted",
    "MemberSuspected",
    "MemberUpdated",
    "MembershipConfig",
    "MembershipEvent",
    "Outgoing",
    "OwnKeyUsedElsewhere",
    "Record",
    "Signer",
    "Swim",
    "Verify",
    "lan",
    "simulation",
    "wan",
]
