"""Logprobs: what the model says of its tokens, from the stage that draws to whoever asked."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.logprobs import LEAST, Logprobs, logprobs_of
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import ConfigError, RemoteProtocolError
from p2pnode.inference.activations import Batch, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import ChainBroken, GenerationFinished, TokenProduced
from p2pnode.inference.logprob_slice import logprob_slice, logprobs_untrusted
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Computed, Work, WorkResult
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

A, B, C, TAIL = (node_id(name) for name in ("a", "b", "c", "tail"))
PROMPT = tuple(range(3, 30))
TOKENS = 6
VOCAB = 64


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=60),
    st.integers(0, 20),
    st.data(),
)
def test_they_are_the_logarithms_of_probabilities(
    values: list[float], count: int, data: st.DataObject
) -> None:
    logits = np.array(values, np.float32)
    token = data.draw(st.integers(0, len(values) - 1))
    told = logprobs_of(logits, token, count)
    odds = np.exp(logits.astype(np.float64) - logits.max())
    expected = np.log(np.maximum(odds / odds.sum(), 1e-300))
    assert told.chosen == pytest.approx(expected[token], abs=1e-9)
    assert len(told.top) == min(count, len(values))
    for one, logprob in told.top:
        assert logprob == pytest.approx(expected[one], abs=1e-9)
    order = sorted(range(len(values)), key=lambda one: (-logits[one], one))
    assert [one for one, _ in told.top] == order[:count]
    everything = logprobs_of(logits, token, len(values))
    assert sum(math.exp(logprob) for _, logprob in everything.top) == pytest.approx(1)
    piece = logprob_slice(told)
    read = logprobs_untrusted(piece, count, len(values))
    assert read.chosen == pytest.approx(told.chosen, abs=1e-5)
    assert [one for one, _ in read.top] == order[:count]


def test_what_cannot_be_is_minus_9999() -> None:
    told = logprobs_of(np.array([0, -np.inf], np.float32), 1, 2)
    assert told == Logprobs(LEAST, ((0, 0.0), (1, LEAST)))
    assert logprobs_untrusted(logprob_slice(told), 2, 2) == told


@pytest.mark.parametrize("count", [-1, 21])
def test_no_more_than_twenty_can_be_had(count: int) -> None:
    with pytest.raises(ConfigError, match="logprobs"):
        Sampling(logprobs=count)


GOOD = logprob_slice(Logprobs(-0.5, ((5, -0.5), (6, -1.5))))


@pytest.mark.parametrize(
    "piece",
    [
        Slice(DType.F16, (1, 10), bytes(20)),
        Slice(DType.I8, (1, 12), bytes(12)),
        Slice(DType.I8, (1, 0), b""),
        logprob_slice(Logprobs(0.5, ((5, -0.5), (6, -1.5)))),
        logprob_slice(Logprobs(math.nan, ((5, -0.5), (6, -1.5)))),
        logprob_slice(Logprobs(-0.5, ((5, -math.inf), (6, -1.5)))),
        logprob_slice(Logprobs(-0.5, ((VOCAB, -0.5), (6, -1.5)))),
    ],
)
def test_logprobs_that_cannot_be_are_refused(piece: Slice) -> None:
    assert logprobs_untrusted(GOOD, 2, VOCAB).top[0][0] == 5
    with pytest.raises(RemoteProtocolError):
        logprobs_untrusted(piece, 2, VOCAB)


# Across peers


def three(seed: int, **more: range) -> FrameNetwork:
    holders = {A: range(2), B: range(2, 4), C: range(4, 6)}
    holders |= {node_id(name): held for name, held in more.items()}
    engines = {
        peer: random_model(5, n_layers=6, vocab_size=VOCAB, layers=held)
        for peer, held in holders.items()
    }
    return FrameNetwork(seed, engines, InferenceConfig(prefill_chunk=16))


def answer(network: FrameNetwork, sampling: Sampling) -> list[tuple[int, Logprobs | None]]:
    number = network.generate(A, GenerationRequest(PROMPT, TOKENS, sampling, frozenset()))
    network.run(seconds=30)
    return [
        (event.token, event.logprobs)
        for _, _, event in network.events
        if isinstance(event, TokenProduced) and event.generation == number
    ]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_token_comes_with_what_was_asked_and_is_no_other(count: int) -> None:
    warm = Sampling(0.9, 0, 0.95, 7)
    plain = answer(three(seed=1), warm)
    told = answer(three(seed=1), replace(warm, logprobs=count))
    assert [token for token, _ in told] == [token for token, _ in plain]
    assert all(logprobs is None for _, logprobs in plain)
    for token, logprobs in told:
        assert logprobs is not None
        assert len(logprobs.top) == count
        assert dict(logprobs.top).get(token, logprobs.chosen) == logprobs.chosen


@pytest.mark.parametrize("token", range(TOKENS))
def test_a_kill_changes_no_logprob(token: int) -> None:
    sampling = Sampling(logprobs=3, frequency_penalty=1)
    network = three(seed=token, tail=range(4, 6))
    network.on_token = lambda event: (
        network.kill(C) if event.position == len(PROMPT) + token else None
    )
    assert answer(network, sampling) == answer(three(seed=0), sampling)


def without_slice(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
    """Leave out what was asked for beside the token."""
    if isinstance(result, Computed) and result.batches:
        result = Computed(tuple(map(_bare, result.batches)), result.compute_us)
    return 0.0, result


def _bare(batch: Batch) -> Batch:
    return replace(batch, pieces=(batch.pieces[0][:1],))


@pytest.mark.parametrize("asked", [None, 2])
def test_a_last_stage_that_tells_other_than_asked_is_replaced(asked: int | None) -> None:
    network = three(seed=1, tail=range(4, 6))

    def add(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        if isinstance(result, Computed) and result.batches:
            batches = tuple(
                replace(batch, pieces=((*batch.pieces[0], GOOD),)) for batch in result.batches
            )
            result = Computed(batches, result.compute_us)
        return 0.0, result

    network.behaviours[C] = without_slice if asked else add
    told = answer(network, Sampling(logprobs=asked))
    lost = [event for _, _, event in network.events if isinstance(event, ChainBroken)]
    assert lost
    assert all(event.peers == (C,) for event in lost)
    assert isinstance(network.events[-1][2], GenerationFinished)
    assert told == answer(three(seed=0), Sampling(logprobs=asked))


def test_a_token_with_logprobs_is_one_slice_longer() -> None:
    batch = token_batch((5,), 3, beside=(GOOD,))
    assert batch.pieces == ((Slice(DType.I8, (1, 4), b"\5\0\0\0"), GOOD),)
