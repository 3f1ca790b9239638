"""The machine's interfaces, and which of their addresses others are told.

A record holds eight addresses and an invite four, so they are ranked: one that sessions proved,
that of the default route, those of ordinary interfaces, and last those of bridges and tunnels that
software made; within each, those proven first. A machine with nine Docker bridges is reached from
outside at none of them, and containers prove every one: they are not to crowd out the LAN.
"""

import ipaddress
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

import psutil

from p2pnode.net.addresses import sockaddr_of_address
from p2pnode.sansio import Address

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_REACHABLE = 8
"""Addresses a node says of itself: what a signed record holds."""

MAX_ANNOUNCING = 16
"""Interfaces mDNS is spoken on; each takes a socket, and Linux joins 20 groups a socket."""

_ELSEWHERE: tuple[Address, ...] = (("192.0.2.1", 9), ("2001:db8::1", 9))
"""Documentation addresses, which only a default route leads to. Nothing is ever sent there."""

_SOFTWARE = (
    "br-", "bridge", "cali", "cni", "docker", "flannel", "ham", "ipvs", "lxc", "lxd", "nerdctl",
    "podman", "tailscale", "tap", "tun", "utun", "vboxnet", "veth", "virbr", "vmnet", "vnet",
    "weave", "wg", "zt",
)  # fmt: skip
"""How software names the interfaces it makes for containers, virtual machines and tunnels."""

_NOT_USABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED: linux/if_addr.h


_TUNNELS = ("ham", "tailscale", "tun", "utun", "wg", "zt")
"""Those of them that lead elsewhere: when one comes, others can be reached."""


class Rank(IntEnum):
    """How likely it is that others reach an address; the lowest is the likeliest."""

    DEFAULT_ROUTE = 0
    ORDINARY = 1
    SOFTWARE = 2


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface that is up.

    Attributes:
        name: The system's name for it.
        index: The system's number for it.
        addresses: Its usable addresses with their prefixes, link-local ones included.
        is_loopback: Whether it never leaves this machine.
        is_software: Whether software made it: a bridge of containers, a tunnel.
    """

    name: str
    index: int
    addresses: tuple[IpInterface, ...]
    is_loopback: bool = False
    is_software: bool = False


@dataclass(frozen=True, slots=True)
class InterfaceTable:
    """All interfaces of the machine at one moment.

    Attributes:
        interfaces: Those that are up.
        default_hosts: The addresses that default routes leave from.
    """

    interfaces: tuple[Interface, ...]
    default_hosts: frozenset[str] = frozenset()

    def hosts(self) -> frozenset[str]:
        """Return every address of this machine, in its one spelling."""
        return frozenset(str(one.ip) for face in self.interfaces for one in face.addresses)

    def reachable(self, bound: Address, proven: Collection[str] = ()) -> tuple[Address, ...]:
        """Return where others may reach a socket bound to ``bound``, the likeliest first.

        A wildcard stands for every interface, up to ``MAX_REACHABLE`` addresses, that of the
        default route among the first two. Link-local IPv6
        addresses are left out: the scope in them means something on this machine alone. A machine
        with no network at all has its loopback address, up or not. ``proven`` are hosts that
        sessions used.
        """
        host, port = bound
        ip = ipaddress.ip_address(host)
        if not ip.is_unspecified:
            return (bound,)
        candidates = [
            (self._order(face, one.ip, proven), str(one.ip), face.is_loopback)
            for face in self.interfaces
            for one in face.addresses
            if (ip.version == 6 or one.version == 4) and not _is_scoped(one.ip)
        ]
        outward = [one for one in candidates if not one[2]]
        ranked = [host for _, host, _ in sorted(outward or candidates)] or ["127.0.0.1"]
        first = [host for host in ranked if host in proven][:1]
        return tuple((host, port) for host in list(dict.fromkeys(first + ranked))[:MAX_REACHABLE])

    def outward(self) -> "InterfaceTable":
        """Return the table of those that lead away from this machine.

        They are what software did not make, tunnels, and whatever has the default route. Bridges
        and their ends come and go with each container, and move this machine nowhere.
        """
        faces = (
            face
            for face in self.interfaces
            if not face.is_software or face.name.startswith(_TUNNELS) or self._is_default(face)
        )
        return InterfaceTable(tuple(faces), self.default_hosts)

    def networks(self, bound: Address) -> tuple[IpNetwork, ...]:
        """Return the subnets that a socket bound to ``bound`` has on its own link.

        Loopback counts where nothing else does. This machine's own addresses always do: another
        node may run here.
        """
        ip = ipaddress.ip_address(bound[0])
        outward = [face for face in self.interfaces if not face.is_loopback and face.addresses]
        if ip.is_loopback or not outward:
            local = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
            ours = (ipaddress.ip_network(one.ip) for face in outward for one in face.addresses)
            return (*local, *ours)
        return tuple(dict.fromkeys(one.network for face in outward for one in face.addresses))

    def announcing(self, bound: Address) -> tuple[str | int, ...]:
        """Return where mDNS is to be spoken: IPv4 addresses, and numbers of IPv6 interfaces.

        Loopback is always among them, so that nodes of one machine meet without a network.
        """
        ip = ipaddress.ip_address(bound[0])
        outward = [face for face in self.interfaces if not face.is_loopback]
        outward.sort(key=lambda face: (face.is_software, not self._is_default(face), face.index))
        found: list[str | int] = ["127.0.0.1"]
        if ip.is_loopback:
            return tuple(found)
        for face in outward[:MAX_ANNOUNCING]:
            found += [str(one.ip) for one in face.addresses if one.version == 4]
            six = [one for one in face.addresses if one.version == 6]
            if face.is_software:  # each container brings one that leads to that container alone
                six = [one for one in six if not one.ip.is_link_local]
            if ip.version == 6 and six:
                found.append(face.index)
        return tuple(found)

    def _order(
        self, face: Interface, ip: IpAddress, proven: Collection[str]
    ) -> tuple[Rank, bool, bool, int, int]:
        if str(ip) in self.default_hosts:
            rank = Rank.DEFAULT_ROUTE
        else:
            rank = Rank.SOFTWARE if face.is_software else Rank.ORDINARY
        # A link-local IPv4 address serves only where two machines share a bare cable.
        return rank, str(ip) not in proven, ip.is_link_local, ip.version, face.index

    def _is_default(self, face: Interface) -> bool:
        return any(str(one.ip) in self.default_hosts for one in face.addresses)


def read_interfaces() -> InterfaceTable:
    """Ask the system. It takes a millisecond or so for each dozen interfaces."""
    up = {name: facts for name, facts in psutil.net_if_stats().items() if facts.isup}
    unusable = _unusable_addresses()
    faces = []
    for name, entries in psutil.net_if_addrs().items():
        if name not in up:
            continue
        addresses = [
            _with_prefix(entry.address, entry.netmask)
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
        ]
        usable = tuple(one for one in addresses if str(one.ip) not in unusable)
        is_loopback = any(one.ip.is_loopback for one in usable)
        faces.append(Interface(name, _index(name), usable, is_loopback, is_software(name)))
    hosts = (source_host(address) for address in _ELSEWHERE)
    return InterfaceTable(tuple(faces), frozenset(host for host in hosts if host))


def reachable_addresses(bound: Address) -> tuple[Address, ...]:
    """Return where others may reach a socket bound to ``bound``, the likeliest first."""
    return read_interfaces().reachable(bound)


def source_host(destination: Address) -> str | None:
    """Return our address in what we would send to ``destination``; None where no route leads.

    Connecting a UDP socket asks the routing table and sends nothing.
    """
    try:
        version = ipaddress.ip_address(destination[0]).version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(sockaddr_of_address(destination, family))
            return str(ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]))
    except (OSError, ValueError):
        return None


def is_software(name: str) -> bool:
    """Tell whether software made the interface, by its name or by what Linux says of it."""
    if name.startswith(_SOFTWARE):
        return True
    facts = Path("/sys/class/net") / name
    return (facts / "bridge").exists() or (facts / "tun_flags").exists()


def _is_scoped(ip: IpAddress) -> bool:
    return ip.version == 6 and ip.is_link_local


def _with_prefix(address: str, netmask: str | None) -> IpInterface:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ones = int(ipaddress.ip_address(netmask)).bit_count() if netmask else None
    prefix = ip.max_prefixlen if ones is None else ones
    return ipaddress.ip_interface(f"{ip}/{prefix}")


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:  # it has just vanished
        return 0


def _unusable_addresses() -> frozenset[str]:
    """Return the IPv6 addresses that the system still checks for duplicates, or found to be one."""
    if sys.platform != "linux":
        return frozenset()
    return frozenset(_unusable_lines())


def _unusable_lines() -> Iterator[str]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/net/if_inet6").read_text("ascii").splitlines():
            digits, _, _, _, flags, *_ = line.split()
            if int(flags, 16) & _NOT_USABLE:
                yield str(ipaddress.IPv6Address(int(digits, 16)))
