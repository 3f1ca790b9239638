from random import Random

import pytest

from p2pnode.testing.links import GilbertElliott
from p2pnode.transport.parity import LOSSLESS, Chain, LossEstimator, parity_for


@pytest.mark.parametrize(
    ("chain", "parity"),
    [
        (LOSSLESS, 0),
        (Chain(0.01, 0.99), 2),
        (Chain(0.05, 0.95), 4),
        (Chain(0.1, 0.9), 5),
        (Chain(0.02777, 0.25), 22),  # 10 % in bursts of 4
    ],
)
def test_parity_for_seven_shards_follows_the_chain(chain: Chain, parity: int) -> None:
    # One more is the price of rounding the chain to its gloomier neighbour.
    assert parity <= parity_for(7, chain, target=1e-3, most=32) <= parity + (chain.p > 0)


def test_parity_keeps_to_its_bound() -> None:
    assert parity_for(7, Chain(0.3, 0.3), target=1e-3, most=3) == 3


@pytest.mark.parametrize(("p", "r"), [(0.01, 0.99), (0.1, 0.9), (0.02777, 0.25)])
def test_the_chain_is_estimated_from_outcomes(p: float, r: float) -> None:
    estimator = LossEstimator()
    is_lost = GilbertElliott(p, r).start(Random(4))
    order = list(range(4000))
    for start in range(0, 4000, 8):  # outcomes settle a little out of order
        block = order[start : start + 8]
        outcomes = [(number, is_lost()) for number in block]
        for number, lost in sorted(outcomes, key=lambda outcome: outcome[1]):
            estimator.record(number, lost=lost)
    assert estimator.chain.p == pytest.approx(p, rel=0.5)
    assert estimator.chain.r == pytest.approx(r, rel=0.35)


def test_a_single_loss_among_few_packets_is_no_trend() -> None:
    estimator = LossEstimator()
    estimator.record(0, lost=True)
    assert estimator.loss == 1 / 64


def test_a_pardoned_packet_was_never_lost() -> None:
    estimator = LossEstimator()
    for number in range(100):
        estimator.record(number, lost=number % 10 == 0)
    for number in range(0, 100, 10):
        estimator.pardon(number)
    assert estimator.loss == 0
    assert estimator.chain == LOSSLESS
