"""The inference core of a node: its own generations, and the stages it runs for others.

Its datagrams are V-Frames, so its inputs and outputs carry :class:`Frame` where other cores carry
bytes; otherwise it has the shape of them all.
"""

from collections import Counter
from collections.abc import Mapping

from p2pnode.engine.base import EXACT, KvSizes, ModelInfo, StageCost
from p2pnode.errors import GenerationError, RemoteProtocolError
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Covered
from p2pnode.inference.distrust import BriefDistrust
from p2pnode.inference.events import ComputeRequested, InferenceEvent
from p2pnode.inference.fits import check_fits
from p2pnode.inference.generation import Generation
from p2pnode.inference.host import StageHost
from p2pnode.inference.kept import KeptCaches
from p2pnode.inference.messages import Close, Open, Resume, from_body_untrusted
from p2pnode.inference.offered import Offered
from p2pnode.inference.outflow import Arriving, Queued
from p2pnode.inference.phase import Phase
from p2pnode.inference.prefix_names import Scope
from p2pnode.inference.prefixes import Prefixes
from p2pnode.inference.request import GenerationRequest, Planner, TrustBook
from p2pnode.inference.shares import IsProven, everybody
from p2pnode.inference.stage import Stage
from p2pnode.inference.tensor_policy import EdgeKey, EdgeState, Links
from p2pnode.inference.terms import fingerprint
from p2pnode.inference.work import WorkResult
from p2pnode.moments import earliest
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.batcher import EngineQueue
from p2pnode.scheduler.chain import NoCover
from p2pnode.scheduler.offences import Offence
from p2pnode.wire.calibration import CalibrationSet
from p2pnode.wire.capability import space_mismatch
from p2pnode.wire.messages import SyncError, parse_sync_untrusted
from p2pnode.wire.vframe import Frame, MessageType

_REMEMBERED = 32  # ended generations kept for the snapshot


class Inference:
    """Requester and stages of one node, behind one door.

    Attributes:
        held: Stages whose batches wait for room on the way to their peers: if any, :meth:`refill`.
        jobs: The work that somebody waits for; another thread may ask whether it is in here.
    """

    def __init__(
        self,
        config: InferenceConfig,
        node_id: NodeId,
        planner: Planner,
        rng: Rng,
        links: Links | None = None,
        trust: TrustBook | None = None,
        queued: Queued | None = None,
        is_proven: IsProven = everybody,
        arriving: Arriving = lambda _: 0,
        scope: Scope | None = None,
    ) -> None:
        """``links`` knows the ways to peers.

        ``trust`` keeps what peers did to answers; without it, that is forgotten in seconds.
        ``queued`` says how much is under way to a peer; without it, nothing is held back.
        ``arriving`` says how much came from a peer, of messages that are not complete.
        ``is_proven`` says whether a peer did something for its name; without it, all did.
        ``scope`` is that of requesters who agreed to share what their answers began with; without
        it, this node alone finds what was computed for it.
        """
        self._config = config
        self._node_id = node_id
        self._planner = planner
        self._trust: TrustBook = BriefDistrust(config.distrust) if trust is None else trust
        self._rng = rng
        self._models: dict[int, ModelInfo] = {}  # by space; the first is meant where none is named
        self._generations: dict[int, Generation] = {}
        self._live: list[Generation] = []  # those that have not ended, or were not heard since
        self._next_generation = 1
        self._events: list[InferenceEvent] = []
        self._calibrations: dict[int, int] = {}  # fingerprints
        self._retired: dict[int, str] = {}  # those about to go, and why
        self._scope = scope
        self._prefixes: Prefixes | None = None
        self._host = StageHost(config, node_id, links, queued, is_proven, arriving)
        self.held = self._host.held
        self.jobs = self._host.jobs
        self.counters: Counter[str] = Counter()

    # Commands

    def use_model(self, model: ModelInfo, calibrations: CalibrationSet | None = None) -> None:
        """Ask for answers of ``model``, too, from now on.

        ``calibrations`` are of its hidden states.
        """
        space = model.space_hash32
        self._models[space] = model
        self._calibrations[space] = fingerprint(calibrations)
        self._host.coding.use(space, calibrations)

    def retire(self, space: int, reason: str) -> None:
        """Begin no answer of a model any more, and admit no session; others are told ``reason``."""
        self._retired[space] = reason
        self._host.retire(space, reason)

    def drop_model(self, space: int, reason: str, now: float) -> None:
        """Ask for no more answers of a model, and run none of its layers.

        Answers of this node end; those of others are told ``reason``, and repaired.
        """
        if self._models.pop(space, None) is None:
            return
        self._retired.pop(space, None)
        for generation in self._generations.values():
            if generation.space == space:
                generation.abandon(reason, now)
        self._host.give_up(reason, space)
        self._host.withdraw(space)
        self._host.coding.use(space, None)

    def serve(
        self,
        model: ModelInfo,
        layers: range,
        kv_total: int,
        kv_per_token_layer: int | None = None,
        kv_sizes: KvSizes = EXACT,
    ) -> None:
        """Run ``layers`` of ``model`` for whoever asks; :meth:`use_model` comes first.

        ``kv_total``: bytes for the KV caches of all models.
        ``kv_per_token_layer``: bytes that the engine's KV cache takes; None for float32.
        ``kv_sizes``: what sizes it comes in.
        """
        if model.space_hash32 in self._models:
            self._host.serve(Offered(model, layers, kv_per_token_layer, kv_sizes), kv_total)

    def measured(self, space: int, cost: StageCost) -> None:
        """The engine takes so long for a model."""
        self._host.work.measured(space, cost)

    def reloaded(self, space: int) -> None:
        """Another engine has a model's layers: sessions of the one before go on elsewhere."""
        self._host.reloaded(space)

    def share_kv(self, kv_total: int) -> None:
        """Have ``kv_total`` bytes for the KV caches of all models from now on."""
        self._host.share_kv(kv_total)

    def drain(self, reason: str) -> None:
        self._host.drain(reason)

    def rest(self, reason: str) -> None:
        """Compute for this node alone until ``reason`` is empty; others are told it, and go on."""
        self._host.rest(reason)

    def give_up(self, reason: str, space: int | None = None) -> None:
        """End every session, or those of one model; their requesters are told why, and repair."""
        self._host.give_up(reason, space)

    def generate(self, request: GenerationRequest, now: float) -> int:
        """Start an answer; return its number.

        Raises:
            GenerationError: There is no model, or the prompt does not fit it; nothing was sent.
        """
        model = self._model_of(request)
        check_fits(request, model)
        number, self._next_generation = self._next_generation, self._next_generation + 1
        generation = Generation(
            number,
            request,
            model,
            self._node_id,
            self._config,
            self._planner,
            self._trust,
            self._rng,
            self._calibrations[model.space_hash32],
            now,
            lambda: len(self._live),
            self._beginnings(),
        )
        self._generations[number] = generation
        self._live.append(generation)
        generation.handle_timeout(now)
        self._forget_old()
        return number

    def cancel(self, generation: int, now: float) -> None:
        """End an answer; harmless when it has ended."""
        if generation in self._generations:
            self._generations[generation].cancel(now)

    def cancel_all(self, now: float) -> None:
        for generation in self._generations.values():
            generation.cancel(now)

    def compute_finished(self, job: int, result: WorkResult, now: float) -> None:
        self._host.compute_finished(job, result, now)

    def peer_lost(
        self, peer: NodeId, reason: str, now: float, offence: Offence | None = Offence.LOST
    ) -> None:
        """``peer`` is silent, suspected or dead: mend whatever leans on it.

        ``offence`` is None where the peer is not to blame.
        """
        self._host.peer_unresponsive(peer, reason)
        # One event is one offence, however many answers it breaks.
        share = 0.0 if offence is None else 1.0
        for generation in self._generations.values():
            if generation.peer_lost(peer, reason, now, offence or Offence.LOST, share=share):
                share = 0.0

    def peer_gone(self, peer: NodeId) -> None:
        """``peer`` is dead or has left: free what it had asked for."""
        self._host.peer_gone(peer)
        if self._prefixes is not None:
            self._prefixes.forget(peer)

    def peer_back(self, peer: NodeId, now: float) -> None:
        """``peer`` answers again, or serves something new."""
        del peer
        for generation in self._generations.values():
            generation.peer_back(now)

    def planned(self, generation: int, ticket: int, result: Covered | NoCover, now: float) -> None:
        """Take the result of a :class:`PlanRequested`."""
        if generation in self._generations:
            self._generations[generation].planned(ticket, result, now)

    # Inputs

    def receive_frame_untrusted(self, frame: Frame, source: NodeId, now: float) -> SyncError | None:
        """Take one V-Frame; return the refusal its sender is owed, if any.

        Raises:
            RemoteProtocolError: It was malformed or out of place; only a counter changed.
        """
        if frame.space_hash32 not in self._models:
            self.counters["frame of another space"] += 1
            return space_mismatch(next(iter(self._models), 0), frame.space_hash32)
        if frame.type is MessageType.THINK:
            self._receive_think_untrusted(frame, source, now)
        elif frame.type is MessageType.SYNC:
            self._receive_sync_untrusted(frame, source, now)
        else:
            self.counters[f"{frame.type.name.lower()} frame not served"] += 1
        return None

    def handle_timeout(self, now: float) -> None:
        self._host.handle_timeout(now)
        for generation in list(self._live):
            generation.handle_timeout(now)

    # Outputs

    def next_timeout(self) -> float | None:
        host = self._host.next_timeout()
        if not self._live:
            return host
        return earliest(host, *[generation.deadline for generation in self._live])

    @property
    def gathers(self) -> bool:
        """Whether a step is to be composed, and what has arrived meanwhile may belong into it."""
        return self._host.work.gathers

    @property
    def engine_queue(self) -> EngineQueue:
        """What waits for the engine, and how it was kept busy."""
        return self._host.work.figures

    def take_events(self) -> list[InferenceEvent]:
        """Hand over what has happened, and the next step for the engine."""
        taken = self.take_news()
        if (step := self.compose()) is not None:
            taken.append(step)
        return taken

    def compose(self) -> ComputeRequested | None:
        """Return what the engine is to do next, if it is idle and anything waits.

        What comes later waits until that is done. So whoever hands over one input after the other
        asks when there is no more: :meth:`take_news` leaves it out.
        """
        return self._host.work.compose()

    def take_news(self) -> list[InferenceEvent]:
        """Hand over what has happened."""
        taken, self._events = self._events, []
        taken += self._host.take_news()
        if self._live:
            for generation in self._live:
                taken += generation.take_events()
            if any(one.phase is Phase.ENDED for one in self._live):
                self._live = [one for one in self._live if one.phase is not Phase.ENDED]
        return taken

    def stages(self) -> list[Stage]:
        return self._host.stages()

    def generations(self) -> list[Generation]:
        return list(self._generations.values())

    def generation(self, number: int) -> Generation | None:
        """Return an answer, unless it ended long ago."""
        return self._generations.get(number)

    def edges(self) -> Mapping[EdgeKey, EdgeState]:
        """Return how hidden states are coded, by where they go."""
        return self._host.coding.policy.edges()

    @property
    def kept(self) -> KeptCaches:
        """What sessions that are over left behind here."""
        return self._host.kept

    @property
    def kv_used(self) -> int:
        return self._host.kv_used

    @property
    def kv_spoken_for(self) -> int:
        """KV bytes that one more requester could not have: less than what is used, if one hogs."""
        return self._host.kv_spoken_for

    def decoding(self, space: int, now: float) -> int:
        """Return how many sessions of a model had work here just now."""
        return self._host.decoding(space, now)

    def refill(self) -> None:
        """Acknowledgements came: send what there is room for by now."""
        self._host.refill()

    def all_counters(self) -> Counter[str]:
        total = self.counters + self._host.counters
        for generation in self._generations.values():
            total += generation.counters
        return total

    # Doors

    def _receive_think_untrusted(self, frame: Frame, source: NodeId, now: float) -> None:
        if self._host.receive_think_untrusted(frame, source, now):
            return
        for generation in self._generations.values():
            if generation.receive_think(frame, source, now):
                return
        self.counters["activation of an older epoch or an unknown stream"] += 1

    def _receive_sync_untrusted(self, frame: Frame, source: NodeId, now: float) -> None:
        message = from_body_untrusted(parse_sync_untrusted(frame))
        if message is None:
            raise RemoteProtocolError("a Sync method that nobody here knows")
        if isinstance(message, Open | Resume | Close):
            self._host.receive_control(message, source, frame.space_hash32, now)
            return
        for generation in self._generations.values():
            if generation.session == message.session:
                generation.receive_control(message, source, now)
                return
        self.counters["answer for no session of ours"] += 1

    def _beginnings(self) -> Prefixes | None:
        """Return what earlier answers began with; their names are drawn with the first."""
        if self._prefixes is None and self._config.reuse.most_records:
            scope = self._scope or Scope(self._rng.randbytes(16))
            self._prefixes = Prefixes(self._config.reuse, scope)
        return self._prefixes

    def _model_of(self, request: GenerationRequest) -> ModelInfo:
        """Return the model that is asked; the first one where none is named.

        Raises:
            GenerationError: There is none.
        """
        space = request.space or next(iter(self._models), 0)
        if space in self._retired:
            raise GenerationError(self._retired[space])
        if (model := self._models.get(space)) is not None:
            return model
        if self._models:
            raise GenerationError("this node has no such model", hint="p2pnode models")
        raise GenerationError("this node has no model", hint="start it with --model smollm2-135m")

    def _forget_old(self) -> None:
        """Keep the newest few ended generations for the snapshot, and their counters."""
        ended = [one for one in self._generations.values() if one.phase is Phase.ENDED]
        for generation in ended[:-_REMEMBERED]:
            self._events += generation.take_events()
            self.counters += generation.counters
            del self._generations[generation.number]
