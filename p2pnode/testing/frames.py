"""Inference cores joined by frames alone: no transport, no membership, every failure at will.

A kill at every token and every stage is too many runs for whole nodes; here one takes
milliseconds. Frames arrive late, out of order and, once, from beyond the grave.
"""

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from p2pnode.engine.base import Engine
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.core import Inference
from p2pnode.inference.draws import Draws, Grammars
from p2pnode.inference.events import (
    ComputeRequested,
    GenerationEvent,
    PlanRequested,
    SendFrame,
    SessionRefused,
    StageEnded,
    TokenProduced,
)
from p2pnode.inference.request import GenerationRequest, TrustBook
from p2pnode.inference.running import run_work
from p2pnode.inference.tensor_policy import Link
from p2pnode.inference.terms import LADDER
from p2pnode.inference.work import Work, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun
from p2pnode.scheduler.standing import Standing
from p2pnode.wire.calibration import CalibrationSet
from p2pnode.wire.states import Rung
from p2pnode.wire.vframe import Frame, MessageType, decode_frame_untrusted, encode_frame


def node_id(name: str) -> NodeId:
    """Return a made-up identity that is told apart at a glance."""
    return NodeId(name.encode().ljust(32, b"."))


@dataclass(slots=True)
class Roster:
    """A planner that knows who holds what, and takes the first who can, longest run first.

    Attributes:
        holders: Who holds which layers.
        n_layers: Of the model.
        dead: Those not to be used any more.
        reads: The codings that each reads; all, where it is not here.
        costs: What each promises a layer, in microseconds; nothing, where it is not here.
        brief: Whether it answers at once, or wants to be asked in a thread.
        numerics: How all say that they compute; 0 for nothing said.
    """

    holders: dict[NodeId, range] = field(default_factory=dict)
    n_layers: int = 0
    dead: set[NodeId] = field(default_factory=set)
    reads: dict[NodeId, frozenset[Rung]] = field(default_factory=dict)
    costs: dict[NodeId, float] = field(default_factory=dict)
    brief: bool = True
    numerics: int = 0

    def view(self, request: GenerationRequest, standing: Standing, now: float) -> "RosterView":
        """Return who holds what now."""
        del now
        unusable = frozenset({*request.avoid, *self.dead})
        return RosterView(
            dict(self.holders),
            self.n_layers,
            unusable,
            unusable.union(standing.excluded),
            dict(self.reads),
            dict(self.costs),
            self.brief,
            self.numerics,
        )


@dataclass(frozen=True, slots=True)
class RosterView:
    """What a :class:`Roster` knew at one moment."""

    holders: Mapping[NodeId, range]
    n_layers: int
    unusable: frozenset[NodeId]
    barred: frozenset[NodeId]
    reads: Mapping[NodeId, frozenset[Rung]]
    costs: Mapping[NodeId, float]
    brief: bool
    numerics: int = 0

    def is_brief_for(self, searches: int) -> bool:
        """Whether it wants to be asked at once, as the roster says."""
        del searches
        return self.brief

    def under(self, standing: Standing) -> "RosterView":
        """Return what it knew, with others barred."""
        return replace(self, barred=self.unusable.union(standing.excluded))

    def chain(self) -> ChainPlan | NoCover:
        """Cover all layers, preferring whoever was named first."""
        runs = self._cover(range(self.n_layers), self.barred)
        if isinstance(runs, NoCover):
            return runs
        cost = sum(run.cost_us for run in runs)
        return ChainPlan(runs, "latency", cost, 0.0, (), ())

    def repair(
        self,
        lost: range,
        ends: tuple[NodeId, NodeId],
        excluded: Mapping[NodeId, str],
        out_dtype: str,
        like: int,
    ) -> tuple[StageRun, ...] | NoCover:
        """Cover ``lost``."""
        del ends, out_dtype, like
        return self._cover(lost, self.barred | set(excluded))

    def rungs(self, peer: NodeId) -> frozenset[Rung]:
        """Return what ``peer`` reads."""
        return self.reads.get(peer, frozenset(LADDER))

    def _cover(self, layers: range, barred: frozenset[NodeId]) -> tuple[StageRun, ...] | NoCover:
        runs: list[StageRun] = []
        at = layers.start
        while at < layers.stop:
            reach = {
                peer: min(held.stop, layers.stop)
                for peer, held in self.holders.items()
                if at in held and peer not in barred
            }
            if not reach:
                return NoCover((range(at, layers.stop),), ("nobody holds them",), ())
            peer = max(reach, key=lambda one: reach[one])
            name = peer.rstrip(b".").decode()
            taken = range(at, reach[peer])
            cost = self.costs.get(peer, 0.0) * len(taken)
            runs.append(StageRun(peer, name, taken, cost, "test", self.numerics))
            at = reach[peer]
        return tuple(runs)


Behaviour: TypeAlias = Callable[[Work, WorkResult], tuple[float, WorkResult] | None]
"""What an engine makes of its work and the right result: something, seconds later; or nothing."""


class FrameNetwork:
    """Inference cores, their engines, and the frames between them, in virtual time.

    Attributes:
        behaviours: Of engines that do not simply compute.
        planning: Seconds that a plan takes which is not had at once.
        rate: Bytes a second at which each Think crosses, whatever else is on the way.
    """

    def __init__(
        self,
        seed: int,
        engines: Mapping[NodeId, Engine],
        config: InferenceConfig | None = None,
        *,
        calibrations: Mapping[NodeId, CalibrationSet] | None = None,
        trust: Callable[[], TrustBook] | None = None,
        grammars: Grammars | None = None,
    ) -> None:
        """``calibrations`` are of the nodes that have any; ``trust`` makes a book for each node.

        ``grammars`` compiles schemas for all of them, if any answer follows one.

        Every way is known and fast, unless :attr:`ways` says otherwise.
        """
        self.now = 0.0
        self.events: list[tuple[float, NodeId, GenerationEvent]] = []
        self.roster = Roster({peer: engine.layers for peer, engine in engines.items()})
        self.cores: dict[NodeId, Inference] = {}
        self.on_token: Callable[[TokenProduced], None] = lambda token: None
        self.on_frame: Callable[[Frame, NodeId], None] = lambda frame, destination: None
        self.ways: dict[NodeId, Link] = {}
        self.planning = 0.01
        self.rate = float("inf")
        self.behaviours: dict[NodeId, Behaviour] = {}
        self._rng = random.Random(seed)
        self._engines = dict(engines)
        self._draws = {peer: Draws(grammars) for peer in engines}
        self._engine_at: dict[NodeId, float] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for peer, engine in engines.items():
            self.roster.n_layers = engine.info.n_layers
            core = Inference(
                config or InferenceConfig(),
                peer,
                self.roster,
                random.Random(self._rng.random()),
                self,
                trust and trust(),
            )
            core.use_model(engine.info, (calibrations or {}).get(peer))
            core.serve(engine.info, engine.layers, 1 << 30)
            self.cores[peer] = core

    @property
    def space(self) -> int:
        """The model's space hash."""
        return next(iter(self._engines.values())).info.space_hash32

    def link(self, peer: NodeId) -> Link:
        """Return the way to ``peer``, from wherever it is asked."""
        return self.ways.get(peer, Link(goodput=1e8, delay=0.0005))

    def generate(self, requester: NodeId, request: GenerationRequest) -> int:
        number = self.cores[requester].generate(request, self.now)
        self._collect(requester)
        return number

    def kill(self, peer: NodeId, *, noticed_after: float = 0.05) -> None:
        """End ``peer`` at once; the others hear of it later."""
        self.roster.dead.add(peer)
        self._plan(noticed_after, lambda: self._notice(peer))

    def tokens(self, requester: NodeId, generation: int) -> list[int]:
        """Return the tokens shown so far, in the order in which they were shown."""
        return [
            event.token
            for _, peer, event in self.events
            if peer == requester
            and isinstance(event, TokenProduced)
            and event.generation == generation
        ]

    def run(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass."""
        end = self.now + seconds
        while True:
            due = min(
                (moment for peer in self._alive() if (moment := self.cores[peer].next_timeout())),
                default=end + 1,
            )
            at = self._agenda[0][0] if self._agenda else end + 1
            if min(due, at) > end:
                break
            self.now = max(self.now, min(due, at))
            if at <= due:
                heapq.heappop(self._agenda)[2]()
            else:
                self._fire()
        self.now = end

    def _fire(self) -> None:
        for peer in self._alive():
            self.cores[peer].handle_timeout(self.now)
            self._collect(peer)

    def _alive(self) -> list[NodeId]:
        return [peer for peer in self.cores if peer not in self.roster.dead]

    def _notice(self, dead: NodeId) -> None:
        for peer in self._alive():
            self.cores[peer].peer_lost(dead, "killed", self.now)
            self.cores[peer].peer_gone(dead)
            self._collect(peer)

    def _collect(self, peer: NodeId) -> None:
        for event in self.cores[peer].take_events():
            if isinstance(event, SendFrame):
                data = encode_frame(event.frame)
                self.on_frame(event.frame, event.peer)
                delay = 0.0 if event.peer == peer else self._rng.uniform(0.0001, 0.002)
                if event.peer != peer and event.frame.type is MessageType.THINK:
                    delay += len(data) / self.rate
                self._plan(delay, self._arrival(data, peer, event.peer))
            elif isinstance(event, ComputeRequested):
                delay = self._rng.uniform(0.0005, 0.002)
                # An engine takes what it is given in that order, whatever else is late.
                at = max(self.now + delay, self._engine_at.get(peer, 0.0))
                self._engine_at[peer] = at
                self._plan(at - self.now, self._computing(peer, event))
            elif isinstance(event, PlanRequested):
                self._plan(self.planning, self._planning(peer, event))
            elif not isinstance(event, StageEnded | SessionRefused):
                self.events.append((self.now, peer, event))
                if isinstance(event, TokenProduced):
                    self.on_token(event)

    def _arrival(self, data: bytes, source: NodeId, destination: NodeId) -> Callable[[], None]:
        def arrive() -> None:
            if destination in self.roster.dead:
                return
            core = self.cores[destination]
            try:
                core.receive_frame_untrusted(decode_frame_untrusted(data), source, self.now)
            except RemoteProtocolError as error:
                core.counters[f"refused: {error}"] += 1
            self._collect(destination)

        return arrive

    def _planning(self, peer: NodeId, event: PlanRequested) -> Callable[[], None]:
        def plan() -> None:
            if peer not in self.roster.dead:
                self.cores[peer].planned(event.generation, event.ticket, event.task(), self.now)
                self._collect(peer)

        return plan

    def _computing(self, peer: NodeId, event: ComputeRequested) -> Callable[[], None]:
        def compute() -> None:
            if peer in self.roster.dead or event.job not in self.cores[peer].jobs:
                return  # nobody waits for it, as in a node; its cache may be freed already
            result = run_work(self._engines[peer], event.work, lambda: self.now, self._draws[peer])
            behaviour = self.behaviours.get(peer)
            if behaviour is None:
                finish(result)
                return
            changed = behaviour(event.work, result)
            if changed is not None:
                self._plan(changed[0], lambda: finish(changed[1]))

        def finish(result: WorkResult) -> None:
            if peer not in self.roster.dead:
                self.cores[peer].compute_finished(event.job, result, self.now)
                self._collect(peer)

        return compute

    def _plan(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (self.now + delay, self._count, action))
