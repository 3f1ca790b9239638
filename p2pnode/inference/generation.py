"""One answer: plan a chain, open it, feed it tokens, and mend it when a stage is lost.

A thin composition of three: the :mod:`~p2pnode.inference.session` (tokens), the
:mod:`~p2pnode.inference.chain` (epochs, legs, edges) and :mod:`~p2pnode.inference.patience`
(deadlines). :mod:`p2pnode.inference.phase` has its life as a table. Every chain has an *epoch*.
Whatever goes wrong, a dead peer, a refusal, a silence, the cure is one and the same: raise the
epoch, find peers for the lost layers alone, re-open every stage on fresh streams, learn how far
each one's KV cache reaches, and have each send what its successor lacks. Stages that lived keep
their caches; new ones are fed the batches first used. Tokens already shown never change.
"""

from collections import Counter
from collections.abc import Mapping

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.inference.activations import Batch, token_of_untrusted
from p2pnode.inference.chain import Chain
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Cover, Leg
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationFailed,
    GenerationFinished,
    GenerationPlanned,
    InferenceEvent,
    TokenProduced,
)
from p2pnode.inference.messages import Control, Edge, Failed, Opened, Refused
from p2pnode.inference.patience import Patience
from p2pnode.inference.phase import TRANSITIONS, Evidence, Phase
from p2pnode.inference.request import GenerationRequest, Planner
from p2pnode.inference.session import Session
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.chain import NoCover
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
        self.began = now
        self.reason = ""
        self.counters: Counter[str] = Counter()
        self._planner = planner
        self._config = config
        self._events: list[InferenceEvent] = []
        self._distrusted: dict[NodeId, tuple[float, str]] = {}
        key = int.from_bytes(rng.randbytes(8), "big")
        self._session = Session(request, model, key, config.prefill_chunk, now)
        cover = Cover(request, config, planner, node_id, calibration)
        self._chain = Chain(self._session, cover, model, node_id, rng)
        self._patience = Patience(config, request.wait, now)

    # What faces show

    @property
    def session(self) -> int:
        """Names it to its stages."""
        return self._session.key

    @property
    def tokens(self) -> list[int]:
        return self._session.tokens

    @property
    def codings(self) -> int:
        return self._session.codings

    @property
    def first_token_at(self) -> float | None:
        return self._session.first_token_at

    @property
    def last_token_at(self) -> float | None:
        return self._session.last_token_at

    @property
    def epoch(self) -> int:
        return self._chain.epoch

    @property
    def legs(self) -> tuple[Leg, ...]:
        return self._chain.legs

    @property
    def activations(self) -> str:
        """How its hidden states may travel."""
        return self._chain.cover.activations

    @property
    def deadline(self) -> float | None:
        return self._patience.deadline

    # Commands

    def cancel(self) -> None:
        """End the answer and free every stage's memory."""
        if self.phase is not Phase.ENDED:
            self._end(GenerationFinished(self.number, "cancelled"), "cancelled")

    def peer_lost(self, peer: NodeId, reason: str, now: float) -> None:
        """``peer`` is silent, suspected or gone."""
        lost = self._chain.legs_of(peer)
        if lost and self.phase in {Phase.OPENING, Phase.RUNNING}:
            self._lose(lost, (peer,), reason, now)
        self._chain.lost |= lost

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
                is_ours = self._expects(leg, epoch, source) and self.phase is Phase.OPENING
                if is_ours and self._chain.opened(leg, position):
                    self._run(now)
            case Refused(epoch=epoch, leg=leg, code=code, reason=reason):
                if not self._expects(leg, epoch, source):
                    pass
                elif code == "calibration" and self._can_do_without_calibration():
                    self._do_without_calibration(now)
                else:
                    self.counters["stage refused"] += 1
                    self._distrust(source, f"has refused: {reason}", now)
                    self._lose({leg}, (source,), f"refused: {reason}", now)
            case Failed(epoch=epoch, leg=leg, culprit=culprit, reason=reason):
                if self._chain.legs_of(culprit) and self._expects(leg, epoch, source):
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
        if self._chain.answer_edge != Edge(source, frame.stream_id):
            return False
        inbox = self._session.inbox
        if not inbox.add_untrusted(frame):
            self.counters["token received twice"] += 1
        while self.phase is Phase.RUNNING and (batch := inbox.take_batch()) is not None:
            token = token_of_untrusted(batch)
            if token >= self._session.vocab_size:
                raise RemoteProtocolError(f"token {token} of {self._session.vocab_size}")
            self._accept(token, batch, now)
        return True

    def handle_timeout(self, now: float) -> None:
        if not self._patience.is_due(now):
            return
        match self.phase:
            case Phase.PLANNING:
                self._find_cover(now)
            case Phase.OPENING:
                self._pass_over_the_silent(now)
            case Phase.RUNNING:
                self._stall(now)
            case Phase.ENDED:
                raise LocalProtocolError("an answer that has ended waits for nothing")

    # Outputs

    def take_events(self) -> list[InferenceEvent]:
        taken, self._events = self._events, []
        self._hand_over(taken)
        return taken

    # Planning

    def _find_cover(self, now: float) -> None:
        cover = self._cover(self._distrusted_now(now))
        if isinstance(cover, NoCover) and now >= self._patience.last_resort_at:
            # Better a peer that failed us a moment ago than none.
            self._patience.last_resort_at = now + self._config.open_timeout
            cover = self._cover({})
        if isinstance(cover, NoCover):
            self._wait_for_cover(cover, now)
            return
        self._chain.use(cover)
        self._move(Evidence.COVERED)
        self._open(now)

    def _cover(self, distrusted: Mapping[NodeId, str]) -> tuple[Leg, ...] | NoCover:
        chain = self._chain
        if chain.legs:
            return chain.cover.repaired(chain.legs, frozenset(chain.lost), chain.path, distrusted)
        plan = self._planner.chain(self.request, distrusted)
        if isinstance(plan, NoCover):
            return plan
        chain.plan = plan
        return chain.cover.first(plan)

    def _wait_for_cover(self, missing: NoCover, now: float) -> None:
        if now < self._patience.cover_by:
            self._patience.uncovered(now)
            return
        layers = ", ".join(f"[{run.start}, {run.stop})" for run in missing.missing)
        reasons = "; ".join(missing.reasons)
        why = f"no peer serves layers {layers}" + (f": {reasons}" if reasons else "")
        first = missing.missing[0]
        self._fail(why, f"p2pnode doctor, or p2pnode up --layers {first.start}:{first.stop}")

    def _distrusted_now(self, now: float) -> dict[NodeId, str]:
        self._distrusted = {peer: held for peer, held in self._distrusted.items() if held[0] > now}
        return {peer: reason for peer, (_, reason) in self._distrusted.items()}

    def _distrust(self, peer: NodeId, reason: str, now: float) -> None:
        self._distrusted[peer] = (now + self._config.distrust, reason)
        self._patience.distrusted(now)

    # Opening

    def _open(self, now: float) -> None:
        self._chain.open()
        self._patience.opening(now)

    def _can_do_without_calibration(self) -> bool:
        return bool(self._chain.cover.calibration) and not self._chain.is_fed

    def _do_without_calibration(self, now: float) -> None:
        """Somebody has another calibration, or none: open the same chain anew, without."""
        self.counters["calibration not shared"] += 1
        self._chain.cover.calibration = 0
        self._chain.raise_epoch(())
        self._open(now)

    def _pass_over_the_silent(self, now: float) -> None:
        silent = self._chain.unopened
        for leg in silent:
            self.counters["stage silent"] += 1
            self._distrust(leg.run.peer, "did not answer in time", now)
        peers = tuple(leg.run.peer for leg in silent)
        self._lose({leg.number for leg in silent}, peers, "did not answer", now)

    def _expects(self, number: int, epoch: int, source: NodeId) -> bool:
        known = self._chain.leg(number, source) is not None
        if (
            not known
            or epoch != self._chain.epoch
            or self.phase not in {Phase.OPENING, Phase.RUNNING}
        ):
            self.counters["answer of an older epoch"] += 1
            return False
        return True

    # Running

    def _run(self, now: float) -> None:
        self._move(Evidence.ALL_OPENED)
        chain = self._chain
        plan = chain.take_plan()
        chain.resume()
        self._hand_over(self._events)
        if plan is not None:
            self._events.append(GenerationPlanned(self.number, plan))
        seconds = self._patience.running(now)
        if seconds is not None:
            runs = tuple(leg.run for leg in chain.legs)
            self._events.append(ChainRepaired(self.number, chain.epoch, runs, seconds))
        self.reason = ""
        self._session.sent_at = now
        self._wait_for_token(now)

    def _accept(self, token: int, batch: Batch, now: float) -> None:
        session = self._session
        session.accept(token, batch, now)
        self._patience.stalls = 0
        self._events.append(
            TokenProduced(
                self.number,
                token,
                batch.start,
                now - session.sent_at,
                batch.compute_us / 1e6,
                self._chain.hops,
                batch.micronats / 1e6,
                session.codings,
            )
        )
        over = session.over
        if over:
            self._end(GenerationFinished(self.number, over), over)
        else:
            self._chain.feed((session.follow(token, batch.start, now),))
            self._wait_for_token(now)

    def _wait_for_token(self, now: float) -> None:
        unanswered = 0 if self._session.tokens else len(self.request.prompt)
        self._patience.fed(unanswered, now)

    # Ending and mending

    def _lose(self, numbers: set[int], peers: tuple[NodeId, ...], reason: str, now: float) -> None:
        self._chain.lost |= numbers
        self._move(Evidence.LOST)
        self.reason = reason
        self._patience.broken(now)
        self._hand_over(self._events)
        self._events.append(ChainBroken(self.number, self._chain.epoch, peers, reason))
        self._chain.raise_epoch(peers)
        self._find_cover(now)

    def _stall(self, now: float) -> None:
        """No token for too long: open the same chain anew; the second time, without the laggard."""
        self.counters["stalled"] += 1
        self._patience.stalls += 1
        if self._patience.stalls > 1:
            laggard = self._chain.laggard()
            self._distrust(laggard.run.peer, "made no progress", now)
            self._lose({laggard.number}, (laggard.run.peer,), "made no progress", now)
            return
        self._patience.broken_at = now
        self._chain.raise_epoch(())
        self._move(Evidence.STALLED)
        self._open(now)

    def _fail(self, reason: str, hint: str) -> None:
        self._end(GenerationFailed(self.number, reason, hint), reason)

    def _end(self, event: GenerationFinished | GenerationFailed, reason: str) -> None:
        self._move(Evidence.OVER)
        self._patience.over()
        self.reason = reason
        self._chain.close()
        self._hand_over(self._events)
        self._events.append(event)

    def _hand_over(self, events: list[InferenceEvent]) -> None:
        """Put what the chain has to say behind ``events``."""
        events += self._chain.outbox
        self._chain.outbox.clear()

    def _move(self, evidence: Evidence) -> None:
        following = TRANSITIONS.get((self.phase, evidence))
        if following is None:
            raise LocalProtocolError(f"{evidence.name} makes no sense while {self.phase.name}")
        self.phase = following
