"""Who a node is, apart from how it is set up."""

import hashlib
from dataclasses import dataclass

from p2pnode.sansio import Address
from p2pnode.transport.identity import Identity


@dataclass(frozen=True, slots=True)
class Origin:
    """Who this node is: what differs between two nodes of one configuration.

    Attributes:
        identity: Its key.
        swarm_secret: 32 bytes that admit to the swarm.
        boot_epoch: Larger at each start, so that no message of an earlier run counts as its own.
        addresses: Where others can reach it.
    """

    identity: Identity
    swarm_secret: bytes
    boot_epoch: int
    addresses: tuple[Address, ...]

    @property
    def swarm_tag(self) -> bytes:
        """Eight bytes that name the swarm and reveal nothing of its secret."""
        return hashlib.blake2b(self.swarm_secret, digest_size=8, person=b"p2pnode swarm").digest()
