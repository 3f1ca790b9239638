"""What a generation is asked for, and whom it asks for peers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from p2pnode.engine.sampling.options import Sampling
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun
from p2pnode.scheduler.held import Held
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.route import Objective
from p2pnode.scheduler.standing import Standing
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
        lost_wait: The same for layers lost later; None for the node's setting, or ``wait`` if that
            is longer.
        prefer: Peers to use where possible.
        avoid: Peers to spare.
        objective: ``latency`` or ``throughput``.
        activations: How stages send each other hidden states; None for the node's setting.
        notes: What its plan should say besides, in plain words: requests that nobody can meet.
        space: Names the model that is to answer; 0 for the first of the node.
        held: Who may hold the prompt's beginning, where the node that asks knows of it.
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
    lost_wait: float | None = None
    space: int = 0
    held: Held | None = None

    @property
    def positions(self) -> int:
        return len(self.prompt) + self.max_tokens


class PlanView(Protocol):
    """A frozen picture of the swarm, for one answer at one moment; safe to use in a thread."""

    def is_brief_for(self, searches: int) -> bool:
        """Whether so many answers take so little time that they may be had at once."""

    def under(self, standing: Standing) -> "PlanView":
        """Return the same picture, with another ``standing`` out of the same book."""

    @property
    def rungs(self) -> Callable[[NodeId], frozenset[Rung]]:
        """The codings of hidden states that a peer has advertised; f16 always."""

    def chain(self) -> ChainPlan | NoCover:
        """Return the best chain over all layers."""

    def repair(
        self,
        lost: range,
        ends: tuple[NodeId, NodeId],
        excluded: Mapping[NodeId, str],
        out_dtype: str,
        like: int,
    ) -> tuple[StageRun, ...] | NoCover:
        """Cover ``lost``, between the nodes at its two ``ends``, without the ``excluded``.

        The last of the cover sends ``out_dtype``, each before it f32. Preferred is who computes
        ``like`` the lost one.
        """


class Planner(Protocol):
    """Finds peers; a node answers from its directory of live ads."""

    def view(self, request: GenerationRequest, standing: Standing, now: float) -> PlanView:
        """Return a picture of this moment; whom ``standing`` excludes is not used."""


class TrustBook(Protocol):
    """Keeps what peers did to our answers: :class:`p2pnode.scheduler.trust.Ledger`."""

    def note(
        self, peer: NodeId, offence: Offence, evidence: str, now: float, *, share: float = 1.0
    ) -> None:
        """Enter an offence; ``share`` of the blame is the peer's."""

    def served(self, peer: NodeId, tokens: int, now: float) -> None:
        """Note good conduct."""

    def observed(self, peer: NodeId, layer_us: float, now: float) -> None:
        """Note a measured speed, in microseconds a layer."""

    def took_at_most(self, peer: NodeId, layer_us: float, now: float) -> None:
        """Note that a token took ``peer`` no longer, in microseconds a layer."""

    def standing(self, now: float) -> Standing:
        """Return whom not to plan, and more that a plan goes by."""
