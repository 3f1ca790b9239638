"""Answers that follow a JSON schema, across peers and whatever happens to those."""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.engine.sampling.schema import Constraints
from p2pnode.engine.sampling.schema_text import ANY_OBJECT, MOST_SCHEMA, compact_schema
from p2pnode.errors import ConfigError, DrawError, RemoteProtocolError, UserError
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.draws import MOST_WALKS, Draws, Walker
from p2pnode.inference.events import ChainBroken, GenerationFailed, GenerationFinished
from p2pnode.inference.messages import Edge, Open, from_body_untrusted, to_body
from p2pnode.inference.request import GenerationRequest
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.messages import parse_sync_untrusted

A, B, C, TAIL = (node_id(name) for name in ("a", "b", "c", "tail"))
PROMPT = tuple(range(3, 43))
END, OTHER_END, VOCAB = 1, 0, 140
WORDS = [b'{"', b'":', b'", "', b'"}', b"true", b"false", b"null", b"12", b"  "]
TOKENS = [b"", b"", *(bytes([byte]) for byte in range(32, 127)), b"\xc3", b"\xa9", *WORDS]
TOKENS += [b""] * (VOCAB - len(TOKENS))
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 2},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
)
GREEDY = Sampling(schema=PERSON, ends=(OTHER_END, END))
WARM = replace(GREEDY, temperature=1.0, seed=5, repetition_penalty=1.3, frequency_penalty=0.2)


@cache
def constraints() -> Constraints:
    return Constraints(TOKENS, END)


def written(tokens: list[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens).decode()


def three(seed: int, **more: range) -> FrameNetwork:
    holders = {A: range(2), B: range(2, 4), C: range(4, 6)}
    holders |= {node_id(name): held for name, held in more.items()}
    engines = {
        peer: random_model(5, n_layers=6, vocab_size=VOCAB, layers=held)
        for peer, held in holders.items()
    }
    config = InferenceConfig(prefill_chunk=16)
    return FrameNetwork(seed, engines, config, grammars=constraints())


def request(sampling: Sampling, max_tokens: int = 90) -> GenerationRequest:
    return GenerationRequest(PROMPT, max_tokens, sampling, frozenset(sampling.ends))


@cache
def undisturbed(sampling: Sampling) -> list[int]:
    network = three(seed=0)
    number = network.generate(A, request(sampling))
    network.run(seconds=20)
    assert network.events[-1][2] == GenerationFinished(number, "stop")
    return network.tokens(A, number)


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_an_answer_follows_its_schema_and_ends_by_itself(sampling: Sampling) -> None:
    tokens = undisturbed(sampling)
    answer = json.loads(written(tokens))
    assert set(answer) == {"name", "age"}
    assert 0 <= answer["age"] <= 99
    assert tokens[-1] in sampling.ends
    assert not set(tokens[:-1]) & set(sampling.ends)


@pytest.mark.parametrize("victim", [B, C])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_kill_after_any_token_changes_no_token(victim: NodeId, sampling: Sampling) -> None:
    for token in range(len(undisturbed(sampling)) - 1):
        network = three(seed=token, spare=range(2, 4), tail=range(4, 6))

        def kill(event: Any, network: FrameNetwork = network, token: int = token) -> None:
            if event.position == len(PROMPT) + token:
                network.kill(victim)

        network.on_token = kill
        number = network.generate(A, request(sampling))
        network.run(seconds=30)
        assert network.tokens(A, number) == undisturbed(sampling)


def test_a_cut_answer_is_told_from_a_complete_one() -> None:
    network = three(seed=1)
    number = network.generate(A, request(GREEDY, 8))
    network.run(seconds=10)
    assert network.events[-1][2] == GenerationFinished(number, "length")


# Any schema

TIGHT = {"x-guidance": {"whitespace_flexible": False}}
values: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "integer", "minimum": -20, "maximum": 20},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["a", 1, None]},
        {"const": {"x": [1, 2]}},
        {"type": "string", "maxLength": 4},
        {"type": "string", "pattern": "^[a-c]{1,3}$"},
        {"anyOf": [{"type": "boolean"}, {"type": "string", "maxLength": 2}]},
    ]
)


def lists_of(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return inner.map(lambda item: {"type": "array", "items": item, "maxItems": 2})


def objects_of(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.dictionaries(st.sampled_from(["p", "q", "r"]), inner, min_size=1, max_size=3)
    return keys.map(
        lambda held: {
            "type": "object",
            "properties": held,
            "required": sorted(held),
            "additionalProperties": False,
        }
    )


schemas = objects_of(
    st.recursive(values, lambda one: lists_of(one) | objects_of(one), max_leaves=4)
)


@settings(max_examples=40, deadline=None)
@given(schemas, st.randoms(use_true_random=False))
def test_whatever_is_drawn_an_answer_that_ends_parses(schema: dict[str, Any], rng: Any) -> None:
    text = json.dumps(schema | TIGHT)
    matcher = constraints().matcher(text)
    tokens: list[int] = []
    while len(tokens) < 400:
        allowed = matcher.allowed((END,))
        if len(tokens) % 7 == 0:  # made anew from the tokens alone, as a successor's
            again = constraints().matcher(text)
            again.take(tokens)
            assert (again.allowed((END,)) == allowed).all()
        token = int(rng.choice(list(allowed)))
        if token == END:
            break
        tokens.append(token)
        matcher.take((token,))
    answer = json.loads(written(tokens))
    assert sorted(answer) == sorted(schema["properties"])


def test_once_it_is_complete_only_an_end_is_allowed() -> None:
    matcher = constraints().matcher('{"const": true}')
    [whole] = [token for token, text in enumerate(TOKENS) if text == b"true"]
    matcher.take((whole,))
    assert list(matcher.allowed((OTHER_END,))) == [OTHER_END]


def test_an_end_with_a_spelling_ends_nothing_half_way() -> None:
    """Some templates end a turn by what is text elsewhere."""
    matcher = constraints().matcher('{"type":"string","maxLength":8}')
    quote, end = (TOKENS.index(text) for text in (b'"', b"true"))
    matcher.take((quote,))
    assert end in matcher.allowed((END,))
    assert end not in matcher.allowed((end, VOCAB + 5))
    matcher.take((quote,))
    assert list(matcher.allowed((end, VOCAB + 5))) == [end]


# What cannot be done

REFUSED = {
    "unknown type": '{"type": "banana"}',
    "foreign reference": '{"$ref": "https://example.com/x.json"}',
    "what is not supported": '{"type": "object", "unevaluatedItems": 5, "if": {}, "then": {}}',
    "too large when written out": json.dumps(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"a{i}": {"const": j}}} for j in range(4)]}
                for i in range(12)
            ]
        }
    ),
}


@pytest.mark.parametrize("schema", REFUSED.values(), ids=list(REFUSED))
def test_a_schema_that_cannot_be_compiled_fails_its_answer_soon_and_alone(schema: str) -> None:
    network = three(seed=1, tail=range(4, 6))
    network.generate(A, request(replace(GREEDY, schema=schema)))
    other = network.generate(A, request(GREEDY))
    network.run(seconds=20)
    [failed] = [event for _, _, event in network.events if isinstance(event, GenerationFailed)]
    assert "cannot draw as asked: the schema cannot be followed" in failed.reason
    assert network.tokens(A, other) == undisturbed(GREEDY)
    assert network.cores[C].counters["compute failed"] == 0


STEEP = {
    "expressions": {"type": "string", "pattern": "^(([a-z]{1,50}){1,50}){1,50}$"},
    "items": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}},
}


def walk(schema: dict[str, Any], rng: random.Random) -> None:
    matcher = constraints().matcher(json.dumps(schema))
    for _ in range(100):
        allowed = [one for one in matcher.allowed((END,)) if one != END]
        if not allowed:
            return
        matcher.take((rng.choice(allowed),))


@pytest.mark.parametrize("schema", STEEP.values(), ids=list(STEEP))
def test_a_step_that_takes_too_much_is_refused(schema: dict[str, Any]) -> None:
    def walks() -> None:
        for seed in range(10):
            walk(schema, random.Random(seed))

    with pytest.raises(DrawError, match="schema"):
        walks()


class _Steep:
    """A schema whose third step is beyond all limits."""

    def __init__(self) -> None:
        self.matchers = 0

    def prepare(self, schema: str) -> None:
        del schema

    def matcher(self, schema: str) -> Walker:
        del schema
        self.matchers += 1
        return _SteepWalk(constraints().matcher(ANY_OBJECT))


class _SteepWalk:
    def __init__(self, inner: Walker) -> None:
        self.inner = inner
        self.steps = 0

    def take(self, tokens: tuple[int, ...]) -> None:
        self.steps += len(tokens)
        self.inner.take(tokens)

    def allowed(self, ends: tuple[int, ...]) -> Any:
        if self.steps >= 2:
            raise DrawError("the schema cannot be followed any further: too many states")
        return self.inner.allowed(ends)


def test_a_step_beyond_the_limits_fails_its_answer_and_no_other() -> None:
    network = three(seed=1, tail=range(4, 6))
    steep = _Steep()
    network._draws = {peer: Draws(steep) for peer in network.cores}
    network.generate(A, request(GREEDY))
    other = network.generate(B, GenerationRequest(PROMPT, 9, Sampling(), frozenset()))
    network.run(seconds=20)
    [failed] = [event for _, _, event in network.events if isinstance(event, GenerationFailed)]
    assert "too many states" in failed.reason
    lost = [event for _, _, event in network.events if isinstance(event, ChainBroken)]
    assert [event.names for event in lost] == [("c",)]  # one other is tried, and no third
    assert steep.matchers == 2
    assert len(network.tokens(B, other)) == 9
    assert all(not core.stages() for core in network.cores.values())


def test_without_a_vocabulary_no_schema_is_followed() -> None:
    network = three(seed=1)
    network._draws = {peer: Draws() for peer in network.cores}
    network.generate(A, request(GREEDY))
    network.run(seconds=10)
    final = network.events[-1][2]
    assert isinstance(final, GenerationFailed)
    assert "no vocabulary" in final.reason


def test_an_answer_that_nothing_ends_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="ends by itself"):
        three(seed=1).generate(
            A, GenerationRequest(PROMPT, 9, Sampling(schema=PERSON), frozenset())
        )


def test_many_answers_at_once_each_follow_their_schema() -> None:
    """More than are kept walked: what is forgotten is walked anew."""
    network = three(seed=4)
    numbers = [
        network.generate(A, request(replace(WARM, seed=seed), 60)) for seed in range(MOST_WALKS + 4)
    ]
    network.run(seconds=60)
    for number in numbers:
        assert set(json.loads(written(network.tokens(A, number)))) == {"name", "age"}


# Orders as they travel

ORDER = Open(
    *(1, 0, 2, range(4, 6), 200, Edge(A, 5), Edge(A, 6), "f16", GREEDY, 30),
    past=Past(30, 30, ()),
)


def test_an_order_with_a_schema_travels_whole() -> None:
    assert from_body_untrusted(parse_sync_untrusted(control_frame(ORDER, 7))) == ORDER
    large = json.dumps({"title": "x" * (MOST_SCHEMA - 40)})
    longest = replace(
        ORDER,
        sampling=replace(GREEDY, schema=large),
        sample_from=8192,
        past=Past(0, 8192, (VOCAB - 1,) * 8192),
    )
    assert from_body_untrusted(parse_sync_untrusted(control_frame(longest, 7))) == longest


@pytest.mark.parametrize(
    "text",
    ['"\\' * 500_000, '{"a":' + "[" * 500_000, '{"' + '\\"' * 500_000],
    ids=lambda text: text[:8],
)
def test_text_that_never_closes_costs_no_more_than_its_length(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError):
        compact_schema(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 5},
        {"schema": "{"},
        {"schema": "[]"},
        {"schema": '{"a": NaN}'},
        {"schema": "{" * 70 + "}" * 70},
        {"schema": json.dumps({"a": "x" * MOST_SCHEMA})},
        {"schema": '{"multipleOf": 99991}'},
        {"schema": '{"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}'},
        {"schema": '{"multipleOf": 1e-300}'},
        {"schema": '{"multipleOf": 1e999}'},
        {"ends": 5},
        {"ends": [1] * 33},
        {"ends": [-1]},
        {"ends": ["1"]},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_schema_that_cannot_be_is_refused_at_the_door(change: Mapping[str, Any]) -> None:
    body = to_body(ORDER)
    with pytest.raises(RemoteProtocolError):
        from_body_untrusted({**body, "draw": {**body["draw"], **change}})  # type: ignore[dict-item]
