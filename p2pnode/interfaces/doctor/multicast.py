"""Multicast, by which nodes on one network find each other without being told.

On the loopback interface an announcement is really sent and awaited. On the others it is only
asked whether the group can be joined: a doctor does not talk to the neighbours.
"""

import secrets
import threading
from collections.abc import Iterator

from zeroconf import Error, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from p2pnode.interfaces.doctor.findings import Finding
from p2pnode.net.interfaces import read_interfaces
from p2pnode.net.mdns import unheard

SERVICE = "_p2pnode-doctor._udp.local."
"""Not the nodes' own, so that a running node does not take the check for a peer."""

_WAIT = 3.0
_ADVICE = "name one peer by hand: p2pnode up --peer HOST:PORT, or use p2pnode invite and join"


def check_multicast() -> Iterator[Finding]:
    """Announce on loopback and wait to hear it; join the group elsewhere."""
    yield report_loopback(heard=_announce_on_loopback())
    joined, refused = _join_everywhere()
    yield report_interfaces(joined, refused)


def report_loopback(*, heard: bool) -> Finding:
    """Report whether an announcement sent on loopback came back."""
    if heard:
        return Finding("multicast", "ok", "an announcement on loopback was heard")
    what = "an announcement on loopback was not heard: nodes here cannot find each other"
    return Finding("multicast", "warn", what, _ADVICE)


def report_interfaces(joined: list[str], refused: dict[str, str]) -> Finding:
    """Report where the group could be joined, and where not, with the reasons."""
    if refused:
        what = "cannot join on " + ", ".join(f"{name} ({why})" for name, why in refused.items())
        return Finding("multicast", "warn", what, _ADVICE)
    if not joined:
        return Finding("multicast", "ok", "no network but loopback")
    names = ", ".join(joined)
    return Finding("multicast", "ok", f"the group can be joined on {names}", _BLOCKED)


_BLOCKED = "if peers there stay unseen all the same, the network drops multicast: use --peer"


def _announce_on_loopback() -> bool:
    heard = threading.Event()
    name = f"{secrets.token_hex(8)}.{SERVICE}"

    def changed(
        zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is not ServiceStateChange.Removed and name == wanted:
            heard.set()

    wanted = name
    announcer: Zeroconf | None = None
    listener: Zeroconf | None = None
    try:
        listener = Zeroconf(interfaces=["127.0.0.1"])
        announcer = Zeroconf(interfaces=["127.0.0.1"])
        ServiceBrowser(listener, SERVICE, handlers=[changed])
        announcer.register_service(_info(name), cooperating_responders=True)
        return heard.wait(_WAIT)
    except (OSError, Error):
        return False
    finally:
        for one in (announcer, listener):
            if one is not None:
                one.close()


def _info(name: str) -> ServiceInfo:
    host = f"{name.partition('.')[0]}.local."
    return ServiceInfo(SERVICE, name, port=9, server=host, parsed_addresses=["127.0.0.1"])


def _join_everywhere() -> tuple[list[str], dict[str, str]]:
    """Join where a node would, over both families; return where that worked, and where not."""
    table = read_interfaces()
    names: dict[str | int, str] = {}
    for face in table.interfaces:
        names |= {str(one.ip): face.name for one in face.addresses}
        names[face.index] = f"{face.name} over IPv6"
    places = table.announcing(("::", 9))[1:]  # without loopback, which was tried
    refused = unheard(places)
    joined = [names.get(place, str(place)) for place in places if place not in refused]
    problems = {names.get(place, str(place)): why for place, why in refused.items()}
    return list(dict.fromkeys(joined)), problems
