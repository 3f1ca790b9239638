"""What an answer should take under today's load: the time to its first token, and its speed.

Of each stage we know what one row, four and eight cost, what a token of a prompt costs, and how
many sessions it decodes for. With n sessions over S stages, each step of a stage computes about
n / S rows: while one group is with one stage, the others are with the rest. A prompt goes in
chunks, so that stages overlap: all of them once, and the slowest for every chunk after the first.
Beside each chunk the rows of the others are computed.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from p2pnode.values import value
from p2pnode.wire.ad import ModelOffer


@value
class StageLoad:
    """What one stage of a chain costs, and for whom it computes besides.

    Attributes:
        offer: What its peer says.
        layers: How many it runs.
        has_head: Whether it draws the tokens.
    """

    offer: ModelOffer
    layers: int
    has_head: bool

    def step_us(self, rows: int) -> float:
        """Return the microseconds of a step of one row each of so many sessions."""
        if rows <= 0:
            return 0.0
        head = self.offer.head_us * rows if self.has_head else 0
        return self.offer.decode_fixed_us + self.layers * _layer_us(self.offer, rows) + head

    def chunk_us(self, tokens: int) -> float:
        """Return the microseconds of so many tokens of a prompt, without the head."""
        if not self.offer.prefill_layer_ns:
            return tokens * self.layers * self.offer.decode_layer_us
        row = self.layers * self.offer.decode_layer_us
        return max(row, tokens * self.layers * self.offer.prefill_layer_ns / 1e3)


@value
class Estimate:
    """What an answer should take.

    Attributes:
        first_token_ms: Milliseconds from sending the prompt to the first token.
        tokens_per_s: Tokens a second after that.
        others: Sessions of others that the busiest stage decodes for.
    """

    first_token_ms: float
    tokens_per_s: float
    others: int


def estimate(stages: Sequence[StageLoad], hops_us: float, prompt: int, chunk: int) -> Estimate:
    """Return what to expect of a chain.

    Args:
        stages: At least one.
        hops_us: Microseconds of all hops of a token.
        prompt: Tokens of the prompt that have to be computed, at least 1.
        chunk: Tokens of it that are computed as one batch.
    """
    count = len(stages)
    steps = [one.step_us(math.ceil((one.offer.load + 1) / count)) for one in stages]
    beside = [one.step_us(math.ceil(one.offer.load / count)) for one in stages]
    chunks = math.ceil(prompt / chunk)
    rest = prompt - (chunks - 1) * chunk
    slowest = max(
        one.chunk_us(min(chunk, prompt)) + more for one, more in zip(stages, beside, strict=True)
    )
    last = sum(one.chunk_us(rest) + more for one, more in zip(stages, beside, strict=True))
    head = stages[-1].offer.head_us if stages[-1].has_head else 0
    waits = sum(beside) / 2  # for the step under way when it comes
    first = hops_us + last + slowest * (chunks - 1) + head + waits
    return Estimate(
        first_token_ms=first / 1e3,
        tokens_per_s=1e6 / max(1.0, hops_us + sum(steps)),
        others=max(one.offer.load for one in stages),
    )


def _layer_us(offer: ModelOffer, rows: int) -> float:
    """Return what so many rows cost a layer: between those measured in a straight line."""
    known = [(0, 0.0), (1, float(offer.decode_layer_us))]
    known += [
        (count, float(cost))
        for count, cost in ((4, offer.rows4_layer_us), (8, offer.rows8_layer_us))
        if cost
    ]
    for (few, low), (many, high) in pairwise(known):
        if rows <= many:
            return low + (high - low) * (rows - few) / (many - few)
    most, cost = known[-1]
    return cost * rows / most
