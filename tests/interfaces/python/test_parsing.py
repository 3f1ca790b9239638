"""What a node says of an answer: read whole, by older and newer versions too."""

import dataclasses
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationEvent,
    GenerationPlanned,
    LayersAwaited,
    TokenProduced,
)
from p2pnode.interfaces.python import events
from p2pnode.interfaces.python.parsing import answer_of, embeddings_of, event_of
from p2pnode.node.answering.bodies import event_body, facts_body
from p2pnode.node.answering.stream import Answer as CoreAnswer
from p2pnode.scheduler.chain import ChainPlan, StageRun
from p2pnode.testing.frames import node_id

ALICE = node_id("alice")
STAGE = StageRun(ALICE, "alice", range(4), 2500, "the only one", 1, "numpy")
PLAN = ChainPlan((STAGE,), "latency", 4000, 2500, (1500,), ("it is near",))
FIRST = events.Stage(ALICE.hex(), "alice", range(4), 2.5, "numpy", "the only one")


def said(event: GenerationEvent) -> events.Event | None:
    return event_of(event_body(event))


def test_the_events_of_the_core_come_out_typed() -> None:
    planned = said(GenerationPlanned(1, PLAN, "f32"))
    assert isinstance(planned, events.Planned)
    assert planned.plan.stages == (FIRST,)
    assert (planned.plan.hop_ms, planned.plan.expected_ms_per_token) == ((1.5,), 4.0)
    broken = said(ChainBroken(1, 2, (ALICE,), "silent for 1 s", ("alice",), (range(4),), 9.5))
    assert broken == events.Broken(
        epoch=2,
        peers=(ALICE.hex(),),
        reason="silent for 1 s",
        names=("alice",),
        layers=(range(4),),
        wait_s=9.5,
    )
    repaired = said(ChainRepaired(1, 3, (STAGE,), 0.5, instead=(STAGE,), changed="other kernels"))
    assert repaired == events.Repaired(
        epoch=3,
        seconds=0.5,
        stages=(FIRST,),
        instead=(FIRST,),
        is_bit_reproducible=False,
        changed="other kernels",
    )
    waiting = said(LayersAwaited(1, (range(2, 4),), 10.0, ("nobody has them",)))
    assert waiting == events.Waiting(
        layers=(range(2, 4),), wait_s=10.0, reasons=("nobody has them",)
    )


def test_a_token_has_its_words_and_how_likely_it_was() -> None:
    other = {"token": 8, "text": "x", "bytes": [120], "logprob": -2.5}
    chance = {"token": 7, "text": "\ufffd", "bytes": [0xC3], "logprob": -0.5, "top": [other]}
    body = {"event": "token", "token": 7, "position": 3, "text": "hi", "logprobs": chance}
    token = event_of(body)
    assert token == events.Token(
        text="hi",
        token=7,
        position=3,
        chance=events.TokenChance(
            7, "\ufffd", b"\xc3", -0.5, (events.TokenChance(8, "x", b"x", -2.5),)
        ),
    )
    assert said(TokenProduced(1, 7, 3, 0.1, 0.05, 1)) == events.Token(token=7, position=3)


@pytest.mark.parametrize(
    ("body", "event"),
    [
        ({"event": "queued", "ahead": 3}, events.Queued(ahead=3)),
        ({"event": "note", "text": "nobody"}, events.Remark(line="nobody")),
        ({"event": "history", "left_out": 2}, events.Shortened(left_out=2)),
        ({"event": "rest", "text": "END"}, events.Rest(text="END")),
        ({"event": "of a later version", "text": "?"}, None),
        ({}, None),
    ],
)
def test_each_other_event(body: dict[str, object], event: events.Event | None) -> None:
    assert event_of(body) == event


def test_only_what_adds_words_has_text() -> None:
    assert event_of({"event": "note", "text": "nobody"}) == events.Remark(line="nobody", text="")


def test_the_facts_of_an_answer_come_out_whole() -> None:
    done = CoreAnswer(token_ids=[1, 2], plan=PLAN, finish="stop", hops_ms=[1.0], steps=[0.5])
    body = {"text": "hi", "prompt_ids": [5], "left_out": 1, **facts_body(done), "total_ms": 7.0}
    answer = answer_of({**body, "a later key": {}})
    assert (answer.text, answer.finish, answer.stopped_by) == ("hi", "stop", None)
    assert (answer.token_ids, answer.prompt_ids, answer.left_out) == ((1, 2), (5,), 1)
    assert answer.plan is not None
    assert answer.plan.stages == (FIRST,)
    assert (answer.hop_p50_ms, answer.total_ms, answer.tokens_per_s) == (1.0, 7.0, 2.0)
    assert (answer.codings, answer.is_bit_reproducible) == (("f32",), True)


def test_an_older_node_says_less() -> None:
    assert answer_of({"text": "hi", "token_ids": [1], "finish": "length"}) == events.Answer(
        "hi", "length", (1,), ()
    )


def test_embeddings() -> None:
    assert embeddings_of({"embeddings": [[1, 0.5]], "tokens": 3, "more": 1}) == events.Embeddings(
        ((1.0, 0.5),), 3
    )


def test_what_a_program_is_given_cannot_be_changed() -> None:
    event = events.Rest(text="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, "text", "y")  # noqa: B010 -- the type checker knows


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
known = st.sampled_from(
    [
        *("stages", "layers", "logprobs", "bytes", "embeddings", "hop_ms", "activations"),
        *("plan", "peers", "position", "token", "text", "top", "epoch", "names"),
    ]
)


@given(st.sampled_from(["plan", "token", "broken", "repaired", "waiting", "queued"]), st.data())
def test_whatever_a_node_says_one_clear_error_comes_of_it(kind: str, data: st.DataObject) -> None:
    body: Any = data.draw(st.dictionaries(known, json_values, max_size=5)) | {"event": kind}
    for read in (event_of, answer_of, embeddings_of):
        with suppress(UserError):
            read(body)


def test_what_is_no_answer_is_said_to_be_of_another_version() -> None:
    with pytest.raises(UserError, match="another version"):
        answer_of([1])
    with pytest.raises(UserError, match="another version"):
        event_of({"event": "token", "token": "seven"})
