"""The legs of one answer's chain: who runs which layers, and in what codings they may send.

Finding them is a pure function of frozen views (:class:`CoverTask`), safe in a thread; what is
numbered and remembered (:class:`Cover`) is not touched until its result is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.request import GenerationRequest, PlanView
from p2pnode.inference.terms import PLAIN, Terms, out_dtype, wanted
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun
from p2pnode.wire.states import Rung

FoundT = TypeVar("FoundT", ChainPlan, tuple[StageRun, ...])

_F16 = frozenset({Rung.F16})
_UNCODED = frozenset({str(Rung.F32), str(Rung.F16)})  # each batch alike, whatever it holds


@dataclass(frozen=True, slots=True)
class Leg:
    """One stage of the chain.

    Attributes:
        number: Names it to its peer through all epochs.
        run: Who it is, and its layers.
        out_dtype: ``f32``, or ``f16`` at a cut of the first chain where the session rounds.
        rungs: The codings that it and the next both read, and the answer may use.
    """

    number: int
    run: StageRun
    out_dtype: str
    rungs: frozenset[Rung]


@dataclass(frozen=True, slots=True)
class Covered:
    """Peers for all the layers that lacked some.

    Attributes:
        view: The picture that they were found in, under whatever standing.
        plan: A first chain; None for a repair.
        instead: For each lost leg, by number, who takes its place.
    """

    view: PlanView
    plan: ChainPlan | None = None
    instead: Mapping[int, tuple[StageRun, ...]] = field(default_factory=dict)

    @property
    def cost_us(self) -> float:
        """What the replacements cost a token, in microseconds."""
        return sum([run.cost_us for runs in self.instead.values() for run in runs], 0.0)


@dataclass(frozen=True, slots=True)
class CoverTask:
    """A question for peers, with all that its answer depends on.

    Attributes:
        views: The swarm without those not to be used, one picture of it and at least one view; for
            each lost leg the first that covers it is taken.
        legs: The chain as it is; empty before the first.
        lost: Numbers of those to replace.
        path: The nodes that a token visits, the requester first and last.
        calibrated: Whether codings were used that exist only with a calibration.
        is_wanted: Whether anybody waits for the answer still; asked in the thread too, before each
            search, and the one thing here that changes.
        numerics: How the layers of each lost leg were computed, by its number.
    """

    views: tuple[PlanView, ...]
    legs: tuple[Leg, ...]
    lost: frozenset[int]
    path: tuple[NodeId, ...]
    calibrated: bool
    is_wanted: Callable[[], bool] = lambda: True
    numerics: Mapping[int, int] = field(default_factory=dict)

    @property
    def is_brief(self) -> bool:
        """Whether it may be called at once, though no view but the last has a cover."""
        return self.views[0].is_brief_for(len(self.views))

    def __call__(self) -> Covered | NoCover:
        if not self.legs:
            plan = self._first(lambda view: view.chain())
            return plan if isinstance(plan, NoCover) else Covered(self.views[0], plan)
        instead: dict[int, tuple[StageRun, ...]] = {}
        sent = _F16
        for index, leg in enumerate(self.legs):
            if leg.number in self.lost:
                runs = self._instead_of(index, sent)
                if isinstance(runs, NoCover):
                    return runs
                instead[leg.number] = runs
            sent = leg.rungs
        return Covered(self.views[0], None, instead)

    def _first(self, search: Callable[[PlanView], FoundT | NoCover]) -> FoundT | NoCover:
        """Return what the first view finds that finds anything, or what the first one lacks."""
        missing: NoCover | None = None
        for view in self.views:
            if not self.is_wanted():
                break
            found = search(view)
            if not isinstance(found, NoCover):
                return found
            missing = missing or found
        return missing or NoCover((), (), ())

    def _instead_of(self, index: int, sent: frozenset[Rung]) -> tuple[StageRun, ...] | NoCover:
        """Cover one lost leg, by itself: that another has a bad peer alone left needs none here."""
        leg, ends = self.legs[index], (self.path[index], self.path[index + 2])
        return self._first(lambda view: self._in(view, leg, sent, ends))

    def _in(
        self, view: PlanView, lost: Leg, sent: frozenset[Rung], ends: tuple[NodeId, NodeId]
    ) -> tuple[StageRun, ...] | NoCover:
        """Cover the layers of ``lost`` by peers that read what was ``sent`` there, and code so."""
        codes = lost.rungs
        if not self.calibrated:  # then nothing was sent that exists only with a calibration
            sent, codes = sent & PLAIN, codes & PLAIN
        excluded: dict[NodeId, str] = {}
        while True:
            like = self.numerics.get(lost.number, 0)
            runs = view.repair(lost.run.layers, ends, excluded, lost.out_dtype, like)
            if isinstance(runs, NoCover):
                return runs
            asked = ((runs[0].peer, sent), (runs[-1].peer, codes))
            unfit = [peer for peer, rungs in asked if not rungs <= view.rungs(peer)]
            if not unfit or unfit[0] in excluded:
                return runs
            excluded[unfit[0]] = "does not read the codings of this answer"


class Cover:
    """Numbers the legs of one answer, and says how they may code.

    Attributes:
        activations: How the answer's hidden states may travel.
        calibration: Names the calibrations to code by; 0 for none.
    """

    def __init__(
        self,
        request: GenerationRequest,
        config: InferenceConfig,
        node_id: NodeId,
        calibration: int,
    ) -> None:
        self.activations = request.activations or config.activations
        self.calibration = calibration
        self._kl_budget = config.kl_budget
        self._node_id = node_id
        self._rungs: Callable[[NodeId], frozenset[Rung]] = lambda _: _F16
        self._cuts = 1
        self._next_leg = 0

    @property
    def is_uncoded(self) -> bool:
        """Whether hidden states travel the same way whatever they are."""
        return self.activations in _UNCODED

    def apply(self, found: Covered, legs: Sequence[Leg]) -> tuple[Leg, ...]:
        """Return the chain with what was ``found`` in it."""
        self._rungs = found.view.rungs
        if found.plan is not None:
            self._cuts = max(1, len(found.plan.stages) - 1)
            return self._legs(found.plan.stages, None)
        made: list[Leg] = []
        for leg in legs:
            runs = found.instead.get(leg.number)
            made += (leg,) if runs is None else self._legs(runs, leg)
        return tuple(made)

    def terms(self, leg: Leg) -> Terms | None:
        """Return what ``leg`` may send; None where that is nothing coarser than f16."""
        if self.activations in _UNCODED or len(self._rungs(leg.run.peer)) < 2:
            return None
        share = self._kl_budget / self._cuts  # costs of cuts add up
        return Terms(self.activations, leg.rungs, share, self.calibration)

    def _legs(self, runs: tuple[StageRun, ...], lost: Leg | None) -> tuple[Leg, ...]:
        """Number ``runs``; with ``lost``, they take its place."""
        nodes = [*(run.peer for run in runs), self._node_id]
        legs: list[Leg] = []
        for index, run in enumerate(runs):
            self._next_leg += 1
            granted = self._granted(nodes[index], nodes[index + 1])
            if lost is None:
                legs.append(Leg(self._next_leg, run, out_dtype(self.activations), granted))
            elif index == len(runs) - 1:
                legs.append(Leg(self._next_leg, run, lost.out_dtype, lost.rungs))
            else:
                # A cut the first chain did not have carries f32 always: rounding would show.
                legs.append(Leg(self._next_leg, run, "f32", granted))
        return tuple(legs)

    def _granted(self, peer: NodeId, following: NodeId) -> frozenset[Rung]:
        """Return the codings that the answer may use between two nodes: those that both read."""
        if self.activations in _UNCODED:
            return _F16
        return self._rungs(peer) & self._rungs(following) & wanted(self.activations)
