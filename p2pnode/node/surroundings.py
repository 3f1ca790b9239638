"""The network around a running node: its own addresses, whom it sees, and whom it remembers."""

import ipaddress
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

import trio

from p2pnode.errors import UserError
from p2pnode.net.addresses import format_address, resolve
from p2pnode.net.announcement import Announcement
from p2pnode.net.interface_watch import watch_interfaces
from p2pnode.net.interfaces import InterfaceTable, read_interfaces, source_host
from p2pnode.net.mdns import Impaired, MdnsEvent, MdnsService, Sighted, Withdrawn
from p2pnode.node.config import NodeConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.identity import StateDirectory
from p2pnode.node.origin import Origin
from p2pnode.node.reach import Reach
from p2pnode.node.remembered import RememberedPeer, RememberedPeers
from p2pnode.node.sightings import Sighting
from p2pnode.sansio import Address, NodeId

_T = TypeVar("_T")

WRITE_SECONDS = 5.0
"""Least time between two writes of the remembered peers."""

FAILED_WRITE_SECONDS = 60.0
"""Time after a write that failed before the next: a full disk is not emptied sooner."""

AGE_SECONDS = 600.0
"""Time after which they are written although nothing but their age changed."""

HUNG_WRITE_SECONDS = 20.0
"""Time after which a write counts as failed: the disk does not answer. A guess."""

LAST_WRITE_SECONDS = 2.0
"""How long the end waits for the last write, and for one under way before it, should the disk
hang."""

MOST_PROBED = 16
"""Sessions asked which of our addresses they use, in one look at the interfaces."""

logger = logging.getLogger(__name__)


class Call(Protocol):
    """Runs a command of the core, and sends at once what it made the core want to send."""

    def __call__(self, command: Callable[[NodeCore, float], _T], /) -> _T: ...


class Surroundings:
    """What a node does about its network, beside the core.

    Everything here is a task on the loop; what blocks (reading interfaces, names and multicast,
    writing files) happens in threads.
    """

    def __init__(
        self,
        origin: Origin,
        config: NodeConfig,
        call: Call,
        state: StateDirectory,
        bound: Address,
        peers: tuple[Address, ...] = (),
        *,
        mdns: bool = True,
    ) -> None:
        """``bound`` is where the socket is; ``peers`` were given by hand, perhaps as names."""
        self._origin = origin
        self._config = config
        self._call = call
        self._state = state
        self._bound = bound
        self._peers = peers
        self._remembered = RememberedPeers(state.recall_peers())
        self._met = trio.Event()
        self._unwritten = ""
        self._writer = trio.CapacityLimiter(1)
        self._proven: frozenset[str] = frozenset()
        table = read_interfaces()
        self._announced = self._tell_reach(table)
        self._mdns: MdnsService | None = None
        if mdns:
            self._mdns = MdnsService(self._announcement(), self._on_mdns, table.announcing(bound))

    @property
    def counters(self) -> Mapping[str, int]:
        """What was dropped or refused, by reason; cumulative."""
        return Counter() if self._mdns is None else self._mdns.counters

    @property
    def mdns_problem(self) -> str:
        """What does not work of finding peers on the local network; empty while all does."""
        return "" if self._mdns is None else self._mdns.problem

    async def run(self) -> None:
        """Follow the network until cancelled."""
        for trouble in self._state.troubles:
            self._say(trouble)
        for peer in self._remembered.ranked():
            self._recall(peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_peers)
            nursery.start_soon(watch_interfaces, self._look_at_interfaces)
            if self._mdns is not None:
                nursery.start_soon(self._mdns.run)
            for address in self._peers:
                if _is_name(address):
                    nursery.start_soon(self._follow_name, address)
                else:
                    await self._connect_number(address)

    def connect(self, address: Address) -> None:
        """Call ``address`` until somebody of the swarm answers there."""
        self._call(lambda core, now: core.connect(address, now))

    def met(self, peer: NodeId, address: Address) -> None:
        """A session with ``peer`` came up."""
        self._remembered.met(peer, address)
        self._met.set()

    def _recall(self, peer: RememberedPeer) -> None:
        """Call a peer of an earlier start; one that was proven need not begin as a stranger."""
        self._call(
            lambda core, now: core.recall(peer.node_id, peer.addresses, now, proven=peer.is_proven)
        )

    # Our own addresses

    async def _look_at_interfaces(self) -> None:
        sessions = self._call(_sessions)
        try:
            read = partial(_read, sessions)
            table, used = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        except OSError as error:  # an interface vanished in the middle of it
            logger.info("the interfaces cannot be read: %s", error)
            return
        self._proven = (self._proven | used) & table.hosts()
        self._announced = self._tell_reach(table)
        if self._mdns is not None:
            self._mdns.update(self._announcement(), table.announcing(self._bound))

    def _tell_reach(self, table: InterfaceTable) -> tuple[Address, ...]:
        """Tell the core where we are reached, and return what it makes of that."""
        bound, outward = self._bound, table.outward()
        reach = Reach(
            table.reachable(bound, self._proven),
            table.networks(bound),
            table.hosts(),
            Reach(outward.reachable(bound), outward.networks(bound)),
        )

        def tell(core: NodeCore, now: float) -> tuple[Address, ...]:
            core.addresses_changed(reach, now)
            return core.reach.addresses

        return self._call(tell)

    # Names

    async def _connect_number(self, address: Address) -> None:
        try:
            for one in await resolve(address):  # its one spelling; no question to anybody
                self.connect(one)
        except UserError as error:
            self._say(f"{format_address(address)}: {error}")

    async def _follow_name(self, name: Address) -> None:
        """Look ``name`` up before each call: where it leads may change, or be unknown as yet."""
        while True:
            if not self._call(partial(_is_met, name)):
                try:
                    found = await resolve(name)
                except UserError as error:
                    if self._call(partial(_unresolved, name, str(error))):
                        self._say(f"{format_address(name)}: {error}")
                else:
                    self._call(partial(_resolved, name, found))
            await trio.sleep(self._config.dialer.redial)

    # The local network

    def _announcement(self) -> Announcement:
        return Announcement(
            node_id=self._origin.identity.node_id,
            swarm_tag=self._origin.swarm_tag,
            name=self._config.name,
            addresses=self._announced,
        )

    def _on_mdns(self, event: MdnsEvent) -> None:
        match event:
            case Sighted(seen, heard):
                ours = seen.swarm_tag == self._origin.swarm_tag
                sighting = Sighting(seen.addresses, seen.name, ours, heard=heard)
                self._call(lambda core, now: core.sighted(seen.node_id, sighting, now))
            case Withdrawn(peer):
                self._call(lambda core, now: core.sighting_withdrawn(peer, now))
            case Impaired(problem):
                self._say(problem or "mDNS works")

    # Peers remembered

    async def _keep_peers(self) -> None:
        """Count how long sessions last, and write down whom to call at the next start.

        A meeting is written soon, but however many there are, one write in ``WRITE_SECONDS`` is
        all.
        """
        counted = written = trio.current_time()
        try:
            while True:
                with trio.move_on_after(WRITE_SECONDS):
                    await self._met.wait()
                counted = self._count_sessions(counted)
                is_old = self._remembered.aged and trio.current_time() - written >= AGE_SECONDS
                if self._remembered.changed or is_old:
                    written = trio.current_time()
                    is_written = await self._write_peers()
                    await trio.sleep(WRITE_SECONDS if is_written else FAILED_WRITE_SECONDS)
                self._met = trio.Event()
        finally:
            with trio.move_on_after(LAST_WRITE_SECONDS, shield=True):
                if self._remembered.changed or self._remembered.aged:
                    await self._write_peers()

    def _count_sessions(self, counted: float) -> float:
        """Count whole seconds, and return the time until which they are counted."""
        seconds = int(trio.current_time() - counted)
        self._remembered.passed(seconds, self._call(_sessions))
        known = {peer.node_id for peer in self._remembered.ranked()}
        self._call(lambda core, now: core.dialer.forget_all_but(known))
        return counted + seconds

    async def _write_peers(self) -> bool:
        """Write down the peers; return whether they are written.

        A thread that the disk holds cannot be ended, only left behind, and it may go on much later.
        So the next write waits until the one before it is over, however that ends: the file is
        never overwritten by what is older, and a disk that hangs holds one thread and no more.
        """
        write = partial(self._state.remember_peers, self._remembered.kept())
        trouble = "peers.json is not written: the disk does not answer"
        is_written = False
        try:
            with trio.move_on_after(HUNG_WRITE_SECONDS):
                await trio.to_thread.run_sync(write, abandon_on_cancel=True, limiter=self._writer)
                is_written = True
        except UserError as error:
            trouble = str(error)
        finally:
            if not is_written:
                self._remembered.changed = True
        if is_written:
            self._unwritten = ""
            return True
        self._count("remembered peers not written")
        if trouble != self._unwritten:  # a full disk is said once
            self._unwritten = trouble
            self._say(trouble)
        return False

    def _say(self, line: str) -> None:
        self._call(lambda core, now: core.say(line))

    def _count(self, reason: str) -> None:
        def count(core: NodeCore, now: float) -> None:
            core.counters[reason] += 1

        self._call(count)


def _sessions(core: NodeCore, now: float) -> list[tuple[NodeId, Address]]:
    found = ((peer, core.endpoint.address_of(peer)) for peer in core.endpoint.peers())
    return [(peer, address) for peer, address in found if address is not None]


def _is_met(name: Address, core: NodeCore, now: float) -> bool:
    return core.dialer.is_met(name, core.endpoint.is_connected)


def _unresolved(name: Address, reason: str, core: NodeCore, now: float) -> bool:
    """Note that nobody knows ``name``; return whether that is news."""
    return core.dialer.unresolved(name, reason)


def _resolved(name: Address, found: tuple[Address, ...], core: NodeCore, now: float) -> None:
    core.resolved(name, found, now)


def _read(sessions: list[tuple[NodeId, Address]]) -> tuple[InterfaceTable, frozenset[str]]:
    """Read the interfaces, and which of our addresses the sessions use."""
    table = read_interfaces()
    hosts = {source_host(address) for _, address in sessions[:MOST_PROBED]}
    return table, frozenset(
        host for host in hosts if host and not ipaddress.ip_address(host).is_loopback
    )


def _is_name(address: Address) -> bool:
    try:
        ipaddress.ip_address(address[0])
    except ValueError:
        return True
    return False
