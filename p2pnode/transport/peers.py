"""The connections of an endpoint: found by what is known of them, and bounded.

A connection is *proven* once its peer kept it for a while and acknowledged a message, or when the
node vouches for it. All others are few, in total and by address; where the table is full, one of
them goes for a peer that is known, and never the other way round.
"""

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

from p2pnode.sansio import Address, NodeId
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.connection import Connection
from p2pnode.transport.newcomers import site_of
from p2pnode.transport.packets import DroppedError

KeyT = TypeVar("KeyT", bound=Hashable)


class PeerTable:
    """Connections by index, by peer and by address.

    Attributes:
        by_index: Our index, which every datagram bears.
        by_peer: One connection a peer.
    """

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self.by_index: dict[int, Connection] = {}
        self.by_peer: dict[NodeId, Connection] = {}
        self._at: Counter[Address] = Counter()
        self._unproven: dict[int, str] = {}  # where each came from, by index, the oldest first
        self._unproven_at: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.by_peer)

    def room_for(self, address: Address, now: float, *, is_known: bool) -> Connection | None:
        """Return who must go for a newcomer at ``address``; None when there is room.

        Raises:
            DroppedError: Nobody goes for this one.
        """
        is_full = len(self.by_peer) >= self._config.max_peers
        if is_known:
            victim = self._idlest(now) if is_full else None
            if is_full and victim is None:
                raise DroppedError("peers_too_many")
            return victim
        if is_full:
            raise DroppedError("peers_too_many")
        site = site_of(address)
        here = self._unproven_at[site]
        if here >= self._config.max_unproven_per_address:
            raise DroppedError("peers_unproven_too_many_from_one_address")
        if len(self._unproven) < self._config.max_unproven:
            return None
        crowded, most = self._unproven_at.most_common(1)[0]
        if most <= here + 1:
            raise DroppedError("peers_unproven_too_many")
        return self._idlest(now, crowded)

    def add(self, connection: Connection) -> None:
        self.by_index[connection.index] = connection
        self.by_peer[connection.peer] = connection
        self._at[connection.address] += 1
        if not connection.is_proven:
            site = site_of(connection.address)
            self._unproven[connection.index] = site
            self._unproven_at[site] += 1

    def remove(self, connection: Connection) -> bool:
        """Forget a connection; False when it was forgotten before."""
        if self.by_index.pop(connection.index, None) is None:
            return False
        del self.by_peer[connection.peer]
        _take_one(self._at, connection.address)
        self.proven(connection)
        return True

    def proven(self, connection: Connection) -> None:
        """``connection`` no longer counts among the unproven."""
        site = self._unproven.pop(connection.index, None)
        if site is not None:
            _take_one(self._unproven_at, site)

    @property
    def unproven(self) -> int:
        """How many connections are not proven."""
        return len(self._unproven)

    def moved(self, before: Address, after: Address) -> None:
        """A connection's peer has another address."""
        _take_one(self._at, before)
        self._at[after] += 1

    def is_connected_at(self, address: Address) -> bool:
        return address in self._at

    def _idlest(self, now: float, site: str | None = None) -> Connection | None:
        """Return the unproven connection that was heard least lately, of those at ``site``."""
        candidates = [
            self.by_index[index]
            for index, where in self._unproven.items()
            if site is None or where == site
        ]
        return max(candidates, key=lambda one: one.heard_ago(now), default=None)


def _take_one(counts: Counter[KeyT], key: KeyT) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
