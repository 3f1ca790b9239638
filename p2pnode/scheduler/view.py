"""What one plan is made from: a frozen picture of the swarm, and the questions it answers.

Taking the picture is cheap; answering may not be, and needs nothing but the picture. So whoever
holds one may answer at once or hand it to a thread, as :attr:`PlanView.is_brief` advises, and a
whole cover is computed from one picture of the swarm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun, chain_along, stages_along
from p2pnode.scheduler.cost import (
    HIDDEN_VALUE_BYTES,
    CostConfig,
    Goodput,
    Hops,
    RttsUs,
    RttUs,
)
from p2pnode.scheduler.directory import NOTHING_MORE, Demand, KvBytes, Offer, Refusal, room_of, sift
from p2pnode.scheduler.estimate import Estimate, StageLoad, estimate
from p2pnode.scheduler.held import Held
from p2pnode.scheduler.pricing import price_in_trust
from p2pnode.scheduler.route import Objective, Route
from p2pnode.scheduler.standing import Standing
from p2pnode.wire.ad import Ability
from p2pnode.wire.states import Rung

BRIEF = 1_000
"""Layers times peers up to which a search takes less than 5 ms; measured on two cores of 2025."""

_MANY = 200
"""Offers, of other models too, whose mere sorting takes as long."""

_FEW_TWICE = 2
"""Places among which even the search that counts memory is brief."""

_NOBODY: Mapping[NodeId, str] = MappingProxyType({})
_F16 = frozenset({Rung.F16})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a session asks of any chain.

    Attributes:
        requester: Who asks; the chain begins and ends there.
        space_hash32: The embedding space of the model.
        n_layers: Its layers.
        d_model: The width of its hidden states.
        kv_bytes_needed: KV memory that a run of layers takes for this session.
        objective: What to make small: the time of a token, or that of the slowest stage.
        prefer: Peers to use for as many layers as they can do.
        avoid: Peers to use only for layers that nobody else can do.
        notes: What the plan should say besides, in plain words.
        kv_bytes_at_cut: The same memory for a run that passes f32 on, as those before a cut that a
            repair adds do; None if that takes no more.
        needs: What whoever draws the tokens must be able to.
        held: A chain that holds the prompt's beginning; None for none.
        value_bytes: Bytes that a hidden value takes on the wire, at the most, at the cuts of the
            first chain: 4 for f32, 2 for f16 and what is coarser.
        prompt: Tokens of the prompt; 0 where nothing is to be said of what it takes.
        chunk: Tokens of it that are computed as one batch.
    """

    requester: NodeId
    space_hash32: int
    n_layers: int
    d_model: int
    kv_bytes_needed: KvBytes
    objective: Objective = "latency"
    prefer: frozenset[NodeId] = frozenset()
    avoid: frozenset[NodeId] = frozenset()
    notes: tuple[str, ...] = ()
    kv_bytes_at_cut: KvBytes | None = None
    value_bytes: int = HIDDEN_VALUE_BYTES
    needs: Ability = NOTHING_MORE
    prompt: int = 0
    chunk: int = 64

    held: Held | None = None

    @property
    def most_kv_bytes(self) -> KvBytes:
        """The memory that a run takes at the most, whatever it passes on."""
        return self.kv_bytes_at_cut or self.kv_bytes_needed


@dataclass(frozen=True, slots=True, eq=False)
class PlanView:
    """A picture of the swarm at one moment, for one session. Safe to use in a thread.

    Attributes:
        wanted: What is asked.
        offers: What all known peers offer.
        rtt_us: Round trips; None for the unmeasured.
        standing: Whom the ledger trusts.
        rungs: The codings of hidden states that a peer has advertised; f16 always.
        goodput: Rates of large messages, where known.
        costs: Prices of what is unmeasured.
        rtts_us: The round trips of many at once.
        taken_at: The moment.
    """

    wanted: Wanted
    offers: tuple[Offer, ...]
    rtt_us: RttUs
    standing: Standing = field(default_factory=Standing)
    rungs: Callable[[NodeId], frozenset[Rung]] = lambda _: _F16
    goodput: Goodput | None = None
    costs: CostConfig = field(default_factory=CostConfig)
    rtts_us: RttsUs | None = None
    taken_at: float = 0.0

    def chain(self) -> ChainPlan | NoCover:
        """Return the best chain over all layers."""
        wanted = self.wanted
        ends = (wanted.requester, wanted.requester)
        demand = self._demand(wanted.kv_bytes_needed)
        found = chain_along(*self._route(ends, range(wanted.n_layers), demand, wanted.objective))
        if isinstance(found, ChainPlan) and wanted.prompt:
            found = replace(found, estimate=self._estimate(found))
        return replace(found, reasons=(*found.reasons, *wanted.notes)) if wanted.notes else found

    def repair(
        self,
        lost: range,
        ends: tuple[NodeId, NodeId],
        excluded: Mapping[NodeId, str] = _NOBODY,
        out_dtype: str = "f32",
        like: int = 0,
    ) -> tuple[StageRun, ...] | NoCover:
        """Return peers for exactly the ``lost`` layers, which a running session has lost.

        Fewest stages first, since each one is opened and replayed before the answer goes on; then
        the time of a token.

        Args:
            lost: Covered exactly; peers that still serve the session may be chosen too.
            ends: Who sends into it (the stage before, or the requester), and who receives from it.
            excluded: Not to be used either, beside those whom the ledger excludes. Whoever was lost
                belongs there, since membership may learn of its death later.
            out_dtype: What the last of the found passes on, as the lost one did; each before it
                passes on f32.
            like: The numerics that the lost ones computed with, preferred; 0 if that is unknown.
        """
        most = self.wanted.most_kv_bytes
        if out_dtype != "f16":
            return self._repair(lost, ends, excluded, most, like)
        found = self._repair(lost, ends, excluded, self.wanted.kv_bytes_needed, like)
        if isinstance(found, NoCover) or self._can_pass_f32_on(found[:-1]):
            return found
        # Who comes last is not known before a search, so now each has room for f32. If that leaves
        # nobody, the last may be who has not, and needs less.
        roomy = self._repair(lost, ends, excluded, most, like)
        return found if isinstance(roomy, NoCover) else roomy

    def under(self, standing: Standing) -> "PlanView":
        """Return the same picture where the ledger trusts others; it says the same of addresses."""
        return replace(self, standing=standing)

    @property
    def is_brief(self) -> bool:
        """Whether an answer takes less than 5 ms, so that it may be had at once."""
        return self.is_brief_for(1)

    def is_brief_for(self, searches: int) -> bool:
        """Whether so many answers take less than 5 ms together.

        Where memory is short, or no peer may be visited twice, the search may take far longer.
        """
        wanted = self.wanted
        ours = [offer for offer in self.offers if offer.space_hash32 == wanted.space_hash32]
        places, boundaries = len(ours), wanted.n_layers
        if len({offer.ad.numerics for offer in ours}) > 1:
            searches *= 2  # a second looks for a chain that computes alike
        if wanted.objective != "latency":
            return places <= _FEW_TWICE
        if searches * places * boundaries > BRIEF or searches * len(self.offers) > _MANY:
            return False
        most = wanted.most_kv_bytes
        return places <= _FEW_TWICE or all(room_of(o, most) == len(o.layers) for o in ours)

    def _repair(
        self,
        lost: range,
        ends: tuple[NodeId, NodeId],
        excluded: Mapping[NodeId, str],
        kv_bytes_needed: KvBytes,
        like: int,
    ) -> tuple[StageRun, ...] | NoCover:
        demand = self._demand(kv_bytes_needed, excluded)
        return stages_along(*self._route(ends, lost, demand, "latency", few_stages=True, like=like))

    def _can_pass_f32_on(self, runs: tuple[StageRun, ...]) -> bool:
        """Whether there is room for that where these run."""
        counts: dict[NodeId, list[int]] = {}
        for run in runs:
            counts.setdefault(run.peer, []).append(len(run.layers))
        most = self.wanted.most_kv_bytes
        return all(
            offer.ad.kv_free_bytes
            >= sum(most(count, offer.ad.kv_bytes_per_token_layer) for count in counts[offer.peer])
            for offer in self.offers
            if offer.peer in counts
        )

    def _estimate(self, plan: ChainPlan) -> Estimate:
        """Return what the chain should take for this session, beside those it serves now."""
        ads, wanted = {offer.peer: offer.ad for offer in self.offers}, self.wanted
        stages = [
            StageLoad(ads[run.peer], len(run.layers), run.layers.stop == wanted.n_layers)
            for run in plan.stages
        ]
        held, prompt = wanted.held, wanted.prompt
        if held is not None and held.runs == tuple((run.peer, run.layers) for run in plan.stages):
            prompt -= held.positions
        return estimate(stages, sum(plan.hop_us, 0.0), prompt, wanted.chunk)

    def _demand(self, kv_bytes_needed: KvBytes, excluded: Mapping[NodeId, str] = _NOBODY) -> Demand:
        return Demand(
            self.wanted.space_hash32,
            self.wanted.n_layers,
            self.wanted.d_model,
            kv_bytes_needed,
            {**self.standing.excluded, **excluded},
            self.wanted.needs,
        )

    def _route(
        self,
        ends: tuple[NodeId, NodeId],
        layers: range,
        demand: Demand,
        objective: Objective,
        *,
        few_stages: bool = False,
        like: int = 0,
    ) -> tuple[Route, tuple[Refusal, ...]]:
        """Return what to search, and who cannot serve there; ``few_stages`` for a repair."""
        wanted = self.wanted
        candidates, refusals = sift(self.offers, demand)
        # A peer that cannot serve now still tells how long this model takes.
        same_model = (offer for offer in self.offers if offer.space_hash32 == wanted.space_hash32)
        prices = price_in_trust(same_model, self.costs, self.standing, wanted.requester)
        route = Route(
            source=ends[0],
            sink=ends[1],
            layers=layers,
            demand=demand,
            candidates=candidates,
            prices=prices,
            hops=Hops(self.rtt_us, self.goodput, self.costs, self.rtts_us),
            objective=objective,
            prefer=wanted.prefer,
            avoid=wanted.avoid,
            held=None if few_stages else wanted.held,
            few_stages=few_stages,
            like=like,
            end_value_bytes=wanted.value_bytes,
            cut_value_bytes=HIDDEN_VALUE_BYTES if few_stages else wanted.value_bytes,
        )
        return route, refusals
