"""Which peers are worth remembering for the next start.

A fresh key costs nothing, so a meeting proves nothing: 43 strangers a second could push out every
old friend. What counts is how long sessions lasted. Peers proven by that are kept by their time,
the longest first; of the rest only a few, the latest.

Time is our own running time, not the wall clock's: a clock that is years off forgets nobody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from p2pnode.sansio import Address, NodeId

MAX_PEERS = 256
"""Remembered peers: one of them alive is enough to find the rest."""

MAX_UNPROVEN = 32
"""Those of them whose sessions did not last yet."""

MAX_ADDRESSES = 4
"""Addresses kept of one peer, the latest first."""

PROVEN_SECONDS = 60
"""Seconds of sessions that make a peer proven. A guess: longer than a passer-by stays."""

FORGOTTEN_SECONDS = 3 * 86_400
"""Seconds of ours among others without it, after which a peer is gone. A guess: three days."""

MAX_SECONDS = 2**40


@dataclass(frozen=True, slots=True)
class RememberedPeer:
    """A peer met before, and where.

    Attributes:
        node_id: Its key.
        addresses: Where it was met, the latest first.
        session_s: Seconds that sessions with it lasted, all starts together.
        missed_s: Seconds since it was met last that this node was among others.
    """

    node_id: NodeId
    addresses: tuple[Address, ...]
    session_s: int = 0
    missed_s: int = 0

    @property
    def is_proven(self) -> bool:
        return self.session_s >= PROVEN_SECONDS


class RememberedPeers:
    """The peers a node remembers, kept up to date while it runs.

    Attributes:
        changed: Whether a peer or an address came, went or became proven since :meth:`kept`.
        aged: Whether time was counted since then.
    """

    def __init__(self, peers: Iterable[RememberedPeer] = ()) -> None:
        """``peers`` are those of the last start; who is gone for too long is left out."""
        known = [peer for peer in peers if peer.missed_s < FORGOTTEN_SECONDS]
        self._peers = {peer.node_id: peer for peer in reversed(known)}  # the latest is last
        self.changed = False
        self.aged = False

    def met(self, peer: NodeId, address: Address) -> None:
        """A session with ``peer`` came up at ``address``."""
        known = self._peers.pop(peer, RememberedPeer(peer, ()))
        addresses = tuple(dict.fromkeys((address, *known.addresses)))[:MAX_ADDRESSES]
        self.changed = self.changed or addresses != known.addresses or known.missed_s > 0
        self._peers[peer] = replace(known, addresses=addresses, missed_s=0)
        self._trim()

    def passed(self, seconds: int, connected: Iterable[tuple[NodeId, Address]]) -> None:
        """Count ``seconds`` during which sessions with ``connected`` were up.

        Where none was up, nobody was missed: it is our own network that is gone.
        """
        up = dict(connected)
        self._take_up(up)
        if not up or seconds <= 0:
            return
        self.aged = True
        for peer, known in list(self._peers.items()):
            if peer in up:
                lasted = min(known.session_s + seconds, MAX_SECONDS)
                after = replace(known, session_s=lasted, missed_s=0)
            else:
                after = replace(known, missed_s=min(known.missed_s + seconds, MAX_SECONDS))
            self.changed = self.changed or after.is_proven != known.is_proven
            self._peers[peer] = after
            if after.missed_s >= FORGOTTEN_SECONDS:
                del self._peers[peer]
                self.changed = True

    def kept(self) -> tuple[RememberedPeer, ...]:
        """Return all to be written down, and begin to note changes anew."""
        self.changed = self.aged = False
        return self.ranked()

    def ranked(self) -> tuple[RememberedPeer, ...]:
        """Return all, those to be called first in front."""
        latest = reversed(self._peers.values())
        return tuple(sorted(latest, key=lambda peer: (not peer.is_proven, -_time(peer))))

    def _take_up(self, up: Mapping[NodeId, Address]) -> None:
        """Remember those who are here and were pushed out, in the place of unproven who are not.

        Nobody who is here goes for them: in a swarm of hundreds all would take turns at being
        remembered, and nobody would stay for long enough to be proven.
        """
        missing = [peer for peer in up if peer not in self._peers]
        if not missing:
            return
        unproven = [peer.node_id for peer in self._peers.values() if not peer.is_proven]
        gone = [peer for peer in unproven if peer not in up]
        most = min(MAX_UNPROVEN, MAX_PEERS - len(self._peers) + len(unproven))
        taken = missing[: most - len(unproven) + len(gone)]
        for peer in gone[: max(0, len(unproven) + len(taken) - most)]:
            del self._peers[peer]
        for peer in taken:
            self.met(peer, up[peer])

    def _trim(self) -> None:
        """Keep within the bounds; the latest of the unproven, the longest known of the others."""
        unproven = [peer for peer in self._peers.values() if not peer.is_proven]
        for peer in unproven[: max(0, len(unproven) - MAX_UNPROVEN)]:
            del self._peers[peer.node_id]
        for peer in self.ranked()[MAX_PEERS:]:
            del self._peers[peer.node_id]


def _time(peer: RememberedPeer) -> int:
    return peer.session_s if peer.is_proven else 0
