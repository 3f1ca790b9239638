"""The mean of a prompt's hidden states: the same bits from one node and three, whoever is lost."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.base import Engine
from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import ConfigError, DrawError, GenerationError, RemoteProtocolError, UserError
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.draw_body import Draw, draw_body, draw_untrusted
from p2pnode.inference.events import ChainBroken, GenerationFinished, TokenProduced
from p2pnode.inference.fields import Fields
from p2pnode.inference.mean_slice import WIDEST, mean_slice, mean_untrusted
from p2pnode.inference.means import Means
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Computed, Work, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

A, B, C = (node_id(name) for name in ("a", "b", "c"))
PROMPT = tuple(3 + number % 50 for number in range(100))
CHUNK = 16
MEAN = Sampling(mean=True)
THREE = {A: range(2), B: range(2, 4), C: range(4, 6)}
SPARES = {node_id("spare"): range(2, 4), node_id("tail"): range(4, 6)}


def engine(held: range) -> Engine:
    return random_model(5, n_layers=6, layers=held)


def swarm(seed: int, holders: dict[NodeId, range]) -> FrameNetwork:
    engines = {peer: engine(held) for peer, held in holders.items()}
    return FrameNetwork(seed, engines, InferenceConfig(prefill_chunk=CHUNK))


def ask(network: FrameNetwork, prompt: tuple[int, ...] = PROMPT) -> None:
    network.generate(A, GenerationRequest(prompt, 1, MEAN, frozenset(), wait=5))


def told(network: FrameNetwork) -> bytes:
    [event] = [event for _, _, event in network.events if isinstance(event, TokenProduced)]
    return event.mean


def by_hand(prompt: tuple[int, ...] = PROMPT) -> np.ndarray:
    """Compute the mean with one engine, without any core."""
    whole = engine(range(6))
    cut = [np.array(prompt[at : at + CHUNK], np.int64) for at in range(0, len(prompt), CHUNK)]
    hidden = np.concatenate(whole.forward(b"s", range(6), cut, 0))  # [tokens, d_model]
    rows: np.ndarray = whole.normed(hidden).mean(axis=0, dtype=np.float64)  # [d_model]
    return rows


@pytest.mark.parametrize("length", [1, CHUNK, CHUNK + 1, 100])
def test_one_node_and_three_tell_the_same_bits(length: int) -> None:
    means = []
    for holders in ({A: range(6)}, THREE, {A: range(1), B: range(1, 6)}):
        network = swarm(1, holders)
        ask(network, PROMPT[:length])
        network.run(seconds=10)
        assert isinstance(network.events[-1][2], GenerationFinished)
        assert all(core.kv_used == 0 and not core.stages() for core in network.cores.values())
        assert not any(draws._means._sums for draws in network._draws.values())
        means.append(told(network))
    assert means[0] == means[1] == means[2]
    assert np.frombuffer(means[0], "<f4") == pytest.approx(by_hand(PROMPT[:length]), abs=1e-6)


@pytest.fixture(scope="module", name="undisturbed")
def _undisturbed() -> bytes:
    network = swarm(0, THREE)
    ask(network)
    network.run(seconds=10)
    return told(network)


@pytest.mark.parametrize("victim", [B, C])
@pytest.mark.parametrize("step", range(25))
def test_a_kill_at_any_moment_changes_no_bit(victim: NodeId, step: int, undisturbed: bytes) -> None:
    network = swarm(step, THREE | SPARES)
    ask(network)
    network.run(seconds=step * 0.0005)
    network.kill(victim)
    network.run(seconds=30)
    assert told(network) == undisturbed
    if step < 10:
        assert any(isinstance(event, ChainBroken) for _, _, event in network.events)


def changed(
    change: Callable[[Slice], tuple[Slice, ...]],
) -> Callable[..., tuple[float, WorkResult]]:
    """Return what a last stage does that tells another mean than it has."""

    def behave(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        del work
        if isinstance(result, Computed):
            batches = tuple(
                replace(batch, pieces=((batch.pieces[0][0], *change(batch.pieces[0][1])),))
                for batch in result.batches
            )
            result = Computed(batches, result.compute_us)
        return 0.0, result

    return behave


NAN = np.full(32, np.nan, np.float32)
LIES: dict[str, Callable[[Slice], tuple[Slice, ...]]] = {
    "none": lambda mean: (),
    "two": lambda mean: (mean, mean),
    "no number": lambda mean: (mean_slice(NAN),),
    "narrower": lambda mean: (mean_slice(NAN[:5]),),
    "another type": lambda mean: (Slice(DType.I8, (1, 32), bytes(32)),),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_last_stage_that_tells_no_mean_is_replaced(lie: str, undisturbed: bytes) -> None:
    network = swarm(1, THREE | SPARES)
    network.behaviours[C] = changed(LIES[lie])
    ask(network)
    network.run(seconds=30)
    lost = [event for _, _, event in network.events if isinstance(event, ChainBroken)]
    assert lost
    assert all(event.peers == (C,) for event in lost)
    assert told(network) == undisturbed


def test_nobody_is_asked_to_draw_as_well() -> None:
    for other in (Sampling(1.0), Sampling(logprobs=1), Sampling(schema="{}"), Sampling(seed=3)):
        with pytest.raises(ConfigError, match="nothing is drawn"):
            replace(other, mean=True)
    with pytest.raises(UserError, match="one mean"):
        swarm(1, THREE).generate(A, GenerationRequest(PROMPT, 2, MEAN, frozenset()))


def test_an_order_says_that_a_mean_is_asked_for() -> None:
    body = draw_body(Draw(MEAN), 6)
    assert body["mean"] is True
    assert draw_untrusted(Fields(body), 100) == (6, Draw(MEAN))
    assert "mean" not in draw_body(Draw(Sampling(logprobs=1)), 6)
    lies: tuple[object, ...] = (1, "yes", None, [])
    for lie in lies:
        with pytest.raises(RemoteProtocolError):
            draw_untrusted(Fields(body | {"mean": lie}), 100)


@given(st.integers(1, 40), st.binary(max_size=200), st.sampled_from([DType.F32, DType.I8]))
def test_what_is_no_mean_is_refused_in_order(d_model: int, payload: bytes, dtype: DType) -> None:
    size = 4 if dtype is DType.F32 else 1
    width = len(payload) // size
    piece = Slice(dtype, (1, width), payload[: width * size])
    try:
        found = mean_untrusted(piece, d_model)
    except RemoteProtocolError:
        return
    assert (dtype, width) == (DType.F32, d_model)
    assert np.isfinite(np.frombuffer(found, "<f4")).all()


def test_a_sum_goes_on_where_it_was_or_not_at_all() -> None:
    whole, means = engine(range(6)), Means()
    rows = np.ones((4, 32), np.float32)
    means.take(whole, b"s", 0, rows)
    means.take(whole, b"t", 0, rows[:1])
    means.take(whole, b"s", 4, rows)
    for session, start in ((b"s", 4), (b"s", 9), (b"t", 2), (b"new", 4)):
        with pytest.raises(DrawError):
            means.take(whole, session, start, rows)
    means.close(b"s")
    with pytest.raises(DrawError):
        means.take(whole, b"s", 8, rows)
    with pytest.raises(GenerationError):
        means.take(whole, b"u", 0, NAN[None])


class Wide:
    """Norms rows of any width."""

    def normed(self, rows: np.ndarray) -> np.ndarray:
        return rows


def test_a_mean_too_wide_for_a_frame_is_refused() -> None:
    wide: Engine = Wide()  # type: ignore[assignment]
    assert len(Means().take(wide, b"s", 0, np.ones((1, WIDEST), np.float32))) == WIDEST
    with pytest.raises(DrawError):
        Means().take(wide, b"s", 0, np.ones((1, WIDEST + 1), np.float32))
