"""The legs of one answer's chain: who runs which layers, and in what codings they may speak."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.request import GenerationRequest, Planner
from p2pnode.inference.terms import PLAIN, Terms, wanted
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun
from p2pnode.wire.states import Rung

_F16 = frozenset({Rung.F16})


@dataclass(frozen=True, slots=True)
class Leg:
    """One stage of the chain.

    Attributes:
        number: Names it to its peer through all epochs.
        run: Who it is, and its layers.
        out_dtype: ``f32`` at a cut that a repair added, else ``f16``.
        rungs: The codings that it and the next both read, and the answer may use.
    """

    number: int
    run: StageRun
    out_dtype: str
    rungs: frozenset[Rung]


class Cover:
    """Makes the legs of one answer, and replaces those that are lost.

    Attributes:
        activations: How the answer's hidden states may travel.
        calibration: Names the calibrations to code by; 0 for none.
    """

    def __init__(
        self,
        request: GenerationRequest,
        config: InferenceConfig,
        planner: Planner,
        node_id: NodeId,
        calibration: int,
    ) -> None:
        self.activations = request.activations or config.activations
        self.calibration = calibration
        self._request = request
        self._kl_budget = config.kl_budget
        self._planner = planner
        self._node_id = node_id
        self._cuts = 1
        self._next_leg = 0

    def first(self, plan: ChainPlan) -> tuple[Leg, ...]:
        """Return the legs of the first chain."""
        self._cuts = max(1, len(plan.stages) - 1)
        return self._legs(plan.stages, None)

    def repaired(
        self,
        legs: Sequence[Leg],
        lost: frozenset[int],
        path: Sequence[NodeId],
        distrusted: Mapping[NodeId, str],
    ) -> tuple[Leg, ...] | NoCover:
        """Return ``legs`` with the ``lost`` ones replaced.

        Args:
            legs: The chain as it was.
            lost: Numbers of those to replace.
            path: The nodes that a token visits, the requester first and last.
            distrusted: Peers not to use, each with the reason.
        """
        made: list[Leg] = []
        for index, leg in enumerate(legs):
            if leg.number not in lost:
                made.append(leg)
                continue
            sent = made[-1].rungs if made else _F16
            runs = self._runs(leg, sent, (path[index], path[index + 2]), distrusted)
            if isinstance(runs, NoCover):
                return runs
            made += self._legs(runs, leg)
        return tuple(made)

    def terms(self, leg: Leg) -> Terms | None:
        """Return what ``leg`` may send; None where all is f16, or its peer knows nothing else."""
        if self.activations == Rung.F16 or len(self._planner.rungs(leg.run.peer)) < 2:
            return None
        share = self._kl_budget / self._cuts  # costs of cuts add up
        return Terms(self.activations, leg.rungs, share, self.calibration)

    def _runs(
        self,
        lost: Leg,
        sent: frozenset[Rung],
        ends: tuple[NodeId, NodeId],
        distrusted: Mapping[NodeId, str],
    ) -> tuple[StageRun, ...] | NoCover:
        """Cover the layers of ``lost`` by peers that read what was ``sent`` there, and code so."""
        codes = lost.rungs
        if not self.calibration:  # then nothing was sent that exists only with one
            sent, codes = sent & PLAIN, codes & PLAIN
        while True:
            runs = self._planner.repair(self._request, lost.run.layers, ends, distrusted)
            if isinstance(runs, NoCover):
                return runs
            asked = ((runs[0].peer, sent), (runs[-1].peer, codes))
            unfit = [peer for peer, rungs in asked if not rungs <= self._planner.rungs(peer)]
            if not unfit or unfit[0] in distrusted:
                return runs
            distrusted = {**distrusted, unfit[0]: "does not read the codings of this answer"}

    def _legs(self, runs: tuple[StageRun, ...], lost: Leg | None) -> tuple[Leg, ...]:
        """Number ``runs``; with ``lost``, they take its place."""
        nodes = [*(run.peer for run in runs), self._node_id]
        legs: list[Leg] = []
        for index, run in enumerate(runs):
            self._next_leg += 1
            granted = self._granted(nodes[index], nodes[index + 1])
            if lost is None:
                legs.append(Leg(self._next_leg, run, "f16", granted))
            elif index == len(runs) - 1:
                legs.append(Leg(self._next_leg, run, lost.out_dtype, lost.rungs))
            else:
                # A cut the first chain did not have carries f32: rounding there would show.
                legs.append(Leg(self._next_leg, run, "f32", granted))
        return tuple(legs)

    def _granted(self, peer: NodeId, following: NodeId) -> frozenset[Rung]:
        """Return the codings that the answer may use between two nodes: those that both read."""
        if self.activations == Rung.F16:
            return _F16
        return self._planner.rungs(peer) & self._planner.rungs(following) & wanted(self.activations)
