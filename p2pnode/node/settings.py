"""What a person chooses about one node."""

from dataclasses import dataclass
from pathlib import Path

from p2pnode.engine.registry import DEFAULT_OPTIONS, EngineOptions
from p2pnode.node.config import NodeConfig
from p2pnode.sansio import Address


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that a node is to have.

    Attributes:
        path: Its file, or the folder of a checkpoint.
        layers: Those to hold of it; None for what the swarm needs.
        called: What a person called it, if anything.
    """

    path: Path
    layers: range | None = None
    called: str = ""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Chosen before it starts, and for as long as it runs.

    Attributes:
        config: The core's settings.
        state: Its state directory.
        models: Its models, the first one for whoever names none; none for a node without a model.
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
    models: tuple[ModelChoice, ...] = ()
    hold: bool = True
    host: str = "::"
    port: int = 0
    peers: tuple[Address, ...] = ()
    mdns: bool = True
    engine: EngineOptions = DEFAULT_OPTIONS
    limits: tuple[str, ...] = ()
