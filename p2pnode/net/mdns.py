"""Finding nodes on the local network, through multicast DNS.

A convenience and never the only way in: containers, WSL and many office networks drop multicast.
zeroconf blocks (registering a service on the loop would stall it for 1.7 s, measured) and calls
back from threads of its own, so all of it happens in threads, and what it finds is handed to the
loop with trio's token.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import trio
from zeroconf import (
    Error,
    InterfaceChoice,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from p2pnode.errors import RemoteProtocolError
from p2pnode.net.addresses import is_loopback
from p2pnode.net.announcement import SERVICE_TYPE, Announcement, parse_announcement_untrusted
from p2pnode.sansio import NodeId

MAX_SIGHTINGS = 256
"""Nodes remembered; a stranger can invent as many as it likes."""

RESOLVE_MS = 1000
"""Milliseconds to wait for records that did not come with the name."""

CLOSE_SECONDS = 2.0
"""Seconds for the goodbye, which takes three packets 125 ms apart."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sighted:
    """A node announced itself, or announced itself anew."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A node said goodbye. A node that was killed never does: liveness is the membership's."""

    node_id: NodeId


MdnsEvent: TypeAlias = Sighted | Withdrawn


class MdnsService:
    """Announces one node and reports the others, ours excluded, of whatever swarm.

    Attributes:
        problem: Why mDNS is off, in words for a person; empty while it works.
        counters: Announcements not believed, by reason.
    """

    def __init__(self, announcement: Announcement, on_event: Callable[[MdnsEvent], None]) -> None:
        """Prepare to say ``announcement``, and to call ``on_event`` on the trio loop.

        Where every address of ours is a loopback one, no other interface is used.
        """
        self._ours = announcement
        self._on_event = on_event
        self._sighted: dict[str, Announcement] = {}
        self.problem = ""
        self.counters: Counter[str] = Counter()

    async def run(self) -> None:
        """Announce and browse until cancelled; without multicast, note the problem and return."""
        token = trio.lowlevel.current_trio_token()
        try:
            service = await trio.to_thread.run_sync(self._open, token)
        except (OSError, Error, RuntimeError) as error:
            self.problem = f"cannot use multicast: {str(error) or type(error).__name__}"
            logger.info("mDNS is off: %s", self.problem)
            return
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await trio.to_thread.run_sync(service.close, abandon_on_cancel=True)

    # In threads

    def _open(self, token: trio.lowlevel.TrioToken) -> Zeroconf:
        def changed(
            zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
        ) -> None:
            news = self._news(zeroconf, service_type, name, state_change)
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(news)

        local = all(is_loopback(address) for address in self._ours.addresses)
        service = Zeroconf(
            interfaces=["127.0.0.1"] if local else InterfaceChoice.All, use_asyncio=False
        )
        try:
            ServiceBrowser(service, SERVICE_TYPE, handlers=[changed])
            # Our name holds half a key, so there is nobody to probe for: 10 ms instead of 1.2 s.
            service.register_service(_service_info(self._ours), cooperating_responders=True)
        except BaseException:
            service.close()
            raise
        return service

    def _news(
        self, service: Zeroconf, service_type: str, name: str, change: ServiceStateChange
    ) -> Callable[[], None]:
        """Return what the loop shall do; the browser's thread must outlive any announcement."""
        if change is ServiceStateChange.Removed:
            return partial(self._withdraw, name)
        try:
            return partial(self._sight, name, _resolve_untrusted(service, service_type, name))
        except RemoteProtocolError as error:
            logger.debug("did not believe the announcement %r: %s", name, error)
            return partial(self._disbelieve, str(error).partition(":")[0])

    # On the loop

    def _sight(self, name: str, announcement: Announcement) -> None:
        if self._sighted.get(name) == announcement or announcement.node_id == self._ours.node_id:
            return
        if name not in self._sighted and len(self._sighted) >= MAX_SIGHTINGS:
            self.counters["too many announcements"] += 1
            return
        self._sighted[name] = announcement
        self._on_event(Sighted(announcement))

    def _withdraw(self, name: str) -> None:
        announcement = self._sighted.pop(name, None)
        if announcement is not None:
            self._on_event(Withdrawn(announcement.node_id))

    def _disbelieve(self, reason: str) -> None:
        self.counters[reason] += 1


def _service_info(ours: Announcement) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        ours.instance,
        port=ours.port,
        properties=ours.text(),
        server=f"{ours.node_id.hex()[:32]}.local.",
        parsed_addresses=[host for host in ours.hosts if "%" not in host],
    )


def _resolve_untrusted(service: Zeroconf, service_type: str, name: str) -> Announcement:
    """Get and parse the records behind a name.

    Raises:
        RemoteProtocolError: They did not come, or make no sense; nothing else ever.
    """
    try:
        info = ServiceInfo(service_type, name)
        found = info.load_from_cache(service) or info.request(service, RESOLVE_MS)
        text, hosts, port = info.text, info.parsed_addresses(IPVersion.All), info.port
    except (Error, ValueError, OSError, RuntimeError) as error:
        raise RemoteProtocolError(f"an announcement that cannot be resolved: {error}") from error
    if not found:
        raise RemoteProtocolError("an announcement without records")
    return parse_announcement_untrusted(text, hosts, port)
