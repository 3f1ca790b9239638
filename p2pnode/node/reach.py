"""Where a node is on the network: its own addresses, and which others are near."""

import ipaddress
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pnode.sansio import Address

_BROADCAST = "255.255.255.255"

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Reach:
    """A node's place on the network at one moment.

    Attributes:
        addresses: Where others can reach it, the likeliest first.
        networks: The subnets on its own links; None where they are not known, and everything
            counts as near.
        hosts: Every address of its machine.
        outward: What of it is on interfaces that lead away from the machine; None where that is
            not known, and all of it counts.
    """

    addresses: tuple[Address, ...]
    networks: tuple[IpNetwork, ...] | None = None
    hosts: frozenset[str] = field(default=frozenset(), repr=False)
    outward: "Reach | None" = field(default=None, repr=False)

    def has_moved_from(self, before: "Reach") -> bool:
        """Tell whether the machine is elsewhere than ``before``: others reach it differently.

        Bridges that software makes are left out, and so is which address is the likeliest.
        """
        return _place(self.outward or self) != _place(before.outward or before)

    def is_near(self, address: Address) -> bool:
        """Tell whether ``address`` is on a link of ours."""
        if self.networks is None:
            return True
        ip = _parse(address[0])
        return ip is not None and any(
            ip.version == network.version and ip in network for network in self.networks
        )

    def is_ours(self, address: Address) -> bool:
        """Tell whether ``address`` is this node's own: nobody else answers there.

        Two machines with Docker both have 172.17.0.1, and say so.
        """
        if address in self.addresses:
            return True
        ports = {port for _, port in self.addresses}
        return address[0] in self.hosts and address[1] in ports

    def order(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """Return those of another node's addresses to call, those on links of ours first.

        A record says what its owner likes. Nobody is called at our own addresses, at those that
        stand for many or for none, nor at loopback while we have another address.
        """
        others = [
            address
            for address in addresses
            if not self.is_ours(address) and self._is_callable(address)
        ]
        return tuple(sorted(others, key=lambda address: not self.is_near(address)))

    def _is_callable(self, address: Address) -> bool:
        ip = _parse(address[0])
        if ip is None or ip.is_multicast or ip.is_unspecified or str(ip) == _BROADCAST:
            return False
        return not ip.is_loopback or all(map(_is_loopback, self.addresses))


def _place(reach: Reach) -> tuple[frozenset[Address], frozenset[IpNetwork] | None]:
    networks = None if reach.networks is None else frozenset(reach.networks)
    return frozenset(reach.addresses), networks


def _is_loopback(address: Address) -> bool:
    ip = _parse(address[0])
    return ip is not None and ip.is_loopback


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
