"""Finding nodes on the local network, through multicast DNS over IPv4 and IPv6.

A convenience and never the only way in: containers, WSL and many office networks drop multicast.
zeroconf blocks (registering a service on the loop would stall it for 1.7 s, measured) and calls
back from threads of its own, so all of it happens in threads. They only note the names they heard,
in a bounded list; the names are looked at in small batches, the latest first, so that a flood of
them costs a bounded share of the processor and a newcomer does not wait behind it.
"""

import contextlib
import logging
import socket
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import trio
from zeroconf import (
    Error,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from p2pnode.errors import RemoteProtocolError
from p2pnode.net.addresses import is_loopback
from p2pnode.net.announcement import SERVICE_TYPE, Announcement, parse_announcement_untrusted
from p2pnode.net.interfaces import read_interfaces
from p2pnode.sansio import NodeId

MAX_SIGHTINGS = 256
"""Names whose node is kept for its goodbye; a stranger can invent as many as it likes."""

MAX_PENDING = 128
"""Names heard and not looked at yet; the oldest give way."""

BATCH = 8
BATCH_SECONDS = 0.25
"""Names looked at together, and the least time a batch takes: 32 a second, 0.3 ms each."""

RESOLVE_MS = 500
"""Milliseconds to wait for records that did not come with the name; one name a batch may."""

CLOSE_SECONDS = 2.0
"""Seconds for the goodbye, which takes three packets 125 ms apart."""

RETRY_SECONDS = 60.0
"""Seconds until multicast is tried again where it could not be used."""

GROUP = "224.0.0.251"
GROUP6 = "ff02::fb"
"""Where mDNS is spoken, RFC 6762."""

_TYPE_TXT = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sighted:
    """A node announced itself, or announced itself anew.

    Attributes:
        announcement: What it says.
        heard: Bytes that saying it took at the least.
    """

    announcement: Announcement
    heard: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A node said goodbye. A node that was killed never does: liveness is the membership's."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class Impaired:
    """mDNS works less than it should, or again; ``problem`` says what does not, or is empty."""

    problem: str


MdnsEvent: TypeAlias = Sighted | Withdrawn | Impaired
Places: TypeAlias = tuple[str | int, ...]


class MdnsService:
    """Announces one node and reports the others, ours excluded, of whatever swarm.

    Attributes:
        problem: What does not work, in words for a person; empty while all does.
        counters: Announcements not believed or not looked at, by reason.
    """

    def __init__(
        self,
        announcement: Announcement,
        on_event: Callable[[MdnsEvent], None],
        places: Places | None = None,
    ) -> None:
        """Prepare to say ``announcement``, and to call ``on_event`` on the trio loop.

        ``places`` are where: IPv4 addresses and numbers of interfaces for IPv6. Without them it is
        every interface, and loopback alone where every address of ours is a loopback one.
        """
        self._ours = announcement
        self._places = _default_places(announcement) if places is None else places
        self._on_event = on_event
        self._sighted: OrderedDict[str, Announcement] = OrderedDict()
        self._changed = trio.Event()
        self._heard = trio.Event()
        self._lock = threading.Lock()
        self._pending: OrderedDict[str, None] = OrderedDict()
        self._overlooked = 0
        self.problem = ""
        self.counters: Counter[str] = Counter()

    def update(self, announcement: Announcement, places: Places) -> None:
        """Say ``announcement`` from now on, on the interfaces ``places``."""
        same = set(announcement.addresses) == set(self._ours.addresses)
        if same and set(places) == set(self._places):
            return  # their order is no news to anybody
        self._ours, self._places = announcement, places
        self._changed.set()

    async def run(self) -> None:
        """Announce and browse until cancelled; where that fails, say so and try again later."""
        token = trio.lowlevel.current_trio_token()
        while True:
            self._changed = trio.Event()
            open_one = partial(self._open, token, self._ours, self._places)
            try:
                service, problem = await trio.to_thread.run_sync(open_one)
            except (OSError, Error, RuntimeError) as error:
                reason = str(error) or type(error).__name__
                self._tell_problem(f"mDNS is off: cannot use multicast: {reason}")
                with trio.move_on_after(RETRY_SECONDS):
                    await self._changed.wait()
                continue
            self._tell_problem(problem)
            await self._follow(service)

    async def _follow(self, service: Zeroconf) -> None:
        """Look at what is heard until our own announcement changes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_at_names, service)
                await self._changed.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await trio.to_thread.run_sync(partial(_close, service), abandon_on_cancel=True)

    async def _look_at_names(self, service: Zeroconf) -> None:
        while True:
            self._heard = trio.Event()
            while names := self._take_pending():
                news = await trio.to_thread.run_sync(
                    partial(self._resolve, service, names), abandon_on_cancel=True
                )
                for one in news:
                    one()
                await trio.sleep(BATCH_SECONDS)
            await self._heard.wait()

    def _tell_problem(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            logger.info(problem or "mDNS works")
            self._on_event(Impaired(problem))

    # In threads

    def _open(
        self, token: trio.lowlevel.TrioToken, ours: Announcement, places: Places
    ) -> tuple[Zeroconf, str]:
        def hear(name: str) -> None:
            if self._pend(name):
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._wake)

        def changed(
            zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
        ) -> None:
            if state_change is not ServiceStateChange.Removed:
                hear(name)
                return
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(partial(self._withdraw, name))

        service, problem = _speak(places)
        try:
            service.add_listener(_TextListener(hear), None)
            ServiceBrowser(service, SERVICE_TYPE, handlers=[changed])
            # Our name holds half a key, so there is nobody to probe for: 10 ms instead of 1.2 s.
            service.register_service(_service_info(ours), cooperating_responders=True)
        except BaseException:
            service.close()
            raise
        return service, problem

    def _pend(self, name: str) -> bool:
        """Note a name; True when the loop is to be woken for it."""
        with self._lock:
            is_first = not self._pending
            self._pending[name] = None
            self._pending.move_to_end(name)
            if len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)
                self._overlooked += 1
            return is_first

    def _take_pending(self) -> list[str]:
        """Take a batch of names, the latest first."""
        with self._lock:
            overlooked, self._overlooked = self._overlooked, 0
            names = [self._pending.popitem()[0] for _ in range(min(BATCH, len(self._pending)))]
        if overlooked:
            self.counters["an announcement not looked at: too many"] += overlooked
        return names

    def _resolve(self, service: Zeroconf, names: Sequence[str]) -> list[Callable[[], None]]:
        """Return what the loop shall do; of the names without records one is asked for them."""
        news: list[Callable[[], None]] = []
        asked = False
        for name in names:
            try:
                info = ServiceInfo(SERVICE_TYPE, name)
                found = info.load_from_cache(service)
                if not found and not asked:
                    asked = True
                    found = info.request(service, RESOLVE_MS)
                news.append(partial(self._sight, name, *_read_untrusted(info, found=found)))
            except RemoteProtocolError as error:
                logger.debug("did not believe the announcement %r: %s", name, error)
                news.append(partial(self._disbelieve, str(error).partition(":")[0]))
            except Exception as error:  # a stranger's name must not end us, whoever trips over it
                logger.debug("could not look at the announcement %r: %s", name, error)
                news.append(partial(self._disbelieve, "an announcement that cannot be resolved"))
        return news

    # On the loop

    def _wake(self) -> None:
        self._heard.set()

    def _sight(self, name: str, announcement: Announcement, heard: int = 0) -> None:
        if announcement.node_id == self._ours.node_id:
            return
        self._sighted[name] = announcement
        self._sighted.move_to_end(name)
        if len(self._sighted) > MAX_SIGHTINGS:
            self._sighted.popitem(last=False)
            self.counters["an announcement forgotten: too many"] += 1
        self._on_event(Sighted(announcement, heard))

    def _withdraw(self, name: str) -> None:
        announcement = self._sighted.pop(name, None)
        if announcement is not None:
            self._on_event(Withdrawn(announcement.node_id))

    def _disbelieve(self, reason: str) -> None:
        self.counters[reason] += 1


class _TextListener(RecordUpdateListener):
    """Tells of every TXT record of our type, also of one that says what is known already.

    A browser tells of changes alone; a repetition is a sign of life, and bytes that were spent.
    """

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        for update in records:
            record = update.new
            is_ours = record.type == _TYPE_TXT and record.name.endswith(SERVICE_TYPE)
            if is_ours and not record.is_expired(now):
                self._hear(record.name)


def unheard(places: Places) -> dict[str | int, str]:
    """Return where the multicast group cannot be joined, and why."""
    found: dict[str | int, str] = {}
    for place in places:
        problem = _join(place)
        if problem:
            found[place] = problem
    return found


def _join(place: str | int) -> str:
    """Join the group at one place and leave it; return what went wrong, or nothing."""
    try:
        if isinstance(place, int):
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                member = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("@I", place)
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                member = socket.inet_aton(GROUP) + socket.inet_aton(place)
                probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _speak(places: Places) -> tuple[Zeroconf, str]:
    """Open zeroconf, over IPv4 alone where IPv6 fails; return it, and what does not work."""
    four = [place for place in places if isinstance(place, str)]
    refused = unheard(places)
    usable = [place for place in places if place not in refused]
    named = ", ".join(f"{_place_name(place)} ({why})" for place, why in refused.items())
    problem = f"mDNS does not work on {named}" if named else ""
    if any(isinstance(place, int) for place in usable):
        try:
            return Zeroconf(interfaces=usable, ip_version=IPVersion.All), problem
        except (OSError, Error, RuntimeError) as error:
            problem = f"mDNS works over IPv4 alone: {str(error) or type(error).__name__}"
    usable = [place for place in usable if isinstance(place, str)]
    return Zeroconf(interfaces=usable or four, ip_version=IPVersion.V4Only), problem


def _place_name(place: str | int) -> str:
    if isinstance(place, str):
        return place
    try:
        return f"{socket.if_indextoname(place)} over IPv6"
    except OSError:
        return f"interface {place} over IPv6"


def _close(service: Zeroconf) -> None:
    with contextlib.suppress(OSError, Error, RuntimeError):
        service.close()


def _default_places(announcement: Announcement) -> Places:
    if all(is_loopback(address) for address in announcement.addresses):
        return ("127.0.0.1",)
    return read_interfaces().announcing(("::", announcement.port))


def _service_info(ours: Announcement) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        ours.instance,
        port=ours.port,
        properties=ours.text(),
        server=f"{ours.node_id.hex()[:32]}.local.",
        parsed_addresses=[host for host in ours.hosts if "%" not in host],
    )


def _read_untrusted(info: ServiceInfo, *, found: bool) -> tuple[Announcement, int]:
    """Parse the records behind a name; return also how many bytes they took.

    Raises:
        RemoteProtocolError: They did not come, or make no sense.
    """
    if not found:
        raise RemoteProtocolError("an announcement without records")
    text = info.text
    announcement = parse_announcement_untrusted(
        text, info.parsed_addresses(IPVersion.All), info.port
    )
    return announcement, announcement.wire_bytes(len(text))
