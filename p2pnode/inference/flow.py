"""Bytes on the way: whether they explain that a chain is late.

A stage tells how many positions have arrived there, of a batch that is not complete too. While the
leg that the chain waits for lacks input, and enough of it comes, nobody is late but the way. What a
leg says is not proved. So bytes explain no more time than all that there is to send takes at the
least rate: a liar is borne for that long, and no longer.
"""

from p2pnode.inference.chain import Chain
from p2pnode.inference.config import InferenceConfig

_BURST = 16384  # bytes that may come late together, and be early the next time


class Flow:
    """What arrives at the leg that the answer waits for.

    Fields of its life: ``_seen`` is what had arrived at each leg when something moved last, at
    ``_since``; ``_left`` seconds may bytes yet explain, of what the chain has to do now.
    """

    def __init__(self, config: InferenceConfig, d_model: int) -> None:
        self._rate = config.least_rate
        self._width = 4 * d_model  # f32; what is coarser gets the time of that
        self._seen: dict[int, int] = {}
        self._since = 0.0
        self._left = 0.0

    def begins(self, chain: Chain, positions: int, now: float) -> None:
        """So many ``positions`` are to go through the chain."""
        self._left = positions * self.of_row(chain) + _BURST / self._rate
        self.moved(chain, now)

    def moved(self, chain: Chain, now: float) -> None:
        """Something got further: what arrives is counted from here."""
        self._seen, self._since = dict(chain.arrived), now

    def explains(self, chain: Chain, now: float) -> float:
        """Return how many seconds, since something moved, bytes on their way explain.

        0 where the leg has all that it needs, or too little of it comes.
        """
        leg = chain.laggard()[0]
        at, seen = chain.arrived.get(leg.number, 0), self._seen.get(leg.number, 0)
        lacks_input = leg.run.layers.start > 0 and at < chain.end
        elapsed = now - self._since
        flows = at > seen and (at - seen) * self._width + _BURST >= self._rate * elapsed
        if not lacks_input or not flows or elapsed > self._left:
            return 0.0
        self._left -= elapsed
        return elapsed

    def of_row(self, chain: Chain) -> float:
        """Return the seconds that a position may take on the way, all cuts together."""
        return (len(chain.legs) - 1) * self._width / self._rate
