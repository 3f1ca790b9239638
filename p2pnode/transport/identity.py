"""Who a node is: one ed25519 key, from which its Noise static key follows.

A node id is the ed25519 verify key. The X25519 key of a handshake is the same point on the
Montgomery curve, so a handshake that authenticates one proves the other, with no signature sent.
"""

from functools import lru_cache

from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import NodeId

SEED_SIZE = 32
NODE_ID_SIZE = 32


class Identity:
    """A node's private key.

    Attributes:
        node_id: The public half: the node's name everywhere.
        static_key: The X25519 private key that follows from it, for handshakes.
    """

    __slots__ = ("_signing_key", "node_id", "static_key")

    def __init__(self, seed: bytes) -> None:
        """``seed`` is 32 secret random bytes; the same seed is the same node."""
        if len(seed) != SEED_SIZE:
            raise LocalProtocolError(f"an identity's seed has {SEED_SIZE} bytes, not {len(seed)}")
        public, self._signing_key = crypto_sign_seed_keypair(seed)
        self.node_id = NodeId(public)
        self.static_key: bytes = crypto_sign_ed25519_sk_to_curve25519(self._signing_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte ed25519 signature of ``message``."""
        return crypto_sign(message, self._signing_key)[:crypto_sign_BYTES]

    def __repr__(self) -> str:
        return f"Identity({self.node_id.hex()[:8]})"


def verify(node_id: NodeId, message: bytes, signature: bytes) -> bool:
    """Say whether ``signature`` is ``node_id``'s signature of ``message``; never raises."""
    if len(signature) != crypto_sign_BYTES or len(node_id) != NODE_ID_SIZE:
        return False
    try:
        crypto_sign_open(signature + message, node_id)
    except CryptoError:
        return False
    return True


def static_key_untrusted(node_id: bytes) -> bytes:
    """Return the X25519 public key of a node.

    Raises:
        RemoteProtocolError: ``node_id`` is no point of ed25519, or one of low order.
    """
    if len(node_id) != NODE_ID_SIZE:
        raise RemoteProtocolError(f"a node id has {NODE_ID_SIZE} bytes, not {len(node_id)}")
    key = _montgomery(bytes(node_id))
    if key is None:
        raise RemoteProtocolError(f"no such node can exist: {node_id.hex()}")
    return key


@lru_cache(4096)  # a key costs 75 us, and gossip asks again of those that nobody reaches
def is_possible(node_id: bytes) -> bool:
    """Whether a node can have this id: not every 32 bytes are a usable key."""
    try:
        static_key_untrusted(node_id)
    except RemoteProtocolError:
        return False
    return True


@lru_cache(maxsize=2048)  # takes 200 us, and is asked at each call of each address of each member
def _montgomery(node_id: bytes) -> bytes | None:
    try:
        return crypto_sign_ed25519_pk_to_curve25519(node_id)
    except (CryptoError, RuntimeError):
        return None
