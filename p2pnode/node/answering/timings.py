"""How long answers took, counted in buckets: what a dashboard draws its curves from."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from p2pnode.node.answering.stream import Answer

SECONDS: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the buckets; a hop takes half a millisecond, a long prompt a minute."""


class Timings:
    """Counts times since the node started.

    Attributes:
        first_token: Seconds from a question's arrival to its first token.
        step: Seconds between one token and the next.
        hop: Seconds a hop of a token takes, the engines' time left out.
    """

    def __init__(self) -> None:
        self.first_token = Histogram()
        self.step = Histogram()
        self.hop = Histogram()

    def take(self, answer: Answer, waited: float) -> None:
        """Count an answer that came ``waited`` seconds after its question, if it came at all."""
        if answer.token_ids:
            self.first_token.add([waited + answer.first_token_ms / 1e3])
        self.step.add(answer.steps)
        self.hop.add(hop / 1e3 for hop in answer.hops_ms)

    def to_json(self) -> dict[str, object]:
        kinds = {"first_token": self.first_token, "step": self.step, "hop": self.hop}
        return {
            "bounds_s": list(SECONDS),
            **{name: one.to_json() for name, one in kinds.items()},
        }


class Histogram:
    """Counts of values by :data:`SECONDS`, and what is above, in the last."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def add(self, values: Iterable[float]) -> None:
        for value in values:
            self._counts[bisect_left(SECONDS, value)] += 1
            self._sum += value

    def to_json(self) -> dict[str, object]:
        """Return the counts, each of its own bucket alone, and the sum in seconds."""
        return {"counts": list(self._counts), "sum_s": self._sum}
