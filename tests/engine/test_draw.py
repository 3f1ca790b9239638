"""Every filter against a plain, slow account of what it should do."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from p2pnode.engine.base import Floats
from p2pnode.engine.sampling.draw import sample
from p2pnode.engine.sampling.options import MOST_PAST, Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import ConfigError, GenerationError

VOCAB = 40

logits_of = st.lists(
    # Quarters, so that ties are common and no sum lies within rounding of a bound.
    st.integers(-40, 40).map(lambda number: number / 4),
    min_size=1,
    max_size=VOCAB,
).map(lambda values: np.array(values, np.float32))


def kept(logits: Floats, sampling: Sampling) -> dict[int, float]:
    """Return the tokens that may be drawn and their odds, by the textbook."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if sampling.top_k:
        order = order[: sampling.top_k]
    best = float(logits[order[0]])
    weights = [math.exp((float(logits[one]) - best) / sampling.temperature) for one in order]
    total, reached, chosen = sum(weights), 0.0, dict[int, float]()
    for token, weight in zip(order, weights, strict=True):
        if chosen and sampling.top_p < 1 and reached >= sampling.top_p * total:
            break
        if weight < sampling.min_p:
            break
        reached += weight
        chosen[token] = weight
    return {token: weight / reached for token, weight in chosen.items()}


samplings = st.builds(
    Sampling,
    temperature=st.floats(0.1, 4),
    top_k=st.integers(0, VOCAB),
    top_p=st.sampled_from([0.03, 0.31, 0.57, 0.83, 0.97, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    min_p=st.sampled_from([0.0, 0.017, 0.13, 0.61, 1.0]),
)


@settings(max_examples=100, deadline=None)
@given(logits_of, samplings, st.integers(0, 1 << 20))
def test_only_what_all_filters_keep_is_drawn(
    logits: Floats, sampling: Sampling, position: int
) -> None:
    before = logits.copy()
    token = sample(logits, sampling, position)
    assert token in kept(logits, sampling)
    assert sample(logits, sampling, position) == token
    assert (logits == before).all()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.8, 0, 0.9),
        Sampling(1.3, 7, 0.9, min_p=0.05),
        Sampling(1.0, min_p=0.2),
        Sampling(2.0),
    ],
)
def test_the_odds_of_what_is_kept(sampling: Sampling) -> None:
    logits = np.random.default_rng(1).normal(0, 2, VOCAB).astype(np.float32)
    count = 2500
    drawn = [sample(logits, sampling, position) for position in range(count)]
    for token, odds in kept(logits, sampling).items():
        assert drawn.count(token) / count == pytest.approx(odds, abs=0.04)


@pytest.mark.parametrize("sampling", [Sampling(1.5), Sampling(1.5, 0, 0.999), Sampling(9.0, 3000)])
def test_a_long_head_is_the_same_as_a_whole_sort(sampling: Sampling) -> None:
    """A flat distribution needs far more tokens than are sorted at first."""
    logits = np.random.default_rng(2).normal(0, 0.5, 9000).astype(np.float32).round(2)
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    weights = np.exp((logits[order].astype(np.float64) - logits.max()) / sampling.temperature)
    reach = np.cumsum(weights)
    if sampling.top_p < 1:
        reach = reach[: 1 + int(np.searchsorted(reach, sampling.top_p * reach[-1]))]
    for position in range(60):
        number = np.random.Generator(np.random.Philox(key=3, counter=position)).random()
        expected = order[np.searchsorted(reach, number * reach[-1], side="right")]
        assert sample(logits, replace(sampling, seed=3), position) == expected


# Penalties

tokens_of = st.lists(st.integers(0, VOCAB - 1), max_size=30).map(tuple)


def discouraged(logits: Floats, sampling: Sampling, prompt: list[int], answer: list[int]) -> Floats:
    changed = [float(logit) for logit in logits]
    for token in set([*prompt, *answer][-sampling.penalty_last_n :]):
        factor = sampling.repetition_penalty
        changed[token] = changed[token] / factor if changed[token] > 0 else changed[token] * factor
    for token in set(answer):
        changed[token] -= sampling.presence_penalty
        changed[token] -= sampling.frequency_penalty * answer.count(token)
    return np.array(changed, np.float32)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=VOCAB, max_size=VOCAB),
    tokens_of,
    tokens_of,
    st.sampled_from([1.0, 0.5, 1.25, 3.0]),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.integers(1, 40),
)
def test_penalties_take_off_what_their_definitions_say(
    values: list[float],
    prompt: tuple[int, ...],
    answer: tuple[int, ...],
    repetition: float,
    presence: float,
    frequency: float,
    last_n: int,
) -> None:
    logits = np.array(values, np.float32)
    sampling = Sampling(
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        penalty_last_n=last_n,
    )
    expected = discouraged(logits, sampling, list(prompt), list(answer))
    best, second = sorted(map(float, expected), reverse=True)[:2]
    assume(best - second > 1e-4)  # else rounding chooses
    past = Past(len(prompt), len(prompt) + len(answer), prompt + answer)
    assert sample(logits, sampling, past.end, past) == expected.argmax()


def test_presence_and_frequency_leave_the_prompt_alone_and_repetition_does_not() -> None:
    logits = np.array([3, 2.5, 0], np.float32)
    asked = Past(2, 2, (0, 0))
    assert sample(logits, Sampling(presence_penalty=2, frequency_penalty=2), 2, asked) == 0
    assert sample(logits, Sampling(repetition_penalty=1.5), 2, asked) == 1


def test_penalties_of_any_size_stay_numbers() -> None:
    logits = np.array([3e38, -3e38, 1], np.float32)
    strong = Sampling(0.5, repetition_penalty=0.1, frequency_penalty=-2)
    assert sample(logits, strong, 2, Past(0, 2, (0, 1))) == 0


@given(tokens_of, st.integers(0, 40))
def test_a_past_knows_what_is_the_answer(tokens: tuple[int, ...], prompt: int) -> None:
    end = prompt + len(tokens)
    assert Past(prompt, end, tokens).answer == tokens
    longer = Past(prompt, end, tokens).then(7)
    assert (longer.answer, longer.end) == ((*tokens, 7), end + 1)
    assert Past(end, end, tokens).answer == ()
    assert Past(end + 5, end, tokens).answer == ()


# What is allowed


@given(logits_of, samplings, st.data())
def test_nothing_but_what_is_allowed_is_drawn(
    logits: Floats, sampling: Sampling, data: st.DataObject
) -> None:
    some = st.sets(st.integers(0, len(logits) - 1), min_size=1)
    allowed = np.array(sorted(data.draw(some)), np.int64)
    token = sample(logits, sampling, 5, None, allowed)
    assert token in allowed
    rest = np.full_like(logits, -200)
    rest[allowed] = logits[allowed]
    if not sampling.top_k or sampling.top_k <= len(allowed):
        assert token == sample(rest, sampling, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_garbage_is_not_sampled_though_it_is_not_allowed(bad: float) -> None:
    logits = np.array([0, bad, 1], np.float32)
    with pytest.raises(GenerationError, match="no numbers"):
        sample(logits, Sampling(), 0, None, np.array([0, 2]))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: Sampling(min_p=-0.1), "min-p"),
        (lambda: Sampling(min_p=math.nan), "min-p"),
        (lambda: Sampling(min_p=1.1), "min-p"),
        (lambda: Sampling(repetition_penalty=0), "repetition"),
        (lambda: Sampling(repetition_penalty=math.inf), "repetition"),
        (lambda: Sampling(presence_penalty=2.1), "presence"),
        (lambda: Sampling(frequency_penalty=-2.1), "frequency"),
        (lambda: Sampling(frequency_penalty=math.nan), "frequency"),
        (lambda: Sampling(penalty_last_n=0), "penalty-last-n"),
        (lambda: Sampling(penalty_last_n=MOST_PAST + 1), "penalty-last-n"),
    ],
)
def test_impossible_options_are_refused_by_name(build: Callable[[], Sampling], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build()
