"""How much parity: from measured loss, as a chain of good and bad packets, not as an average.

Losses come in bursts, and a burst defeats the parity an average would choose. So the outcomes of
the last packets fit a two-state chain (Gilbert's, in Elliott's form with nothing lost in the good
state): ``p`` the chance that a lost packet follows an arrived one, ``r`` that an arrived one
follows a lost. The parity chosen is the least that keeps the chance of losing the message below a
target.
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log2

import numpy as np

from p2pnode.transport.fec import MAX_PARITY

WINDOW = 1024
"""Packets remembered: 30 bursts of 3 at 10 %. A guess."""

CLEAN = 256
"""Packets without a loss after which a path is called clean: where one in a hundred is lost, it
almost never is (8 %); where one in a thousand is, three times in four."""

_REFRESH = 32  # outcomes between two fits
_TRUST = 64  # with fewer outcomes than this, the missing ones count as arrived
_STEPS = 8  # to each doubling
_PRIOR = 4.0  # weight of the belief that losses are independent


@dataclass(frozen=True, slots=True)
class Chain:
    """Loss as a two-state chain; ``p`` = 1 - ``r`` is independent loss of ``p``."""

    p: float
    r: float

    @property
    def loss(self) -> float:
        return self.p / (self.p + self.r) if self.p else 0.0


LOSSLESS = Chain(0.0, 1.0)


class LossEstimator:
    """Remembers which of the last packets were lost, and fits the chain when asked."""

    def __init__(self) -> None:
        self._outcomes: deque[int] = deque()  # packet number * 2 + 1 when lost
        self._losses = 0
        self._unfitted = 0
        self._chain = LOSSLESS

    @property
    def loss(self) -> float:
        """Share of the last packets that were lost."""
        return self._losses / max(len(self._outcomes), _TRUST) if self._losses else 0.0

    @property
    def is_lossless(self) -> bool:
        """Whether nothing of what was sent lately was lost."""
        return not self._losses

    @property
    def is_clean(self) -> bool:
        """Whether nothing of what was sent lately was lost, and that was not little."""
        return not self._losses and len(self._outcomes) >= CLEAN

    def record(self, number: int, *, lost: bool) -> None:
        self._outcomes.append(number << 1 | lost)
        self._losses += lost
        self._unfitted += 1
        if len(self._outcomes) > WINDOW:
            self._losses -= self._outcomes.popleft() & 1

    def pardon(self, number: int) -> None:
        """A packet taken for lost has arrived after all."""
        lost = number << 1 | 1
        if lost in self._outcomes:
            self._outcomes[self._outcomes.index(lost)] = number << 1
            self._losses -= 1

    @property
    def chain(self) -> Chain:
        if not self._losses:
            return LOSSLESS
        if self._unfitted >= _REFRESH or self._chain is LOSSLESS:
            self._unfitted = 0
            self._chain = self._fit()
        return self._chain

    def _fit(self) -> Chain:
        lost = np.sort(np.fromiter(self._outcomes, np.int64)) & 1  # [outcomes], in sending order
        after = lost[1:][lost[:-1] == 1]  # what followed each lost packet
        share = self.loss
        r = (np.sum(after == 0) + _PRIOR * (1 - share)) / (len(after) + _PRIOR)
        r = min(max(float(r), 0.05), 1.0)
        return Chain(min(share * r / max(1 - share, 0.05), 1.0), r)


def parity_for(shards: int, chain: Chain, *, target: float, most: int) -> int:
    """Return the least parity that loses a message with a chance below ``target``.

    Args:
        shards: Data shards of the message.
        chain: The loss to expect.
        target: Say, 1e-3.
        most: Never more than this many.
    """
    if chain.p <= 0 or most <= 0:
        return 0
    # Coarse steps, to the gloomier side, so that the cache below is hit.
    p = min(1.0, 2.0 ** (ceil(_STEPS * log2(chain.p)) / _STEPS))
    r = 2.0 ** (floor(_STEPS * log2(chain.r)) / _STEPS)
    return _parity_for(shards, p, r, target, min(most, MAX_PARITY))


@lru_cache(maxsize=4096)
def _parity_for(shards: int, p: float, r: float, target: float, most: int) -> int:
    good = np.zeros(most + 1)  # [losses so far]: the chance of it, the last packet having arrived
    bad = np.zeros(most + 1)  # the same, the last packet having been lost
    good[0], bad[0] = r / (p + r), p / (p + r)
    for sent in range(1, shards + most + 1):
        arrived = good * (1 - p) + bad * r
        lost = good * p + bad * (1 - r)
        good = arrived
        bad = np.concatenate([[0.0], lost[:-1]])
        parity = sent - shards
        if parity >= 0 and 1 - np.sum((good + bad)[: parity + 1]) < target:
            return parity
    return most
