"""Whom gossip calls where records say that members are: within a budget, for records may lie.

Any member can sign the records of hundreds that do not exist, at addresses of somebody else. Each
that is called costs that somebody a few packets, from every node. So a member that was never met
is called at one or two addresses, with few packets, and all of them share a budget
(:class:`~p2pnode.node.dial_budget.Budget`); an address that does not answer is called ever more
rarely. Where a member was met it is called without any of that, for there it showed that it lives.
"""

from collections import Counter
from collections.abc import Sequence

from p2pnode.node.config import RecordDialsConfig
from p2pnode.node.dial_budget import Budget
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.endpoint import Endpoint


class RecordDials:
    """Dials members on the word of their records."""

    def __init__(
        self, config: RecordDialsConfig, endpoint: Endpoint, counters: Counter[str]
    ) -> None:
        """``counters`` takes what was not called, by reason."""
        self._config = config
        self._endpoint = endpoint
        self._counters = counters
        self._budget = Budget[NodeId](config)
        self._met: dict[NodeId, Address] = {}  # the latest last

    def call(self, peer: NodeId, addresses: Sequence[Address], now: float) -> str | None:
        """Dial ``peer``; return why nobody is dialled, None where a dial is under way.

        ``addresses`` are those of its record, the likeliest first.
        """
        endpoint = self._endpoint
        if endpoint.is_dialling(peer):
            return None
        if not addresses:
            return "peer of unknown address"
        met = self._met.get(peer)
        if met is not None:
            endpoint.connect(met, now, peer=peer)
        reason = self._call_unproven(peer, [one for one in addresses if one != met], now)
        if endpoint.is_dialling(peer):
            return None
        return reason or "nobody can be called at the peer's addresses"

    def reached(self, peer: NodeId, address: Address) -> None:
        """A session with ``peer`` at ``address`` is up."""
        self._budget.met(address)
        self._met.pop(peer, None)
        self._met[peer] = address
        if len(self._met) > self._config.most_met:
            del self._met[next(iter(self._met))]

    def failed(self, address: Address) -> None:
        """A dial of ``address`` came to nothing."""
        self._budget.done(address)

    def _call_unproven(self, peer: NodeId, addresses: list[Address], now: float) -> str | None:
        budget, config = self._budget, self._config
        budget.renew(now)
        addresses = sorted(addresses, key=budget.failures)  # or the last would never have its turn
        for _ in range(config.addresses_each):
            if not budget.has_room:
                self._counters["address of a record not called: too many are"] += 1
                return "too many members that were never met are called already"
            address = budget.choose(addresses, 0, now)
            if address is None:
                return "the peer's addresses were called in vain just now"
            budget.spend(address, peer, now)
            self._endpoint.connect(address, now, peer=peer, tries=config.tries)
        return None
