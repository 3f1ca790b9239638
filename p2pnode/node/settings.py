"""What a person chooses about one node."""

from dataclasses import dataclass
from pathlib import Path

from p2pnode.engine.registry import DEFAULT_OPTIONS, EngineOptions
from p2pnode.node.config import NodeConfig
from p2pnode.sansio import Address


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Chosen before it starts, and for as long as it runs.

    Attributes:
        config: The core's settings.
        state: Its state directory.
        model: A model; None for a node without a model.
        hold: Whether to take on layers; a mere requester does not.
        host: Address to bind; ``::`` is every interface, IPv4 included.
        port: UDP port; 0 lets the system choose.
        peers: Addresses to call, beside those remembered.
        mdns: Whether to announce and to look around on the local network.
        engine: What computes.
        limits: What its owner said that it may take, in words; for people.
    """

    config: NodeConfig
    state: Path
    model: Path | None = None
    hold: bool = True
    host: str = "::"
    port: int = 0
    peers: tuple[Address, ...] = ()
    mdns: bool = True
    engine: EngineOptions = DEFAULT_OPTIONS
    limits: tuple[str, ...] = ()
