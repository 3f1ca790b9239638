"""Answers whose hidden states travel coarser than f16: repaired to the bit, and never unasked."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import Batch, to_frames
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import GenerationFinished, TokenProduced
from p2pnode.inference.messages import Edge, Open, from_body_untrusted, to_body
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.tensor_policy import Evidence, Link
from p2pnode.inference.terms import LADDER, Terms, names_of_mask
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.calibration import CalibrationSet, measure_calibration
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.states import Rung, encode_states
from p2pnode.wire.vframe import Frame, MessageType, Slice

A, B, C = (node_id(name) for name in ("a", "b", "c"))
PROMPT = tuple(range(3, 43))
TOKENS = 12
SLOW = Link(goodput=1e4, delay=0.001)
"""A prompt's batch of 16 rows takes 0.1 s in f16, and a single row 6 ms."""


def swarm(
    seed: int,
    *,
    calibrations: dict[NodeId, CalibrationSet] | None = None,
    budget: float = 1.0,
    **more: range,
) -> FrameNetwork:
    holders = {A: range(2), B: range(2, 4), C: range(4, 6)}
    holders |= {node_id(name): held for name, held in more.items()}
    engines = {peer: random_model(5, n_layers=6, layers=held) for peer, held in holders.items()}
    config = InferenceConfig(prefill_chunk=16, kl_budget=budget)
    return FrameNetwork(seed, engines, config, calibrations=calibrations)


def request(
    activations: str, max_tokens: int = TOKENS, sampling: Sampling | None = None
) -> GenerationRequest:
    return GenerationRequest(
        PROMPT, max_tokens, sampling or Sampling(), frozenset(), activations=activations
    )


def answer(network: FrameNetwork, asked: GenerationRequest, seconds: float = 30.0) -> list[int]:
    number = network.generate(A, asked)
    network.run(seconds=seconds)
    assert isinstance(network.events[-1][2], GenerationFinished)
    return network.tokens(A, number)


@cache
def undisturbed(asked: GenerationRequest, *, calibrated: bool = False) -> list[int]:
    """Return the answer of a chain in which nobody is killed."""
    known = dict.fromkeys((A, B, C), calibrations(1)) if calibrated else None
    return answer(swarm(0, calibrations=known), asked)


def codings_of(network: FrameNetwork, number: int = 1) -> tuple[str, ...]:
    """Return what the answer says of itself."""
    one = next(one for one in network.cores[A].generations() if one.number == number)
    return names_of_mask(one.codings)


def count_codings(network: FrameNetwork) -> Counter[tuple[NodeId, int]]:
    """Return, filled as the network runs, how often whom which type of hidden states was sent."""
    seen: Counter[tuple[NodeId, int]] = Counter()

    def note(frame: Frame, destination: NodeId) -> None:
        if frame.type is MessageType.THINK and frame.slices[0].shape[-1] != 4:
            seen[destination, frame.slices[0].dtype] += 1

    network.on_frame = note
    return seen


# Pinned


@pytest.mark.parametrize(
    ("activations", "dtype"), [("i8", DType.I8), ("q4", DType.Q4), ("q2", DType.Q2)]
)
def test_a_pinned_coding_is_the_only_one_between_stages(activations: str, dtype: DType) -> None:
    network = swarm(1)
    seen = count_codings(network)
    assert len(answer(network, request(activations))) == TOKENS
    assert {kind for _, kind in seen} == {dtype}
    assert codings_of(network) == (activations,)
    tokens = [event for *_, event in network.events if isinstance(event, TokenProduced)]
    assert all(token.kl > 0 for token in tokens)
    assert not any(core.stages() for core in network.cores.values())


def test_f16_says_nothing_of_codings_and_sends_what_it_always_sent() -> None:
    network = swarm(1)
    frames: list[Frame] = []
    network.on_frame = lambda frame, destination: frames.append(frame)
    answer(network, request("f16"))
    thinks = [frame for frame in frames if frame.type is MessageType.THINK]
    assert {len(frame.slices) for frame in thinks} == {2}
    assert {len(frame.slices[1].payload) for frame in thinks} == {8}
    opens = [parse_sync_untrusted(frame) for frame in frames if frame.type is MessageType.SYNC]
    assert all("coding" not in body for body in opens)
    assert codings_of(network) == ()


@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
@pytest.mark.parametrize("activations", ["i8", "q4"])
@pytest.mark.parametrize("victim", [B, C])
@pytest.mark.parametrize("token", range(TOKENS))
def test_a_kill_after_any_token_changes_no_token(
    activations: str, victim: NodeId, token: int, calibrated: bool
) -> None:
    names = (A, B, C, node_id("spare"), node_id("tail"))
    known = dict.fromkeys(names, calibrations(1)) if calibrated else None
    asked = request(activations, sampling=Sampling(0.9, 40, 0.95, 7) if token % 2 else Sampling())
    network = swarm(token, calibrations=known, spare=range(2, 4), tail=range(4, 6))
    network.on_token = lambda event: (
        network.kill(victim) if event.position == len(PROMPT) + token else None
    )
    assert answer(network, asked) == undisturbed(asked, calibrated=calibrated)


@pytest.mark.parametrize("activations", ["i8", "q4"])
@pytest.mark.parametrize("step", range(20))
def test_a_kill_at_any_moment_changes_no_token(activations: str, step: int) -> None:
    network = swarm(step, spare=range(2, 4), tail=range(4, 6))
    number = network.generate(A, request(activations))
    network.run(seconds=step * 0.004)
    network.kill(B if step % 2 else C)
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed(request(activations))


def test_lost_layers_covered_in_two_parts_change_no_bit() -> None:
    """The cut between the two carries f32, those beside it what they carried before."""

    def states_into_c(network: FrameNetwork) -> dict[int, list[bytes]]:
        states: dict[int, list[bytes]] = {}

        def note(frame: Frame, destination: NodeId) -> None:
            if frame.type is MessageType.THINK and destination == C:
                states[frame.frame_seq] = [bytes(piece.payload) for piece in frame.slices[:-1]]

        network.on_frame = note
        return states

    calm = swarm(0)
    expected = states_into_c(calm)
    tokens = answer(calm, request("q4"))
    network = swarm(4, one=range(2, 3), two=range(3, 4))
    states = states_into_c(network)
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 5 else None
    assert answer(network, request("q4")) == tokens
    assert states == expected
    assert codings_of(network) == ("f32", "q4")


def test_a_neighbour_takes_over_and_rounds_as_before_though_nothing_is_sent() -> None:
    expected = answer(swarm(0), request("q4"))
    network = swarm(2)
    network.roster.holders[C] = range(2, 6)
    engine = random_model(5, n_layers=6, layers=range(2, 6))
    network._engines[C] = engine
    network.cores[C].serve(engine.info, range(2, 6), 1 << 30)
    network.roster.holders[C] = range(4, 6)
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 3 else None
    number = network.generate(A, request("q4"))
    network.run(seconds=0.02)
    network.roster.holders[C] = range(2, 6)
    network.run(seconds=30)
    assert network.tokens(A, number) == expected


# Only what both ends read


@pytest.mark.parametrize("activations", ["i8", "q4", "q2", "auto"])
def test_nobody_is_sent_what_it_does_not_read(activations: str) -> None:
    network = swarm(3)
    network.roster.reads[C] = frozenset({Rung.F16})
    network.ways = {B: SLOW, C: SLOW}
    seen = count_codings(network)
    for _ in range(4):
        answer(network, request(activations))
    assert {kind for peer, kind in seen if peer == C} == {DType.F16}
    assert any(kind != DType.F16 for peer, kind in seen if peer == B)


def test_only_those_who_read_what_was_sent_take_over() -> None:
    expected = answer(swarm(0), request("q4"))
    network = swarm(5, old=range(2, 4), new=range(2, 4))
    network.roster.reads[node_id("old")] = frozenset({Rung.F16, Rung.I8})
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 3 else None
    assert answer(network, request("q4")) == expected
    assert "new" in [leg.run.name for leg in network.cores[A].generations()[0].legs]


# By the link


def test_auto_on_fast_links_is_f16_to_the_bit() -> None:
    expected = answer(swarm(0), request("f16"))
    network = swarm(7)
    seen = count_codings(network)
    for _ in range(5):
        assert answer(network, request("auto")) == expected
    assert {kind for _, kind in seen} == {DType.F16}
    assert codings_of(network, 5) == ("f16",)


def test_auto_steps_down_on_a_slow_link_and_up_when_it_recovers() -> None:
    network = swarm(8, budget=100.0)
    network.ways = {C: SLOW}
    for _ in range(6):
        answer(network, request("auto"))
    coarse = {key: state.used for key, state in network.cores[B].edges().items()}
    # A single row in q4 takes 2 ms, which is not worth less.
    assert {key.block: used for key, used in coarse.items()} == {True: Rung.Q2, False: Rung.Q4}
    assert {state.rung for state in network.cores[A].edges().values()} == {Rung.F16}
    assert set(codings_of(network, 6)) > {"q2"}
    down = {key.block: dict(state.down) for key, state in network.cores[B].edges().items()}
    assert down == {True: {Evidence.HEAVY.value: 3}, False: {Evidence.HEAVY.value: 2}}
    network.ways = {}
    for _ in range(10):
        answer(network, request("auto"))
    assert {state.rung for state in network.cores[B].edges().values()} == {Rung.F16}
    assert codings_of(network, 16) == ("f16",)


def test_the_budget_is_shared_among_the_cuts() -> None:
    network = swarm(9, budget=0.05)
    network.ways = {B: SLOW, C: SLOW}
    for _ in range(8):
        answer(network, request("auto"))
    tokens = [event for *_, event in network.events if isinstance(event, TokenProduced)]
    assert any(token.kl > 0 for token in tokens)
    assert max(token.kl for token in tokens) <= 0.05
    reasons = {reason for state in network.cores[B].edges().values() for reason in state.up}
    assert reasons == {"its coding cost more of the answer than allowed"}


# Calibrations


@cache
def calibrations(seed: int) -> CalibrationSet:
    """Return what the model's states before each layer are like, measured on a random text."""
    text = np.random.default_rng(seed).integers(3, 250, 96)  # [tokens]
    cuts, info = {}, random_model(5, n_layers=6, layers=range(1)).info
    for cut in range(1, 6):
        engine = random_model(5, n_layers=6, layers=range(cut))
        (rows,) = engine.forward(b"text", range(cut), [text], 0)  # [tokens, d_model]
        cuts[cut] = measure_calibration(rows, space_hash32=info.space_hash32, cut=cut)
    return CalibrationSet(info.space_hash32, info.d_model, cuts)


def asked_for(network: FrameNetwork) -> list[int]:
    """Return, filled as the network runs, the calibrations that stages were opened with."""
    named: list[int] = []

    def note(frame: Frame, destination: NodeId) -> None:
        if frame.type is MessageType.SYNC:
            message = from_body_untrusted(parse_sync_untrusted(frame))
            if isinstance(message, Open) and message.terms is not None:
                named.append(message.terms.calibration)

    network.on_frame = note
    return named


def test_a_calibration_that_all_have_is_used() -> None:
    network = swarm(1, calibrations=dict.fromkeys((A, B, C), calibrations(1)))
    seen = count_codings(network)
    assert len(answer(network, request("i8"))) == TOKENS
    assert {kind for _, kind in seen} == {DType.CENTRED}
    assert codings_of(network) == ("i8",)
    named = asked_for(network)
    answer(network, request("i8"))
    assert set(named) == {calibrations(1).fingerprint}


def test_auto_uses_the_rungs_between_where_all_have_a_calibration() -> None:
    known = dict.fromkeys((A, B, C), calibrations(1))
    network = swarm(8, budget=100.0, calibrations=known)
    network.ways = {C: SLOW}
    seen = count_codings(network)
    for _ in range(8):
        answer(network, request("auto"))
    assert {kind for peer, kind in seen if peer == C} == {DType.F16, DType.CENTRED}
    sent = {name for number in range(1, 9) for name in codings_of(network, number)}
    assert sent == {"f16", "i8", "q5", "q4", "q3", "q2"}


def test_without_a_calibration_the_rungs_between_are_not_used() -> None:
    network = swarm(8, budget=100.0)
    network.ways = {C: SLOW}
    for _ in range(8):
        answer(network, request("auto"))
    sent = {name for number in range(1, 9) for name in codings_of(network, number)}
    assert sent == {"f16", "i8", "q4", "q2"}


@pytest.mark.parametrize("theirs", [None, calibrations(2)], ids=["none", "another"])
def test_a_calibration_that_one_has_not_is_done_without(theirs: CalibrationSet | None) -> None:
    expected = answer(swarm(0), request("i8"))
    known = dict.fromkeys((A, C), calibrations(1)) | ({} if theirs is None else {B: theirs})
    network = swarm(1, calibrations=known)
    named = asked_for(network)
    assert answer(network, request("i8")) == expected
    assert set(named[-3:]) == {0}
    assert network.cores[A].all_counters()["calibration not shared"] == 1


def test_who_has_another_calibration_does_not_take_over() -> None:
    spare, good = node_id("spare"), node_id("good")
    known = dict.fromkeys((A, B, C, good), calibrations(1)) | {spare: calibrations(2)}
    expected = answer(swarm(0, calibrations=known), request("q4"))
    network = swarm(6, calibrations=known, spare=range(2, 4), good=range(2, 4))
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 3 else None
    assert answer(network, request("q4")) == expected
    assert "good" in [leg.run.name for leg in network.cores[A].generations()[0].legs]


# The order's words


def open_with(terms: Terms | None) -> Open:
    edge = Edge(A, 1)
    return Open(1, 0, 1, range(2, 4), 10, edge, edge, "f16", None, 0, terms)


def test_terms_travel_in_an_order_and_are_left_out_where_there_are_none() -> None:
    terms = Terms("auto", frozenset({Rung.F16, Rung.Q4}), 0.02, 0xDEADBEEF)
    body = to_body(open_with(terms))
    assert body["coding"] == {
        "mode": "auto",
        "rungs": ["f16", "q4"],
        "kl": 0.02,
        "calibration": "deadbeef",
    }
    assert from_body_untrusted(body) == open_with(terms)
    assert "coding" not in to_body(open_with(None))


def test_a_coding_of_a_later_version_is_passed_over() -> None:
    body = to_body(open_with(Terms("auto", frozenset(LADDER), 0.02)))
    assert isinstance(body["coding"], dict)
    body["coding"]["rungs"] = ["f16", "q1", "i8"]
    read = from_body_untrusted(body)
    assert isinstance(read, Open)
    assert read.terms is not None
    assert read.terms.rungs == {Rung.F16, Rung.I8}


@pytest.mark.parametrize(
    "coding",
    [
        [],
        "auto",
        {},
        {"mode": "auto", "rungs": "f16", "kl": 0.1, "calibration": "00000000"},
        {"mode": "auto", "rungs": ["i8"], "kl": 0.1, "calibration": "00000000"},
        {"mode": "auto", "rungs": ["f16"] * 17, "kl": 0.1, "calibration": "00000000"},
        {"mode": "auto", "rungs": [["f16"]], "kl": 0.1, "calibration": "00000000"},
        {"mode": "best", "rungs": ["f16"], "kl": 0.1, "calibration": "00000000"},
        {"mode": "auto", "rungs": ["f16"], "kl": -0.1, "calibration": "00000000"},
        {"mode": "auto", "rungs": ["f16"], "kl": "much", "calibration": "00000000"},
        {"mode": "auto", "rungs": ["f16"], "kl": 0.1, "calibration": 0},
        {"mode": "auto", "rungs": ["f16"], "kl": 0.1, "calibration": "0000"},
    ],
)
def test_impossible_terms_are_refused(coding: object) -> None:
    body = to_body(open_with(None)) | {"coding": coding}
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted(body)


# Another space


def test_a_frame_of_another_space_is_answered_with_both_and_never_computed() -> None:
    network = swarm(1)
    network.generate(A, request("f16", max_tokens=40))
    network.run(seconds=0.05)
    core = network.cores[B]
    (stage,) = core.stages()
    edge, computed = stage.order.upstream, stage.next_position
    foreign = Frame(MessageType.THINK, edge.stream, computed + 1, 0xBADF00D, slices=_row(32))
    core.take_events()
    refusal = core.receive_frame_untrusted(foreign, edge.peer, network.now)
    assert refusal is not None
    assert (refusal.code, refusal.expected, refusal.got) == (
        "SPACE_MISMATCH",
        network.space,
        0xBADF00D,
    )
    assert core.take_events() == []
    assert (stage.next_position, stage.queue, stage.inbox.take_batch()) == (computed, [], None)
    assert core.all_counters()["frame of another space"] == 1
    control = control_frame(open_with(None), 0xBADF00D)
    assert core.receive_frame_untrusted(control, A, network.now) is not None


def _row(width: int) -> tuple[Slice, ...]:
    pieces = (encode_states(np.zeros((1, width), np.float32), Rung.F16),)
    (frame,) = to_frames(Batch(0, 1, pieces), 1, 1)
    return frame.slices
