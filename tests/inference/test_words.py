"""An answer hears anything from its stages, in any order: it ends in time, and never the node."""

from random import Random
from typing import Any

from hypothesis import given, settings, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.activations import Batch, to_frames, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.core import Inference
from p2pnode.inference.events import (
    ComputeRequested,
    GenerationFailed,
    GenerationFinished,
    PlanRequested,
    SendFrame,
    TokenProduced,
)
from p2pnode.inference.generation import Generation
from p2pnode.inference.messages import Control, Failed, Opened, Refusal, Refused
from p2pnode.inference.phase import Phase
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Computed, WorkFailed
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.trust import Ledger
from p2pnode.testing.frames import Roster, node_id
from p2pnode.wire.vframe import encode_frame

US, B, C, SPARE, NOBODY = (node_id(name) for name in ("us", "b", "c", "spare", "nobody"))
MODEL = random_model(5, n_layers=4).info
PROMPT, TOKENS = (1, 2, 3, 4, 5), 6
CONFIG = InferenceConfig(prefill_chunk=3)
LONGEST = 3 * CONFIG.give_up


class Asker:
    """A node that asks one answer, of stages whose words the test chooses."""

    def __init__(self, *, brief: bool) -> None:
        holders = {B: range(2), C: range(2, 4), SPARE: range(4), US: range(1)}
        self.roster = Roster(holders, 4, brief=brief)
        self.ledger = Ledger()
        self.core = Inference(CONFIG, US, self.roster, Random(1), trust=self.ledger)
        self.core.use_model(MODEL)
        self.core.serve(MODEL, range(1), 1 << 30)
        self.now = 0.0
        self.tokens: list[int] = []
        self.ends = 0
        self.jobs: list[ComputeRequested] = []
        self.plans: list[PlanRequested] = []
        self.core.generate(GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset()), 0.0)
        self.take()

    @property
    def answer(self) -> Generation:
        [generation] = self.core.generations()
        return generation

    def hear(self, source: Any, message: Control) -> None:
        frame = control_frame(message, MODEL.space_hash32)
        self.core.receive_frame_untrusted(frame, source, self.now)
        self.take()

    def take(self) -> None:
        for _ in range(100):
            events = self.core.take_events()
            if not events:
                break
            for event in events:
                self._take(event)
        else:
            raise AssertionError("it never has said enough")

    def _take(self, event: object) -> None:
        match event:
            case SendFrame(peer, frame):
                assert encode_frame(frame)
                if peer == US:
                    self.core.receive_frame_untrusted(frame, US, self.now)
            case ComputeRequested():
                self.jobs.append(event)
            case PlanRequested():
                self.plans.append(event)
            case TokenProduced():
                self.tokens.append(event.token)
            case GenerationFinished() | GenerationFailed():
                self.ends += 1

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.core.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.handle_timeout(self.now)
            self.take()
            after = self.core.next_timeout()
            assert after is None or after > self.now
        self.now = end


PEERS = st.sampled_from((B, C, SPARE, US, NOBODY))
LEGS = st.integers(0, 2)
POSITIONS = st.sampled_from((0, 1, 3, 4, 5, 6, 900))
CODES = st.sampled_from([*Refusal, "unheard of"])
WORDS = st.one_of(
    st.tuples(st.just("all open"), POSITIONS),
    st.tuples(st.just("all open"), st.just(0)),
    st.tuples(st.just("token"), st.integers(-1, 2), st.integers(0, 60)),
    st.tuples(st.just("token"), st.just(0), st.integers(0, 60)),
    st.tuples(st.just("opened"), LEGS, POSITIONS, st.one_of(st.none(), POSITIONS)),
    st.tuples(st.just("refused"), LEGS, CODES),
    st.tuples(st.just("failed"), LEGS, PEERS),
    st.tuples(st.just("from"), PEERS, st.integers(0, 3), st.integers(0, 4)),
    st.tuples(st.just("lost"), PEERS, st.sampled_from((None, *Offence))),
    st.tuples(st.just("back")),
    st.tuples(st.just("planned"), st.booleans()),
    st.tuples(st.just("computed"), st.booleans()),
    st.tuples(st.just("run"), st.sampled_from((0.0, 0.3, 2.0, 3.5))),
)
ENDS = st.sampled_from((("run", 40.0), ("cancel",), ("token", 0, 7)))


def happen(asker: Asker, word: tuple[Any, ...]) -> None:
    answer, core, now = asker.answer, asker.core, asker.now
    key, epoch, legs = answer.session, answer.epoch, answer.legs
    match word:
        case "all open", position:
            for leg in legs:
                asker.hear(leg.run.peer, Opened(key, epoch, leg.number, position, position))
        case "opened", which, position, computed if which < len(legs):
            leg = legs[which]
            asker.hear(leg.run.peer, Opened(key, epoch, leg.number, position, computed))
        case "refused", which, code if which < len(legs):
            leg = legs[which]
            asker.hear(leg.run.peer, Refused(key, epoch, leg.number, code, "why not"))
        case "failed", which, culprit if which < len(legs):
            leg = legs[which]
            asker.hear(leg.run.peer, Failed(key, epoch, leg.number, culprit, "it did"))
        case "from", peer, some_epoch, number:
            asker.hear(peer, Opened(key, some_epoch, number, 3))
            asker.hear(peer, Failed(key, some_epoch, number, peer, "so what"))
        case "token", ahead, token if answer._chain.answer_edge is not None:
            edge = answer._chain.answer_edge
            start = max(1, answer._session.wanted + ahead)
            batch: Batch = token_batch((token * 5,), start)
            for frame in to_frames(batch, edge.stream, MODEL.space_hash32):
                core.receive_frame_untrusted(frame, edge.peer, now)
        case "lost", peer, offence:
            core.peer_lost(peer, "silent for 1.0 s", now, offence)
        case ("back",):
            core.peer_back(B, now)
        case "planned", newest if asker.plans:
            asked = asker.plans.pop(-1 if newest else 0)
            core.planned(asked.generation, asked.ticket, asked.task(), now)
        case "computed", well if asker.jobs:
            job = asker.jobs.pop(0).job
            core.compute_finished(job, Computed((), 1) if well else WorkFailed("no"), now)
        case "run", seconds:
            asker.run(seconds)
        case ("cancel",):
            core.cancel(1, now)
    asker.take()


@settings(max_examples=80, deadline=None)
@given(st.lists(WORDS, min_size=20, max_size=80), ENDS, st.booleans())
def test_an_answer_ends_once_and_in_time_whatever_its_stages_say(
    words: list[tuple[Any, ...]], last: tuple[Any, ...], brief: bool
) -> None:
    asker = Asker(brief=brief)
    for word in (*words, last):
        shown = list(asker.tokens)
        happen(asker, word)
        assert asker.tokens[: len(shown)] == shown
        assert len(asker.tokens) <= TOKENS
        _check(asker)
    asker.run(LONGEST)
    assert asker.answer.phase is Phase.ENDED
    assert asker.ends == 1
    assert not asker.ledger.standing(asker.now).is_proven(NOBODY)
    assert NOBODY not in asker.ledger._pages, "blamed, and never asked"
    assert US not in asker.ledger._pages


def _check(asker: Asker) -> None:
    answer = asker.answer
    chain, patience, session = answer._chain, answer._patience, answer._session
    assert (patience.deadline is None) == (answer.phase is Phase.ENDED)
    if answer.phase in {Phase.OPENING, Phase.RUNNING}:
        assert not chain.lost
        assert {leg.number for leg in chain.legs} >= set(chain.reached)
    if answer.phase is Phase.RUNNING:
        assert {leg.number for leg in chain.legs} == set(chain.reached)
    if answer._look is not None:
        assert answer.phase is Phase.OPENING
    if answer.phase is not Phase.ENDED and patience.deadline is not None:
        assert patience.deadline <= max(patience.limit, asker.now)
    assert session.wanted == len(PROMPT) + len(session.tokens)
    assert session.inbox.position >= 0
    assert all(0 <= chain.computed.get(leg.number, 0) <= session.end for leg in chain.legs)
