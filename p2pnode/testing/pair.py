"""Endpoints of the transport on a virtual network, for tests and simulations."""

from random import Random

from p2pnode.errors import LocalProtocolError
from p2pnode.sansio import Address, NodeId
from p2pnode.testing.links import Link
from p2pnode.testing.network import VirtualNetwork
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery, MessageReceived, TransportEvent
from p2pnode.transport.identity import Identity

SECRET = bytes(range(32))


class Endpoints:
    """Some endpoints on one virtual network.

    Attributes:
        network: Where they are attached.
        endpoints: By address.
    """

    def __init__(self, seed: int, link: Link | None = None) -> None:
        self.seed = seed
        self.network = VirtualNetwork[Address, TransportEvent](seed, link)
        self.endpoints: dict[Address, Endpoint] = {}

    def add(
        self,
        name: str,
        *,
        config: TransportConfig | None = None,
        secret: bytes = SECRET,
        identity: str | None = None,
    ) -> Address:
        """Attach a new endpoint; its address is (``name``, 1), its key follows from the name.

        Adding a name again is the process started anew.
        """
        address = (name, 1)
        endpoint = Endpoint(
            config or TransportConfig.simulation(),
            identity_of(identity or name),
            secret,
            Random(f"{self.seed} {name} {self.network.now}"),
            self.network.now,
        )
        self.endpoints[address] = endpoint
        self.network.attach(address, endpoint)
        return address

    def node_id(self, address: Address) -> NodeId:
        return identity_of(address[0]).node_id

    def connect(self, source: Address, destination: Address, *, peer: NodeId | None = None) -> None:
        endpoint = self.endpoints[source]
        self.network.call(source, lambda now: endpoint.connect(destination, now, peer=peer))

    def send(
        self,
        source: Address,
        destination: Address,
        payload: bytes,
        delivery: Delivery = Delivery.LATENCY,
    ) -> None:
        endpoint, peer = self.endpoints[source], self.node_id(destination)

        def command(now: float) -> None:
            endpoint.send(peer, payload, delivery, now)

        self.network.call(source, command)

    def are_connected(self, one: Address, other: Address) -> bool:
        return self.endpoints[one].is_connected(self.node_id(other)) and self.endpoints[
            other
        ].is_connected(self.node_id(one))

    def events(self, address: Address) -> list[TransportEvent]:
        return [event for _, told, event in self.network.story if told == address]

    def received(self, address: Address) -> list[bytes]:
        """Return the messages delivered to ``address``, in order of arrival."""
        return [
            event.payload for event in self.events(address) if isinstance(event, MessageReceived)
        ]


def identity_of(name: str) -> Identity:
    """Return the identity that tests give to ``name``."""
    return Identity(name.encode().ljust(32, b"\0")[:32])


def connected_pair(
    seed: int, link: Link | None = None, *, config: TransportConfig | None = None
) -> tuple[Endpoints, Address, Address]:
    """Return two connected endpoints; the links are perfect until they are."""
    peers = Endpoints(seed)
    alice, bob = peers.add("alice", config=config), peers.add("bob", config=config)
    peers.connect(alice, bob)
    if not peers.network.run_until(lambda: peers.are_connected(alice, bob), 10):
        raise LocalProtocolError("two endpoints on a perfect link did not connect")
    if link is not None:
        peers.network.set_links(alice, bob, link)
    return peers, alice, bob
