"""What an answer is made of, and what faces see of it."""

from collections import Counter
from collections.abc import Callable, Set as AbstractSet
from typing import TypeAlias

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import LocalProtocolError
from p2pnode.inference.begins import Begins
from p2pnode.inference.chain import Chain
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Cover, Leg
from p2pnode.inference.events import ChainRepaired, InferenceEvent, LayersAwaited
from p2pnode.inference.faults import Faults
from p2pnode.inference.flow import Flow
from p2pnode.inference.pace import Pace
from p2pnode.inference.patience import Patience
from p2pnode.inference.phase import TRANSITIONS, Evidence, Phase
from p2pnode.inference.prefixes import Prefixes
from p2pnode.inference.questions import Answered, Questions
from p2pnode.inference.request import GenerationRequest, Planner, TrustBook
from p2pnode.inference.session import Session
from p2pnode.inference.unable import Unable
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.chain import NoCover, StageRun
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.standing import Standing
from p2pnode.values import value

_WORTH_A_WORD = 5.0  # seconds of waiting for layers; a node that starts has loaded its own by then

Legs: TypeAlias = AbstractSet[int]
"""Some legs of the chain, by number."""


@value
class Look:
    """A re-opening in place: what had been shown before, and why it is done.

    Attributes:
        shown: Positions that all legs together had shown to have computed.
        news: Those of them that count as progress of the answer.
        is_for_slowness: Whether a slow leg is looked for, and no late one.
    """

    shown: int
    news: int
    is_for_slowness: bool


class Parts:
    """The parts of one answer, composed.

    Fields of its life: ``_credited`` tokens were told of as good conduct; ``_slow`` legs were noted
    as slow; after a repair the next token ``_is_replayed``, and no measure of speed; ``_look`` is
    the look at the chain that is under way; ``_kept`` are the legs not lost since it last ran;
    of the layers awaited since ``_awaited_since``, ``_told`` was told.

    Attributes:
        number: Its name on this node.
        space: Names the model.
        request: What was asked.
        phase: Where it stands.
        began: When it was asked.
        reason: Why it is broken, or has ended.
        awaited: Layers for which nobody is there now.
        counters: What happened to it.
    """

    def __init__(
        self,
        number: int,
        request: GenerationRequest,
        model: ModelInfo,
        node_id: NodeId,
        config: InferenceConfig,
        planner: Planner,
        trust: TrustBook,
        rng: Rng,
        calibration: int,
        now: float,
        answers: Callable[[], int] = lambda: 1,
        prefixes: Prefixes | None = None,
    ) -> None:
        """``answers`` says how many of this node are under way, this one included.

        ``prefixes`` knows what earlier answers began with; without it nothing is reused.
        """
        self.number = number
        self.space = model.space_hash32
        self.request = request
        self.phase = Phase.PLANNING
        self.began = now
        self.reason = ""
        self.awaited: tuple[range, ...] = ()
        self.counters: Counter[str] = Counter()
        self._config = config
        key = int.from_bytes(rng.randbytes(8), "big")
        cover = Cover(request, config, node_id, calibration)
        self._begins = Begins(prefixes, request, model, cover)
        begun = self._begins.ends
        self._session = Session(request, model, key, config.prefill_chunk, now, begun)
        self._chain = Chain(self._session, cover, model, node_id, rng)
        self._begins.ask(self._session, self._chain)
        self._patience = Patience(config, request.wait, now, request.lost_wait)
        self._pace = Pace(config)
        self._flow = Flow(config, model.d_model)
        self._faults = Faults(config, trust, node_id)
        self._unable = Unable()
        self._questions = Questions(number, self._begins.asked(request), planner, self._chain)
        self._events: list[InferenceEvent] = []
        self._credited = 0
        self._look: Look | None = None
        self._slow: set[int] = set()
        self._is_replayed = False
        self._answers = answers
        self._kept: frozenset[int] = frozenset()
        self._told: tuple[range, ...] = ()
        self._awaited_since = now

    def _move(self, evidence: Evidence) -> None:
        following = TRANSITIONS.get((self.phase, evidence))
        if following is None:
            raise LocalProtocolError(f"{evidence.name} makes no sense while {self.phase.name}")
        self.phase = following

    def _ask(
        self,
        standings: tuple[Standing, ...],
        lost: frozenset[int],
        answered: Answered,
        now: float,
    ) -> None:
        asked = self._questions.ask(standings, lost, answered, now)
        if asked is not None:
            self._events.append(asked)

    def _blame(
        self, numbers: Legs, offence: Offence, evidence: str, now: float, *, share: float = 1.0
    ) -> None:
        runs = {leg.run.peer: leg.run for leg in self._chain.legs if leg.number in numbers}
        for run in runs.values():
            self._faults.blame(run, offence, evidence, now, share=share)

    def _credit(self, now: float) -> None:
        """Tell of the good conduct of those who are still in the chain, and of its speed.

        A trip tells that a peer is slow only where that one did all: which of several was, none
        of them is to be believed. That none took longer than all of them did is beyond doubt.
        """
        peers = {leg.run.peer for leg in self._chain.legs}
        if len(peers) == 1 and (layer := self._pace.shown_by(self._chain.legs)) is not None:
            self._faults.observed(min(peers), layer * 1e6, now)
        chain, tokens = self._chain, len(self.tokens)
        runs = tuple(leg.run for leg in chain.legs if leg.number not in chain.lost)
        if (trip := self._pace.trip) is not None:
            self._faults.took_at_most(runs, trip * 1e6, now)
        self._faults.served(runs, tokens - self._credited, now)
        self._credited = tokens

    def _may_be_unused(self, number: int, now: float) -> bool:
        """Whether a leg may truly have waited in vain; each peer is believed once an answer."""
        waited = now - self._patience.opened_at
        if self._chain.computed.get(number, 0) or waited < self._config.unused_after / 2:
            return False
        [peer] = (leg.run.peer for leg in self._chain.legs if leg.number == number)
        return self._faults.excuses(peer)

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

    def _look_now(self, *, is_for_slowness: bool = False) -> Look:
        return Look(self._chain.shown, self._news, is_for_slowness)

    @property
    def _news(self) -> int:
        """Positions shown by legs whose work is progress: a replay over and over is none."""
        computed, is_news = self._chain.computed, self._faults.is_news
        return sum(computed.get(leg.number, 0) for leg in self.legs if is_news(leg.run.peer))

    def _take_look(self, look: Look, work: float, now: float) -> None:
        """All legs have answered a ``look``; what is left should take ``work`` seconds."""
        chain = self._chain
        flowed = self._flow.explains(chain, now)
        is_fine = look.is_for_slowness or self._session.has_token
        moved = is_fine or chain.shown > look.shown
        is_news = is_fine or self._news > look.news
        if flowed:
            is_news = is_news or self._faults.is_news(chain.laggard()[0].run.peer)
        self._patience.looked(work, now, flowed, moved=moved, is_news=is_news)
        if moved or flowed:
            self._flow.moved(chain, now)

    def _holding_up(self, now: float) -> Legs:
        """Return who has kept its work too long, whoever else was lost meanwhile."""
        late, end, asked = set[int](), self._session.end, self._patience.opened_at
        for leg, lacking in self._chain.in_hand:
            ample = self._pace.ample(leg, lacking)
            if self._faults.holds_up(leg.number, end - lacking, ample, asked, now):
                late.add(leg.number)
        return late

    def _can_do_without_calibration(self) -> bool:
        return bool(self._chain.cover.calibration) and not self._chain.is_fed

    def _is_on_its_way(self, leg: Leg, took: float) -> bool:
        """Whether the input of ``leg``, which ``took`` so long, may take as long to get there."""
        has_work = self._chain.reached.get(leg.number, 0) >= self._session.end
        return not has_work and took <= leg.run.cost_us / 1e6 + self._flow.of_row(self._chain)

    def _tell_what_is_awaited(self, missing: NoCover, now: float) -> None:
        """Tell it once for each set of layers, and not where a node is only about to serve them."""
        if not self.awaited:
            self._awaited_since = now
        self.awaited = missing.missing
        if self._told != self.awaited and now >= self._awaited_since + _WORTH_A_WORD:
            self._told = self.awaited
            left = self._patience.cover_by - now
            self._events.append(
                LayersAwaited(self.number, self.awaited, left, tuple(missing.reasons))
            )

    def _opened(self, seconds: float | None) -> None:
        """All stages compute; after a loss, ``seconds`` ago, tell who took over."""
        chain, was_changed = self._chain, self.numerics_changed
        chain.numerics.opened(chain.legs, is_shown=bool(self.tokens))
        if self.numerics_changed and not was_changed:
            self.counters["no longer bit-reproducible"] += 1
        if seconds is None:
            return
        runs = tuple(leg.run for leg in chain.legs)
        instead = tuple(leg.run for leg in chain.legs if leg.number not in self._kept)
        changed = self.numerics_changed
        self._events.append(
            ChainRepaired(self.number, chain.epoch, runs, seconds, instead, changed)
        )

    def _hand_over(self, events: list[InferenceEvent]) -> None:
        """Put what the chain has to say behind ``events``."""
        events += self._chain.outbox
        self._chain.outbox.clear()

    # What faces show

    @property
    def reused(self) -> int:
        """Positions that no stage had to compute, since each held them from an earlier answer."""
        return self._session.reused

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
    def repairs(self) -> int:
        """How often its chain had to be mended."""
        return self._faults.repairs

    @property
    def numerics_changed(self) -> str:
        """Why the answer is no longer bit-reproducible; empty while it is."""
        return self._chain.numerics.changed

    @property
    def lost(self) -> tuple[StageRun, ...]:
        """Who was lost, and is not yet replaced."""
        chain = self._chain
        return tuple(leg.run for leg in chain.legs if leg.number in chain.lost)

    @property
    def cover_by(self) -> float:
        """When it fails if its layers are still awaited then."""
        return self._patience.cover_by

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
