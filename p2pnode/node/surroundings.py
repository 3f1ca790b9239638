"""The network around a running node: whom it calls, whom it sees, and whom it remembers."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from p2pnode.errors import UserError
from p2pnode.net.addresses import format_address, resolve
from p2pnode.net.announcement import Announcement
from p2pnode.net.mdns import MdnsEvent, MdnsService, Sighted
from p2pnode.node.core import NodeCore
from p2pnode.node.dialer import Sighting
from p2pnode.node.identity import RememberedPeer, StateDirectory
from p2pnode.sansio import Address, NodeId

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

_REMEMBERED_ADDRESSES = 4  # of one peer


class Call(Protocol):
    """Runs a command of the core, and sends at once what it made the core want to send."""

    def __call__(self, command: Callable[[float], _T], /) -> _T: ...


class Surroundings:
    """What a node does about its network, beside the core: names, mDNS and remembered peers."""

    def __init__(
        self,
        core: NodeCore,
        call: Call,
        state: StateDirectory,
        peers: tuple[Address, ...],
    ) -> None:
        """``peers`` were given by hand; their hosts may be names."""
        self._core = core
        self._call = call
        self._state = state
        self._peers = peers
        self._mdns: MdnsService | None = None
        self._remembered = {peer.node_id: peer for peer in state.remembered_peers()}

    @property
    def counters(self) -> Mapping[str, int]:
        """What was dropped or refused, by reason; cumulative."""
        return Counter() if self._mdns is None else self._mdns.counters

    async def call_peers(self) -> None:
        """Call those given by hand, and those remembered."""
        known = [address for peer in self._remembered.values() for address in peer.addresses]
        for address in dict.fromkeys((*self._peers, *known)):
            try:
                found = await resolve(address)
            except UserError as error:
                logger.warning("%s: %s", format_address(address), error)
                self._core.log.append(f"{format_address(address)}: {error}")
                continue
            for one in found:
                self.connect(one)

    def connect(self, address: Address) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        self._call(lambda now: self._core.connect(address, now))

    async def look_around(self) -> None:
        """Announce ourselves and follow announcements; without multicast, say so and go on."""
        origin = self._core.origin
        announcement = Announcement(
            node_id=self._core.node_id,
            swarm_tag=origin.swarm_tag,
            name=self._core.config.name,
            addresses=origin.addresses,
        )
        self._mdns = MdnsService(announcement, self._on_sight)
        await self._mdns.run()
        if self._mdns.problem:
            self._core.log.append(f"mDNS is off: {self._mdns.problem}")

    def _on_sight(self, event: MdnsEvent) -> None:
        core = self._core
        if not isinstance(event, Sighted):
            self._call(lambda now: core.unsaw(event.node_id, now))
            return
        seen = event.announcement
        ours = seen.swarm_tag == core.origin.swarm_tag
        sighting = Sighting(seen.addresses, seen.name, ours)
        self._call(lambda now: core.saw(seen.node_id, sighting, now))

    def remember(self, peer: NodeId, address: Address) -> None:
        """Keep for the next start that ``peer`` was met at ``address``."""
        known = self._remembered.pop(peer, RememberedPeer(peer, ()))
        addresses = tuple(dict.fromkeys((address, *known.addresses)))[:_REMEMBERED_ADDRESSES]
        self._remembered = {peer: RememberedPeer(peer, addresses), **self._remembered}
        try:
            self._state.remember_peers(tuple(self._remembered.values()))
        except UserError as error:
            self._core.log.append(str(error))
