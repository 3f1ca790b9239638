"""Who a node is, by what its state directory keeps."""

import secrets
import time

from p2pnode.node.identity import SECRET_BYTES, StateDirectory
from p2pnode.node.origin import Origin
from p2pnode.sansio import Address
from p2pnode.transport.identity import Identity


def kept_origin(state: StateDirectory, addresses: tuple[Address, ...]) -> Origin:
    """Return it for one more start; a node without a swarm becomes the first of its own.

    Raises:
        UserError: A file of the directory is broken, or cannot be written.
    """
    secret = state.swarm_secret()
    if secret is None:
        secret = secrets.token_bytes(SECRET_BYTES)
        state.set_swarm_secret(secret)
    identity = Identity(state.identity_seed())
    return Origin(identity, secret, state.next_boot_epoch(time.time()), addresses)
