"""Keys that did nothing yet: how many may come, how fast, and from where.

A member of the swarm can draw as many keys as it likes, and each passes the handshake. So a key
counts for little until its owner has kept a session for a while and acknowledged what was sent to
it; the node may also vouch for a key it knows from before. All others share a small budget, in
total and by address, and never take the place of one that proved itself.
"""

from collections import OrderedDict
from ipaddress import IPv6Address

from p2pnode.sansio import Address, NodeId
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.packets import DroppedError

_MOST_KNOWN = 4096
_MOST_SITES = 1024
_PREFIX = 8  # bytes of an IPv6 address that name a network: whoever has one address has 2^64


def site_of(address: Address) -> str:
    """Return what an address shares with all others that its owner could use as well."""
    host = address[0].partition("%")[0]
    if ":" not in host:
        return host
    try:
        packed = IPv6Address(host)
    except ValueError:
        return host
    return str(packed.ipv4_mapped or packed.packed[:_PREFIX].hex())


class Bucket:
    """Tokens that come back at a steady rate."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = now

    def fill(self, now: float) -> bool:
        """Add what has come since the last time, and say whether there is a token."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._tokens >= 1

    def take(self) -> None:
        self._tokens -= 1


class Newcomers:
    """Lets keys in that are not known, at a bounded pace, and remembers who is known."""

    def __init__(self, config: TransportConfig, now: float) -> None:
        self._config = config
        self._all = Bucket(config.newcomers_per_second, config.max_unproven, now)
        self._by_site: OrderedDict[str, Bucket] = OrderedDict()
        self._known: OrderedDict[NodeId, None] = OrderedDict()

    def is_known(self, peer: NodeId) -> bool:
        return peer in self._known

    def know(self, peer: NodeId) -> None:
        """``peer`` has proved itself, or is vouched for; those not seen for long are forgotten."""
        self._known[peer] = None
        self._known.move_to_end(peer)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def admit(self, address: Address, now: float) -> None:
        """Let a key in that is not known.

        Raises:
            DroppedError: Too many came lately, from this address or in all.
        """
        site = site_of(address)
        config = self._config
        bucket = self._by_site.get(site)
        if bucket is None:
            bucket = self._by_site[site] = Bucket(
                config.newcomers_per_second_per_address, config.max_unproven_per_address, now
            )
            if len(self._by_site) > _MOST_SITES:
                self._by_site.popitem(last=False)
        self._by_site.move_to_end(site)
        if not bucket.fill(now):
            raise DroppedError("newcomers_too_fast_from_one_address")
        if not self._all.fill(now):
            raise DroppedError("newcomers_too_fast")
        bucket.take()
        self._all.take()
