"""One answer: plan a chain, open it, feed it tokens, and mend it when a stage is lost.

A thin composition: the :mod:`~p2pnode.inference.session` (tokens), the
:mod:`~p2pnode.inference.chain` (epochs, legs, edges), :mod:`~p2pnode.inference.patience`
(deadlines), and what they go by: the :mod:`~p2pnode.inference.pace` of the chain and the
:mod:`~p2pnode.inference.faults` of peers. :mod:`p2pnode.inference.phase` has its life as a table.
Every chain has an *epoch*. Whatever goes wrong, a dead peer, a refusal, a silence, a lie, the cure
is one and the same: raise the epoch, find peers for the lost layers alone, re-open every stage on
fresh streams, learn how far each one's KV cache reaches, and have each send what its successor
lacks. Stages that lived keep their caches; new ones are fed the batches first used. Tokens already
shown never change.

Invariant: a look at the chain (``_look``) lasts from its re-opening in place until all legs have
answered, or one is lost: OPENING, and for no other reason.
"""

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.inference.activations import Batch
from p2pnode.inference.cover import Covered
from p2pnode.inference.events import (
    ChainBroken,
    GenerationFailed,
    GenerationFinished,
    GenerationPlanned,
    InferenceEvent,
    TokenProduced,
)
from p2pnode.inference.messages import Control, Edge, Failed, Opened, Refusal, Refused
from p2pnode.inference.parts import Legs, Parts
from p2pnode.inference.phase import Evidence, Phase
from p2pnode.inference.uncovered import uncovered
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import NoCover
from p2pnode.scheduler.offences import Offence
from p2pnode.wire.vframe import Frame


class Generation(Parts):
    """The requester's side of one session."""

    # Commands

    def cancel(self, now: float) -> None:
        """End the answer and free every stage's memory."""
        if self.phase is not Phase.ENDED:
            self._end(GenerationFinished(self.number, "cancelled"), "cancelled", now)

    def abandon(self, reason: str, now: float) -> None:
        """Fail, unless it has ended: nobody here may go on with it."""
        if self.phase is not Phase.ENDED:
            self._fail(reason, "p2pnode models", now)

    def peer_lost(
        self, peer: NodeId, reason: str, now: float, offence: Offence, *, share: float
    ) -> bool:
        """``peer`` is silent, suspected or gone; return whether this answer leaned on it."""
        lost = self._chain.legs_of(peer) - self._chain.lost
        if not lost or self.phase is Phase.ENDED:
            return False
        self._blame(lost, offence, reason, now, share=share)
        # If nobody else can, one that was lost but once is asked again at once.
        self._lose(lost, reason, now, is_hopeful=self._faults.times[peer] == 1)
        return True

    def peer_back(self, now: float) -> None:
        """Somebody answers again, or serves more: it may hold what is missing."""
        if self.phase is Phase.PLANNING and not self._questions.is_open:
            self._find_cover(now)

    def planned(self, ticket: int, result: Covered | NoCover, now: float) -> None:
        """Take the answer to a :class:`PlanRequested`."""
        if not self._questions.take(ticket, result, now):
            self.counters["plan of an older moment"] += 1

    # Inputs

    def receive_control(self, message: Control, source: NodeId, now: float) -> None:
        """Take a stage's answer."""
        match message:
            case Opened(epoch=epoch, leg=leg, next_position=position, computed=computed):
                is_ours = self._expects(leg, epoch, source) and self.phase is Phase.OPENING
                reached = position if computed is None else min(computed, position)
                arrived = position if message.arrived is None else message.arrived
                if is_ours and self._chain.opened(leg, position, reached, arrived):
                    self._run(now)
            case Refused(epoch=epoch, leg=leg, code=code, reason=reason):
                if self._expects(leg, epoch, source):
                    self._refused(leg, code, reason, now)
            case Failed(epoch=epoch, leg=leg, code=Refusal.SAMPLING, reason=reason):
                if self._expects(leg, epoch, source):
                    self._cannot_draw(leg, reason, now, self._unable.failed())
            case Failed(epoch=epoch, leg=leg):
                if self._expects(leg, epoch, source):
                    lost = self._faults.failed(self._chain.legs, message, now)
                    self.counters["stage failed" if lost else "accusation of no neighbour"] += 1
                    if lost:
                        self._lose(lost, message.reason, now)
            case _:
                self.counters["control message for nobody here"] += 1

    def receive_think(self, frame: Frame, source: NodeId, now: float) -> bool:
        """Take a token of the last stage; False when the frame is for someone else.

        What no last stage may say breaks the chain at once: nothing better will come of it.
        """
        if self._chain.answer_edge != Edge(source, frame.stream_id):
            return False
        self._take_tokens(now, frame)
        return True

    def _take_tokens(self, now: float, frame: Frame | None = None) -> None:
        session = self._session
        try:
            if frame is not None and not session.inbox.add_untrusted(frame):
                self.counters["token received twice"] += 1
            while self.phase is Phase.RUNNING and (batch := session.take_untrusted()) is not None:
                self._accept(batch, now)
        except RemoteProtocolError as error:
            self.counters["impossible answer of a last stage"] += 1
            if self.phase in {Phase.OPENING, Phase.RUNNING}:
                last = {self._chain.legs[-1].number}
                self._blame(last, Offence.IMPOSSIBLE_TOKEN, str(error), now)
                self._lose(last, f"impossible: {error}", now)

    def handle_timeout(self, now: float) -> None:
        if not self._patience.is_due(now):
            return
        if self.phase is not Phase.ENDED and (why := self._patience.overdue(now)):
            self._give_up(why, now)
            return
        match self.phase:
            case Phase.PLANNING:
                self._find_cover(now)
            case Phase.OPENING:
                self._pass_over_the_silent(now)
            case Phase.RUNNING:
                self._look_at_chain(now)
            case Phase.ENDED:
                raise LocalProtocolError("an answer that has ended waits for nothing")

    # Outputs

    def take_events(self) -> list[InferenceEvent]:
        taken, self._events = self._events, []
        self._hand_over(taken)
        return taken

    # Planning

    def _find_cover(self, now: float) -> None:
        last_resort = now >= self._patience.last_resort_at
        standings = self._faults.standings(now, last_resort=last_resort)
        self._patience.planning()
        self._ask(standings, frozenset(self._chain.lost), self._take_cover, now)

    def _take_cover(self, found: Covered | NoCover, now: float) -> None:
        if isinstance(found, NoCover):
            self._wait_for_cover(found, now)
            return
        chain = self._chain
        self.awaited = self._told = ()
        if found.plan is not None:
            chain.plan = found.plan
            self._pace.planned(found.plan)
        chain.use(chain.cover.apply(found, chain.legs))
        self._pace.of_chain(chain.legs)
        self._move(Evidence.COVERED)
        self._open(now)

    def _wait_for_cover(self, missing: NoCover, now: float) -> None:
        if now < self._patience.cover_by:
            self._patience.uncovered(now)
            self._tell_what_is_awaited(missing, now)
            return
        why, hint = uncovered(missing)
        self._fail(why, hint, now)

    # Opening

    def _open(self, now: float) -> None:
        self._chain.open()
        self._patience.opening(now)

    def _do_without_calibration(self, now: float) -> None:
        """Somebody has another calibration, or none: open the same chain anew, without."""
        self.counters["calibration not shared"] += 1
        self._chain.cover.calibration = 0
        self._chain.raise_epoch(())
        self._open(now)

    def _pass_over_the_silent(self, now: float) -> None:
        silent = {leg.number for leg in self._chain.unopened}
        self.counters["stage silent"] += len(silent)
        waited = f"no answer in {self._config.open_timeout:g} s"
        self._blame(silent, Offence.SILENT, waited, now)
        self._lose(silent, "did not answer", now)

    def _refused(self, number: int, code: str, reason: str, now: float) -> None:
        if code == Refusal.CALIBRATION and self._can_do_without_calibration():
            self._do_without_calibration(now)
            return
        if (why := self._unable.why(code, reason)) is not None:
            self._cannot_draw(number, why, now)
            return
        self.counters["stage refused"] += 1
        if code == Refusal.UNUSED and self._may_be_unused(number, now):
            # It waited for a stage before it: that is no new beginning.
            look = self._look_now()
            self._lose({number}, f"refused: {reason}", now, is_hopeful=True)
            self._look = None if self.phase is Phase.ENDED else look
            return
        is_rest = code == Refusal.DRAINING
        self._blame({number}, Offence.STEPPED_BACK if is_rest else Offence.REFUSED, reason, now)
        self._lose({number}, f"{'stepped back' if is_rest else 'refused'}: {reason}", now)

    def _cannot_draw(self, number: int, why: str, now: float, is_final: bool | None = None) -> None:
        clause = f"cannot draw as asked: {why}"
        self.counters["stage cannot draw as asked"] += 1
        [run] = (leg.run for leg in self._chain.legs if leg.number == number)
        if self._unable.refused(run.peer) if is_final is None else is_final:
            self._fail(f"{run.name} {clause}", "ask with fewer options, or update its node", now)
            return
        self._faults.release(run, clause)
        self._lose({number}, clause, now)

    # Running

    def _run(self, now: float) -> None:
        self._move(Evidence.ALL_OPENED)
        chain, look = self._chain, self._look
        self._look = None
        work = self._pace.work(chain.lacking)
        self._patience.longest = self._config.longest_look
        if chain.is_waiting:
            self._patience.longest = self._config.first_look
        if look is not None:
            self._take_look(look, work, now)
            if self._patience.is_stalled:
                self._replace_laggard(now)
                return
        late = self._holding_up(now)
        if late and look is None:  # else the look decides
            self._blame(late, Offence.STALLED, f"no progress at position {chain.end}", now)
            self._lose(late, "made no progress", now)
            return
        plan, is_new = chain.take_plan(), chain.has_new
        self._begins.opened(self._session, chain)
        chain.resume()
        self._hand_over(self._events)
        if plan is not None:
            how, reused = chain.cover.activations, self._session.reused
            self._events.append(GenerationPlanned(self.number, plan, how, reused))
        self._opened(self._patience.opened(now))
        self.reason = ""
        if is_new:
            self._session.sent_at = now
            self._patience.fed(work, now)
            self._flow.begins(chain, chain.end, now)
        elif look is not None and look.is_for_slowness and not self._session.has_token:
            self._seek_better(now)
        self._take_tokens(now)

    def _accept(self, batch: Batch, now: float) -> None:
        session, is_first = self._session, not self._session.tokens
        trip = now - session.sent_at
        token = session.accept(batch, now)
        self._chain.answered()
        self._events.append(
            TokenProduced(
                self.number,
                token,
                batch.start,
                trip,
                batch.compute_us / 1e6,
                self._chain.hops,
                batch.micronats / 1e6,
                session.codings,
                session.logprobs_untrusted(batch),
                session.mean_untrusted(batch),
            )
        )
        over = session.over
        if over:
            self._end(GenerationFinished(self.number, over), over, now)
            return
        if is_first or self._is_replayed:
            self._pace.many(trip, session.end - (session.reused if is_first else 0))
        else:
            self._pace.token(trip, self._answers())
        self._chain.feed((session.follow(token, batch.start, now),))
        self._flow.begins(self._chain, 1, now)
        if self._is_replayed:
            self._is_replayed = False
            self._faults.token_came()
        self._patience.answered(self._pace.expected, now)
        if self._pace.is_slow:  # look while the next token is under way
            self._patience.look_at(now + self._pace.late / 2)

    def _look_at_chain(self, now: float) -> None:
        """The token is late: open the same chain anew, and so learn who has computed what."""
        is_for_slowness = self._pace.is_slow and self._patience.looks == 0
        why = "looked for a slow stage" if is_for_slowness else "asked a late chain how far it is"
        self.counters[why] += 1
        self._questions.drop()  # for somebody better: the look tells anew whether that is needed
        self._chain.raise_epoch(())
        self._look = self._look_now(is_for_slowness=is_for_slowness)
        self._move(Evidence.STALLED)
        self._open(now)

    def _replace_laggard(self, now: float) -> None:
        laggard, before = self._chain.laggard()
        waited = now - self._patience.fed_at
        seen = f"no progress in {waited:.1f} s at position {self._session.end}"
        if before is None:
            self._blame({laggard.number}, Offence.STALLED, seen, now)
            lost = {laggard.number}
        else:
            lost = self._faults.starved(laggard, before, seen, now)
        self._lose(lost, "made no progress", now)

    def _seek_better(self, now: float) -> None:
        """Tokens are far slower than promised: find out by whom, and ask for somebody better."""
        leg, _ = self._chain.laggard()
        took, seen = self._pace.blame(leg)
        if self._chain.computed.get(leg.number, 0) >= self._session.end:
            return  # everybody was done when asked
        if self._is_on_its_way(leg, took):
            self.counters["slow tokens: their bytes take as long"] += 1
            return
        if leg.number not in self._slow:
            self._slow.add(leg.number)
            self._faults.slow(leg.run, seen, took * 1e6 / len(leg.run.layers), now, self._answers())

        def take(found: Covered | NoCover, moment: float) -> None:
            left = self.request.max_tokens - len(self.tokens)
            offered = None if isinstance(found, NoCover) else found.cost_us / 1e6
            if offered is None or not self._pace.pays(took, offered, self._session.end, left):
                self.counters["slow stage kept: nobody better"] += 1
                return
            self.counters["slow stage replaced"] += 1
            self._faults.release(leg.run, f"was slower than promised: {seen}")
            self._lose({leg.number}, f"slower than promised: {seen}", moment)

        standing = self._faults.standing_without(leg.run.peer, f"is slow: {seen}", now)
        self._ask((standing,), frozenset({leg.number}), take, now)

    # Ending and mending

    def _lose(self, numbers: Legs, reason: str, now: float, *, is_hopeful: bool = False) -> None:
        """These legs are lost: mend the chain, while it is worth mending."""
        chain = self._chain
        chain.lost |= numbers
        runs = {leg.run.peer: leg.run for leg in chain.legs if leg.number in numbers}
        self._credit(now)
        self._move(Evidence.LOST)
        self._questions.drop()
        self._look = None
        self._is_replayed = True
        self.reason = reason
        kept = frozenset(leg.number for leg in chain.legs) - chain.lost
        self._kept = kept if self._patience.broken_at is None else self._kept & kept
        self._patience.broken(now, is_hopeful=is_hopeful)
        self._hand_over(self._events)
        self._events.append(
            ChainBroken(
                self.number,
                chain.epoch,
                tuple(runs),
                reason,
                tuple(run.name for run in runs.values()),
                tuple(run.layers for run in runs.values()),
                self._patience.cover_by - now,
            )
        )
        chain.raise_epoch(tuple(runs))
        self._faults.repairs += 1
        if why := self._faults.beyond_repair(len(self.tokens)):
            self._give_up(why, now)
        else:
            self._find_cover(now)

    def _give_up(self, why: str, now: float) -> None:
        who = self._faults.summary or self._chain.whereabouts
        self._fail(f"given up: {why}" + (f": {who}" if who else ""), "p2pnode peers", now)

    def _fail(self, reason: str, hint: str, now: float) -> None:
        self._end(GenerationFailed(self.number, reason, hint), reason, now)

    def _end(self, event: GenerationFinished | GenerationFailed, reason: str, now: float) -> None:
        self._credit(now)
        self._move(Evidence.OVER)
        self._patience.over()
        self._questions.drop()
        self._look = None
        self.reason = reason
        is_sound = isinstance(event, GenerationFinished)
        self._chain.close(self._begins.over(self._session, self._chain) if is_sound else ())
        self._hand_over(self._events)
        self._events.append(event)
