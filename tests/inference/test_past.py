"""What a draw depends on travels: no loss of a stage shows in an answer under penalties."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import MOST_PAST, Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import ConfigError, RemoteProtocolError, UserError
from p2pnode.inference.activations import token_batch, token_of_untrusted
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.distrust import BriefDistrust
from p2pnode.inference.draw_body import NOBODYS_LAYER
from p2pnode.inference.events import GenerationFailed, GenerationFinished, TokenProduced
from p2pnode.inference.messages import Edge, Open, Refusal, Refused, from_body_untrusted, to_body
from p2pnode.inference.phase import Phase
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.running import run_work
from p2pnode.inference.work import Computed, Forward, WorkFailed
from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import Offence
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.testing.stand_in import stand_in
from p2pnode.wire.messages import parse_sync_untrusted, sync_frame
from p2pnode.wire.vframe import Frame, MessageType
from tests.inference.killed import kill_after, tokens_of

A, B, C, SPARE, TAIL = (node_id(name) for name in ("a", "b", "c", "spare", "tail"))
PROMPT = tuple(range(3, 43))
TOKENS = 12
HARSH = Sampling(
    repetition_penalty=1.8, presence_penalty=1.5, frequency_penalty=1.5, penalty_last_n=24
)
WARM = replace(HARSH, temperature=0.9, top_p=0.95, min_p=0.02, seed=7)
ANSWER_ALONE = Sampling(presence_penalty=2, frequency_penalty=1)


NOTED: list[Offence] = []


class Book(BriefDistrust):
    """Keeps what peers are blamed for."""

    def note(
        self, peer: NodeId, offence: Offence, evidence: str, now: float, *, share: float = 1.0
    ) -> None:
        NOTED.append(offence)
        super().note(peer, offence, evidence, now, share=share)


def three(seed: int, **more: range) -> FrameNetwork:
    holders = {A: range(2), B: range(2, 4), C: range(4, 6)}
    holders |= {node_id(name): held for name, held in more.items()}
    engines = {
        peer: random_model(5, n_layers=6, vocab_size=64, layers=held)
        for peer, held in holders.items()
    }
    config = InferenceConfig(prefill_chunk=16)
    return FrameNetwork(seed, engines, config, trust=lambda: Book(config.distrust))


def request(sampling: Sampling, max_tokens: int = TOKENS) -> GenerationRequest:
    return GenerationRequest(PROMPT, max_tokens, sampling, frozenset())


@cache
def undisturbed(sampling: Sampling) -> list[int]:
    network = three(seed=0)
    number = network.generate(A, request(sampling))
    network.run(seconds=10)
    return network.tokens(A, number)


def test_penalties_change_this_answer() -> None:
    plain = undisturbed(Sampling())
    for sampling in (HARSH, ANSWER_ALONE):
        assert len(set(undisturbed(sampling))) > len(set(plain))
    assert undisturbed(replace(HARSH, penalty_last_n=1)) != undisturbed(HARSH)


@pytest.mark.parametrize("victim", [B, C])
@pytest.mark.parametrize("token", range(TOKENS))
@pytest.mark.parametrize(
    "sampling", [HARSH, WARM, ANSWER_ALONE], ids=["greedy", "sampled", "answer"]
)
def test_a_kill_after_any_token_changes_no_token(
    victim: NodeId, token: int, sampling: Sampling
) -> None:
    network = three(seed=token, spare=range(2, 4), tail=range(4, 6))
    kill_after(network, victim, len(PROMPT) + token)
    assert tokens_of(network, A, request(sampling)) == undisturbed(sampling)


@pytest.mark.parametrize("step", range(30))
def test_a_kill_at_any_moment_changes_no_token(step: int) -> None:
    network = three(seed=step, spare=range(2, 4), tail=range(4, 6))
    number = network.generate(A, request(HARSH))
    network.run(seconds=step * 0.003)
    network.kill(C if step % 3 else B)
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed(HARSH)


def test_last_stages_that_die_one_after_the_other_change_no_token() -> None:
    network = three(seed=8, tail=range(4, 6), last=range(4, 6))
    kills = {len(PROMPT) + 2: C, len(PROMPT) + 6: TAIL}
    network.on_token = lambda event: (
        network.kill(kills[event.position]) if event.position in kills else None
    )
    number = network.generate(A, request(WARM))
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed(WARM)


def test_a_look_at_the_chain_after_every_token_changes_none() -> None:
    """The last stage keeps its leg: what it drew in one epoch counts in the next."""
    network = three(seed=3)

    def look(event: TokenProduced) -> None:
        generation = network.cores[A].generations()[0]
        if generation.phase is Phase.RUNNING:
            generation._look_at_chain(network.now)

    network.on_token = look
    number = network.generate(A, request(WARM))
    network.run(seconds=60)
    assert network.cores[A].generations()[0].epoch >= TOKENS - 1
    assert network.tokens(A, number) == undisturbed(WARM)


def test_no_more_of_the_past_is_told_than_a_draw_depends_on() -> None:
    told: list[Open] = []

    def note(frame: Frame, destination: NodeId) -> None:
        if frame.type is MessageType.SYNC:
            message = from_body_untrusted(parse_sync_untrusted(frame))
            if isinstance(message, Open):
                told.append(message)

    for sampling, expected in ((HARSH, PROMPT[-24:]), (ANSWER_ALONE, ()), (Sampling(), None)):
        told.clear()
        network = three(seed=1)
        network.on_frame = note
        network.generate(A, request(sampling))
        network.run(seconds=10)
        assert [order.past and order.past.tokens for order in told] == [None, None, expected]


def test_an_answer_too_long_to_be_told_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=str(MOST_PAST)):
        three(seed=1).generate(A, request(HARSH, MOST_PAST + 1))


# Orders as they travel

ORDER = Open(1, 0, 2, range(4, 6), 200, Edge(A, 5), Edge(A, 6), "f16", HARSH, 30)
PAST = Past(25, 30, tuple(range(6, 30)))
NUMBERS = [0, 1, *(2**bits + more for bits in (31, 32, 63, 64) for more in (-1, 0, 1))]


def test_a_plain_order_says_what_it_always_said() -> None:
    body = to_body(replace(ORDER, sampling=Sampling(0.5, 40, 0.9, 3)))
    assert "draw" not in body
    assert (body["layers"], body["sampling"]) == (
        [4, 6],
        {"temperature": 0.5, "top_k": 40, "top_p": 0.9, "seed": 3},
    )


@pytest.mark.parametrize("sampling", [HARSH, WARM, Sampling(min_p=0.5)])
def test_an_order_with_more_is_one_that_older_stages_refuse(sampling: Sampling) -> None:
    order = replace(ORDER, sampling=sampling, past=PAST if sampling.needs_past else None)
    body = to_body(order)
    assert body["layers"] == [4, NOBODYS_LAYER]
    assert body["sampling"] is None
    assert from_body_untrusted(body) == order


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, (1 << 24) - 1), max_size=60), st.integers(0, 60))
def test_any_past_travels_whole(tokens: list[int], begins: int) -> None:
    order = replace(ORDER, sample_from=60, past=Past(begins, 60, tuple(tokens)))
    assert from_body_untrusted(to_body(order)) == order


@given(
    st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.sampled_from([0.0, 5e-324, 100.0, 101.0])
)
def test_what_may_be_asked_for_is_read_by_stages(top_k: int, seed: int, warmth: float) -> None:
    """What they cannot read they leave unanswered: the question would look like a lost stage."""
    for min_p in (0.0, 0.5):
        with suppress(ConfigError):
            order = replace(ORDER, sampling=Sampling(warmth, top_k, 0.9, seed, min_p))
            assert from_body_untrusted(parse_sync_untrusted(control_frame(order, 7))) == order


def test_the_longest_past_fits_one_frame() -> None:
    tokens = ((1 << 24) - 1,) * MOST_PAST
    order = replace(ORDER, sample_from=MOST_PAST, past=Past(0, MOST_PAST, tokens))
    assert from_body_untrusted(parse_sync_untrusted(control_frame(order, 7))) == order


@pytest.mark.parametrize(
    "change",
    [
        {"past": "AAA"},
        {"past": "AAAA" * 31},
        {"past": "AAAA" * (MOST_PAST + 1)},
        {"past": "AA=="},
        {"past": "\u00e9AAA"},
        {"past": 5},
        {"past": None},
        {"begins": 31},
        {"begins": -1},
        {"min_p": 2},
        {"min_p": None},
        {"repetition": 0},
        {"frequency": "1"},
        {"last_n": 0},
        {"last_n": MOST_PAST + 1},
        {"end": NOBODYS_LAYER},
        {"end": 4},
    ],
    ids=str,
)
def test_a_past_or_an_option_that_cannot_be_is_refused(change: Mapping[str, Any]) -> None:
    body = to_body(replace(ORDER, past=PAST))
    draw = {**body["draw"], **change}  # type: ignore[dict-item]
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted({**body, "draw": draw})


scraps = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=4), one, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_a_draw_says_it_is_read_or_refused(data: st.DataObject) -> None:
    body = to_body(replace(ORDER, past=PAST, sampling=replace(HARSH, logprobs=3)))
    draw = body["draw"]
    assert isinstance(draw, dict)
    keys = st.sampled_from([*draw, "schema", "ends", "mirostat"])
    draw |= data.draw(st.dictionaries(keys, scraps, min_size=1, max_size=2))
    with suppress(RemoteProtocolError):
        assert isinstance(from_body_untrusted(body), Open)


def answer_to(order: Open, **changes: object) -> Refused | None:
    """Return how a stage that holds layers 4 and 5 refuses ``order``; None where it serves."""
    network = three(seed=1)
    said: list[object] = []
    network.on_frame = lambda frame, to: said.append(
        from_body_untrusted(parse_sync_untrusted(frame))
    )
    body = to_body(order)
    body["draw"] = {**body["draw"], **changes}  # type: ignore[dict-item]
    frame = sync_frame(body, stream_id=1, frame_seq=0, space_hash32=network.space)
    network.cores[C].receive_frame_untrusted(frame, A, 0.0)
    network._collect(C)
    [answer] = said
    return answer if isinstance(answer, Refused) else None


def test_what_a_stage_does_not_know_it_refuses_by_name() -> None:
    refused = answer_to(replace(ORDER, past=PAST), mirostat=2)
    assert refused is not None
    assert (refused.code, "mirostat" in refused.reason) == (Refusal.SAMPLING, True)


@pytest.mark.parametrize(
    "past",
    [None, Past(25, 30, ()), Past(25, 30, tuple(range(23))), Past(0, 30, tuple(range(29)))],
)
def test_a_past_with_a_gap_is_refused(past: Past | None) -> None:
    refused = answer_to(replace(ORDER, past=past))
    assert refused is not None
    assert refused.code == Refusal.SAMPLING


def test_a_past_beyond_the_vocabulary_is_refused() -> None:
    refused = answer_to(replace(ORDER, past=replace(PAST, tokens=(64,) * 24)))
    assert refused is not None
    assert "vocabulary" in refused.reason
    assert answer_to(replace(ORDER, past=PAST)) is None


@pytest.mark.parametrize(("end", "is_drawn"), [(29, True), (30, True), (31, False)])
def test_no_token_is_drawn_after_one_that_nobody_drew(end: int, is_drawn: bool) -> None:
    engine = random_model(5, n_layers=2, vocab_size=64)
    work = Forward(b"1", range(2), (token_batch((7,) * end, 0),), "f16", HARSH, 20, past=PAST)
    result = run_work(engine, work, lambda: 0.0)
    assert isinstance(result, Computed) is is_drawn
    assert is_drawn or (isinstance(result, WorkFailed) and result.is_undrawable)


def test_a_position_drawn_again_gives_the_same_token() -> None:
    engine = random_model(5, n_layers=2, vocab_size=64)

    def draw(session: bytes, past: Past) -> int:
        work = Forward(session, range(2), (token_batch((7,) * 30, 0),), "f16", WARM, 20, past=past)
        result = run_work(engine, work, lambda: 0.0)
        assert isinstance(result, Computed)
        return token_of_untrusted(result.batches[0])

    assert draw(b"1", PAST) == draw(b"2", PAST.then(9).then(11))


# Stages of an older version


def as_older(network: FrameNetwork, *peers: NodeId) -> None:
    """Let ``peers`` read of an order what a version reads that knows no ``draw``."""
    for peer in peers:
        receive = network.cores[peer].receive_frame_untrusted

        def read(
            frame: Frame, source: NodeId, now: float, receive: Callable[..., Any] = receive
        ) -> object:
            if frame.type is MessageType.SYNC:
                body = parse_sync_untrusted(frame)
                body.pop("draw", None)
                frame = sync_frame(body, stream_id=1, frame_seq=0, space_hash32=network.space)
            return receive(frame, source, now)

        network.cores[peer] = stand_in(network.cores[peer], receive_frame_untrusted=read)


def test_a_stage_of_an_older_version_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    network = three(seed=1, tail=range(4, 6))
    as_older(network, C)
    NOTED.clear()
    number = network.generate(A, request(HARSH))
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed(HARSH)
    assert isinstance(network.events[-1][2], GenerationFinished)
    generation = network.cores[A].generations()[0]
    assert generation.counters["stage cannot draw as asked"] == 1
    assert generation.counters["stage refused"] == 0
    assert not NOTED  # to be of another version is no offence


def test_where_all_are_older_the_answer_fails_soon_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = three(seed=1, tail=range(4, 6))
    as_older(network, C, TAIL)
    network.generate(A, request(HARSH))
    network.run(seconds=10)
    final = network.events[-1][2]
    assert isinstance(final, GenerationFailed)
    assert "cannot draw as asked: its version is older" in final.reason
    plain = network.generate(A, request(Sampling()))
    network.run(seconds=10)
    assert network.tokens(A, plain) == undisturbed(Sampling())
