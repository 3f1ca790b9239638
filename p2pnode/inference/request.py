"""What a generation is asked for, and whom it asks for peers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from p2pnode.engine.base import Sampling
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun
from p2pnode.scheduler.route import Objective
from p2pnode.wire.states import Rung


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to answer and how.

    Attributes:
        prompt: Token ids, at least one.
        max_tokens: Most tokens to produce, at least one.
        sampling: How to draw them.
        stop: Token ids that end the answer.
        wait: Seconds to wait for peers that cover the model before the first token.
        prefer: Peers to use where possible.
        avoid: Peers to spare.
        objective: ``latency`` or ``throughput``.
        activations: How stages send each other hidden states; None for the node's setting.
        notes: What its plan should say besides, in plain words: wishes that nobody can fulfil.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop: frozenset[int]
    wait: float = 0.0
    prefer: frozenset[NodeId] = frozenset()
    avoid: frozenset[NodeId] = frozenset()
    objective: Objective = "latency"
    activations: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def positions(self) -> int:
        return len(self.prompt) + self.max_tokens


class Planner(Protocol):
    """Finds peers; a node answers from its directory of live ads.

    ``distrusted`` are peers not to use, each with the reason as a clause ("has refused ...").
    """

    def chain(
        self, request: GenerationRequest, distrusted: Mapping[NodeId, str]
    ) -> ChainPlan | NoCover: ...

    def repair(
        self,
        request: GenerationRequest,
        lost: range,
        ends: tuple[NodeId, NodeId],
        distrusted: Mapping[NodeId, str],
    ) -> tuple[StageRun, ...] | NoCover:
        """Cover ``lost``, between the nodes at its two ``ends``."""

    def rungs(self, peer: NodeId) -> frozenset[Rung]:
        """Return the codings of hidden states that ``peer`` has advertised; f16 always."""
