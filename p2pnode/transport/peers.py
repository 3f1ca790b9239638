"""The connections of an endpoint, found by what a datagram, a command or a dial knows of them."""

from collections import Counter

from p2pnode.sansio import Address, NodeId
from p2pnode.transport.connection import Connection


class PeerTable:
    """Connections by index, by peer and by address.

    Attributes:
        by_index: Our index, which every datagram bears.
        by_peer: One connection a peer.
    """

    def __init__(self) -> None:
        self.by_index: dict[int, Connection] = {}
        self.by_peer: dict[NodeId, Connection] = {}
        self._at: Counter[Address] = Counter()

    def __len__(self) -> int:
        return len(self.by_peer)

    def add(self, connection: Connection) -> None:
        self.by_index[connection.index] = connection
        self.by_peer[connection.peer] = connection
        self._at[connection.address] += 1

    def remove(self, connection: Connection) -> bool:
        """Forget a connection; False when it was forgotten before."""
        if self.by_index.pop(connection.index, None) is None:
            return False
        del self.by_peer[connection.peer]
        self._leave(connection.address)
        return True

    def moved(self, before: Address, after: Address) -> None:
        """A connection's peer has another address."""
        self._leave(before)
        self._at[after] += 1

    def is_connected_at(self, address: Address) -> bool:
        return address in self._at

    def _leave(self, address: Address) -> None:
        self._at[address] -= 1
        if not self._at[address]:
            del self._at[address]
