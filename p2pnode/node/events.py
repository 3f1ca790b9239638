"""What a node core asks of the world, and tells it."""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.inference.events import ComputeRequested, GenerationEvent, PlanRequested
from p2pnode.sansio import Address, NodeId
from p2pnode.scheduler.moving import PlacementTask


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """Load ``layers`` of the model of ``space``, then call :meth:`NodeCore.layers_loaded`."""

    space: int
    layers: range
    reason: str


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """Free the engine of the model of ``space``, which is used no more."""

    space: int


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The engine of the model of ``space`` was freed: nothing of it is used any more."""

    space: int


@dataclass(frozen=True, slots=True)
class MeasureRequested:
    """Measure how fast the engine of a model is now, then call :meth:`NodeCore.measured`.

    Where that fails, call :meth:`NodeCore.measurement_failed`.
    """

    space: int


@dataclass(frozen=True, slots=True)
class PlacementRequested:
    """``task`` is to be called, which may take long; then call :meth:`NodeCore.placed`.

    Attributes:
        space: Names the model.
        ticket: Names the question; an answer to an older one is of no more use.
        task: A pure function, safe in a thread.
    """

    space: int
    ticket: int
    task: PlacementTask


@dataclass(frozen=True, slots=True)
class PeerReached:
    """A session with ``peer`` came up; worth remembering for the next start."""

    peer: NodeId
    address: Address


@dataclass(frozen=True, slots=True)
class Noted:
    """A line for the log: something a person may want to know.

    ``is_notice``: whoever runs the node hears of it as it happens.
    """

    line: str
    is_notice: bool = False


@dataclass(frozen=True, slots=True)
class FrameWaits:
    """A frame waits for the program that runs the node, where none did before."""


@dataclass(frozen=True, slots=True)
class Departed:
    """The node has left the swarm: everybody was told, and no session is open any more."""


NodeEvent: TypeAlias = (
    ComputeRequested
    | PlanRequested
    | GenerationEvent
    | LoadRequested
    | UnloadRequested
    | Unloaded
    | MeasureRequested
    | PlacementRequested
    | PeerReached
    | Noted
    | FrameWaits
    | Departed
)
