"""Planning in trio's pool: among many peers it takes longer than the loop has."""

from p2pnode.inference.cover import Covered
from p2pnode.inference.events import PlanRequested
from p2pnode.net.jobs import Failed, Finished
from p2pnode.net.reactor import Reactor
from p2pnode.node.core import NodeCore
from p2pnode.node.events import NodeEvent, PlacementRequested
from p2pnode.scheduler.chain import NoCover
from p2pnode.scheduler.placement import Placement


def offload_plan(reactor: Reactor[NodeCore, NodeEvent], asked: PlanRequested) -> None:
    """Find peers for an answer, and tell the core."""

    def done(core: NodeCore, outcome: Finished[Covered | NoCover] | Failed, now: float) -> None:
        core.planned(asked.generation, asked.ticket, outcome.unwrap(), now)

    reactor.offload(asked.task, done)


def offload_placement(reactor: Reactor[NodeCore, NodeEvent], asked: PlacementRequested) -> None:
    """Find layers to hold, and tell the core."""

    def done(core: NodeCore, outcome: Finished[Placement | None] | Failed, now: float) -> None:
        core.placed(asked.space, asked.ticket, outcome.unwrap(), now)

    reactor.offload(asked.task, done)
