"""One answer: plan a chain, open it, feed it tokens, and mend it when a stage is lost.

:mod:`p2pnode.inference.phase` has the life of a generation as a table. Every chain has an *epoch*.
Whatever goes wrong, a dead peer, a refusal, a silence, the cure is one and the same: raise the
epoch, find peers for the lost layers alone, re-open every stage on fresh streams, learn how far
each one's KV cache reaches, and have each send what its successor lacks. Stages that lived keep
their caches; new ones are fed the batches first used. Tokens already shown never change.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import (
    Batch,
    Inbox,
    to_frames,
    token_batch,
    token_of_untrusted,
)
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.cover import Cover, Leg
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationFailed,
    GenerationFinished,
    GenerationPlanned,
    InferenceEvent,
    SendFrame,
    TokenProduced,
)
from p2pnode.inference.messages import Close, Control, Edge, Failed, Open, Opened, Refused, Resume
from p2pnode.inference.phase import TRANSITIONS, Evidence, Phase
from p2pnode.inference.request import GenerationRequest, Planner
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.chain import ChainPlan, NoCover
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame


class Generation:
    """The requester's side of one session."""

    def __init__(
        self,
        number: int,
        request: GenerationRequest,
        model: ModelInfo,
        node_id: NodeId,
        config: InferenceConfig,
        planner: Planner,
        rng: Rng,
        calibration: int,
        now: float,
    ) -> None:
        self.number = number
        self.request = request
        self.phase = Phase.PLANNING
        self.epoch = 0
        self.legs: tuple[Leg, ...] = ()
        self.tokens: list[int] = []
        self.began = now
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.reason = ""
        self.counters: Counter[str] = Counter()
        self.codings = 0
        self.session = int.from_bytes(rng.randbytes(8), "big")
        self._model = model
        self._node_id = node_id
        self._config = config
        self._planner = planner
        self._rng = rng
        self._events: list[InferenceEvent] = []
        self._plan: ChainPlan | None = None
        self._lost: set[int] = set()
        self._opened: dict[int, int] = {}
        self._distrusted: dict[NodeId, tuple[float, str]] = {}
        self._legs_of = Cover(request, config, planner, node_id, calibration)
        self._is_fed = False
        self._sent: list[Batch] = []
        self._sent_at = now
        self._inbox = Inbox(4, frozenset({int(DType.I8)}), request.positions + 1)
        self._answer_edge: Edge | None = None
        self._feed_edge: Edge | None = None
        self._cover_by = now + request.wait
        self._broken_at: float | None = None
        self._last_resort_at = now
        self._stalls = 0
        self.deadline: float | None = now
        self._cut_prompt()

    @property
    def activations(self) -> str:
        """How its hidden states may travel."""
        return self._legs_of.activations

    # Commands

    def cancel(self) -> None:
        """End the answer and free every stage's memory."""
        if self.phase is not Phase.ENDED:
            self._end(GenerationFinished(self.number, "cancelled"), "cancelled")

    def peer_lost(self, peer: NodeId, reason: str, now: float) -> None:
        """``peer`` is silent, suspected or gone."""
        lost = {leg.number for leg in self.legs if leg.run.peer == peer}
        if lost and self.phase in {Phase.OPENING, Phase.RUNNING}:
            self._lose(lost, (peer,), reason, now)
        self._lost |= lost

    def peer_back(self, peer: NodeId, now: float) -> None:
        """``peer`` answers again: it may hold what is missing."""
        self._distrusted.pop(peer, None)
        if self.phase is Phase.PLANNING:
            self._find_cover(now)

    # Inputs

    def receive_control(self, message: Control, source: NodeId, now: float) -> None:
        """Take a stage's answer."""
        match message:
            case Opened(epoch=epoch, leg=leg, next_position=position):
                if self._expects(leg, epoch, source) and self.phase is Phase.OPENING:
                    self._opened[leg] = position
                    if len(self._opened) == len(self.legs):
                        self._run(now)
            case Refused(epoch=epoch, leg=leg, code=code, reason=reason):
                if not self._expects(leg, epoch, source):
                    pass
                elif code == "calibration" and self._legs_of.calibration and not self._is_fed:
                    self._do_without_calibration(now)
                else:
                    self.counters["stage refused"] += 1
                    self._distrust(source, f"has refused: {reason}", now)
                    self._lose({leg}, (source,), f"refused: {reason}", now)
            case Failed(epoch=epoch, leg=leg, culprit=culprit, reason=reason):
                known = any(one.run.peer == culprit for one in self.legs)
                if known and self._expects(leg, epoch, source):
                    self.counters["stage failed"] += 1
                    self._distrust(culprit, f"has failed this answer: {reason}", now)
                    self.peer_lost(culprit, reason, now)
            case _:
                self.counters["control message for nobody here"] += 1

    def receive_think_untrusted(self, frame: Frame, source: NodeId, now: float) -> bool:
        """Take a token of the last stage; False when the frame is for someone else.

        Raises:
            RemoteProtocolError: It is for us, and malformed.
        """
        if self._answer_edge != Edge(source, frame.stream_id):
            return False
        if not self._inbox.add_untrusted(frame):
            self.counters["token received twice"] += 1
        while self.phase is Phase.RUNNING and (batch := self._inbox.take_batch()) is not None:
            token = token_of_untrusted(batch)
            if token >= self._model.vocab_size:
                raise RemoteProtocolError(f"token {token} of {self._model.vocab_size}")
            self._accept(token, batch, now)
        return True

    def handle_timeout(self, now: float) -> None:
        if self.deadline is None or now < self.deadline:
            return
        match self.phase:
            case Phase.PLANNING:
                self._find_cover(now)
            case Phase.OPENING:
                self._pass_over_the_silent(now)
            case Phase.RUNNING:
                self._stall(now)
            case Phase.ENDED:
                self.deadline = None

    # Outputs

    def take_events(self) -> list[InferenceEvent]:
        taken, self._events = self._events, []
        return taken

    # Planning

    def _find_cover(self, now: float) -> None:
        cover = self._cover(self._distrusted_now(now))
        if isinstance(cover, NoCover) and now >= self._last_resort_at:
            # Better a peer that failed us a moment ago than none.
            self._last_resort_at = now + self._config.open_timeout
            cover = self._cover({})
        if isinstance(cover, NoCover):
            self._wait_for_cover(cover, now)
            return
        self.legs, self._lost = cover, set()
        self._move(Evidence.COVERED)
        self._open_all(now)

    def _cover(self, distrusted: Mapping[NodeId, str]) -> tuple[Leg, ...] | NoCover:
        if not self.legs:
            plan = self._planner.chain(self.request, distrusted)
            if isinstance(plan, NoCover):
                return plan
            self._plan = plan
            return self._legs_of.first(plan)
        return self._legs_of.repaired(self.legs, frozenset(self._lost), self._path(), distrusted)

    def _wait_for_cover(self, missing: NoCover, now: float) -> None:
        if now >= self._cover_by:
            layers = ", ".join(f"[{run.start}, {run.stop})" for run in missing.missing)
            reasons = "; ".join(missing.reasons)
            why = f"no peer serves layers {layers}" + (f": {reasons}" if reasons else "")
            first = missing.missing[0]
            self._fail(why, f"p2pnode doctor, or p2pnode up --layers {first.start}:{first.stop}")
            return
        self.deadline = min(now + self._config.cover_retry, self._cover_by)

    def _distrusted_now(self, now: float) -> dict[NodeId, str]:
        self._distrusted = {peer: held for peer, held in self._distrusted.items() if held[0] > now}
        return {peer: reason for peer, (_, reason) in self._distrusted.items()}

    def _distrust(self, peer: NodeId, reason: str, now: float) -> None:
        self._distrusted[peer] = (now + self._config.distrust, reason)
        self._last_resort_at = now + self._config.last_resort

    def _path(self) -> list[NodeId]:
        """Return the nodes a token visits, from here and back to here."""
        return [self._node_id, *(leg.run.peer for leg in self.legs), self._node_id]

    # Opening

    def _open_all(self, now: float) -> None:
        self._opened.clear()
        self.deadline = now + self._config.open_timeout
        streams = self._draw_streams(len(self.legs) + 1)
        peers = self._path()
        self._feed_edge = Edge(peers[1], streams[0])
        self._answer_edge = Edge(peers[-2], streams[-1])
        self._inbox.skip_to(self._wanted)
        for index, leg in enumerate(self.legs):
            last = index == len(self.legs) - 1
            order = Open(
                session=self.session,
                epoch=self.epoch,
                leg=leg.number,
                layers=leg.run.layers,
                positions=self.request.positions,
                upstream=Edge(peers[index], streams[index]),
                downstream=Edge(peers[index + 2], streams[index + 1]),
                out_dtype=leg.out_dtype,
                sampling=self.request.sampling if last else None,
                sample_from=self._wanted if last else 0,
                terms=self._legs_of.terms(leg),
            )
            self._say(leg.run.peer, order)

    def _do_without_calibration(self, now: float) -> None:
        """Somebody has another calibration, or none: open the same chain anew, without."""
        self.counters["calibration not shared"] += 1
        self._legs_of.calibration = 0
        self._raise_epoch(())
        self._open_all(now)

    def _draw_streams(self, count: int) -> list[int]:
        drawn: set[int] = set()
        while len(drawn) < count:
            drawn.add(int.from_bytes(self._rng.randbytes(4), "big"))
        return sorted(drawn)

    def _pass_over_the_silent(self, now: float) -> None:
        silent = [leg for leg in self.legs if leg.number not in self._opened]
        for leg in silent:
            self.counters["stage silent"] += 1
            self._distrust(leg.run.peer, "did not answer in time", now)
        peers = tuple(leg.run.peer for leg in silent)
        self._lose({leg.number for leg in silent}, peers, "did not answer", now)

    def _expects(self, number: int, epoch: int, source: NodeId) -> bool:
        known = any(leg.number == number and leg.run.peer == source for leg in self.legs)
        if not known or epoch != self.epoch or self.phase not in {Phase.OPENING, Phase.RUNNING}:
            self.counters["answer of an older epoch"] += 1
            return False
        return True

    # Running

    def _run(self, now: float) -> None:
        self._move(Evidence.ALL_OPENED)
        reached = [self._opened[leg.number] for leg in self.legs]
        if self.epoch > 0:
            for leg, position in zip(self.legs, [*reached[1:], self._wanted], strict=True):
                self._say(leg.run.peer, Resume(self.session, self.epoch, leg.number, position))
        if self._plan is not None:
            plan = replace(self._plan, stages=tuple(leg.run for leg in self.legs))
            self._events.append(GenerationPlanned(self.number, plan))
            self._plan = None
        if self._broken_at is not None:
            runs = tuple(leg.run for leg in self.legs)
            seconds = now - self._broken_at
            self._events.append(ChainRepaired(self.number, self.epoch, runs, seconds))
            self._broken_at = None
        self.reason = ""
        self._sent_at = now
        self._is_fed = True
        self._feed([batch for batch in self._sent if batch.start >= reached[0]], now)

    def _accept(self, token: int, batch: Batch, now: float) -> None:
        self.tokens.append(token)
        self.codings |= batch.codings
        self._stalls = 0
        self.last_token_at = now
        self.first_token_at = now if self.first_token_at is None else self.first_token_at
        self._events.append(
            TokenProduced(
                self.number,
                token,
                batch.start,
                now - self._sent_at,
                batch.compute_us / 1e6,
                self._hops(),
                batch.micronats / 1e6,
                self.codings,
            )
        )
        if token in self.request.stop:
            self._end(GenerationFinished(self.number, "eos"), "eos")
        elif len(self.tokens) >= self.request.max_tokens:
            self._end(GenerationFinished(self.number, "length"), "length")
        else:
            following = token_batch((token,), batch.start)
            self._sent.append(following)
            self._sent_at = now
            self._feed([following], now)

    def _feed(self, batches: Iterable[Batch], now: float) -> None:
        edge = self._feed_edge
        if edge is None:
            raise AssertionError("a running generation has a chain")
        for batch in batches:
            for frame in to_frames(batch, edge.stream, self._model.space_hash32):
                self._events.append(SendFrame(edge.peer, frame))
        unanswered = 0 if self.tokens else len(self.request.prompt)
        patience = self._config.stall_after + unanswered * self._config.stall_per_prompt_token
        self.deadline = now + patience

    @property
    def _wanted(self) -> int:
        """Position of the next token to come."""
        return len(self.request.prompt) + len(self.tokens)

    def _hops(self) -> int:
        return sum(one != other for one, other in itertools.pairwise(self._path()))

    def _cut_prompt(self) -> None:
        size, prompt = self._config.prefill_chunk, self.request.prompt
        for start in range(0, len(prompt), size):
            self._sent.append(token_batch(prompt[start : start + size], start))

    # Ending and mending

    def _lose(self, numbers: set[int], peers: tuple[NodeId, ...], reason: str, now: float) -> None:
        self._lost |= numbers
        self._move(Evidence.LOST)
        self.reason = reason
        if self._broken_at is None:
            self._broken_at = now
            self._cover_by = now + max(self._config.cover_wait, self.request.wait)
        self._events.append(ChainBroken(self.number, self.epoch, peers, reason))
        self._raise_epoch(peers)
        self._find_cover(now)

    def _stall(self, now: float) -> None:
        """No token for too long: open the same chain anew; the second time, without the laggard."""
        self.counters["stalled"] += 1
        self._stalls += 1
        if self._stalls > 1:
            laggard = self._laggard()
            self._distrust(laggard.run.peer, "made no progress", now)
            self._lose({laggard.number}, (laggard.run.peer,), "made no progress", now)
            return
        self._broken_at = now
        self._raise_epoch(())
        self._move(Evidence.STALLED)
        self._open_all(now)

    def _laggard(self) -> Leg:
        """Return the first leg that had not computed, when last asked, all it had been sent."""
        sent = self._sent[-1].end
        for leg in self.legs:
            if self._opened[leg.number] < sent:
                return leg
        return self.legs[-1]

    def _raise_epoch(self, removed: tuple[NodeId, ...]) -> None:
        staying = {leg.run.peer for leg in self.legs if leg.number not in self._lost}
        for peer in set(removed) - staying:
            self._say(peer, Close(self.session, self.epoch))
        self.epoch += 1

    def _fail(self, reason: str, hint: str) -> None:
        self._end(GenerationFailed(self.number, reason, hint), reason)

    def _end(self, event: GenerationFinished | GenerationFailed, reason: str) -> None:
        self._move(Evidence.OVER)
        self.deadline, self.reason = None, reason
        for peer in sorted({leg.run.peer for leg in self.legs}):
            self._say(peer, Close(self.session, self.epoch))
        self._events.append(event)

    def _move(self, evidence: Evidence) -> None:
        self.phase = TRANSITIONS.get((self.phase, evidence), self.phase)

    def _say(self, peer: NodeId, message: Control) -> None:
        frame = control_frame(message, self._model.space_hash32)
        self._events.append(SendFrame(peer, frame))
