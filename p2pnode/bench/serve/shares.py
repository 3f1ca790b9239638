"""What sessions that decode at once come to: all together, and the slowest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from p2pnode.errors import UserError
from p2pnode.quantiles import quantile

LEAST_TOKENS: Final = 4
"""Tokens of the slowest session from which its speed is told."""


@dataclass(frozen=True, slots=True)
class Together:
    """What sessions came to while every one of them decoded.

    That is from the moment when the last of them has its first token to that when the first of
    them has its last, so neither prompts nor sessions that are alone at the end count.

    Attributes:
        seconds: How long that was.
        tokens_per_s: Of all together.
        least_share: The slowest one's tokens over an equal part of all.
    """

    seconds: float
    tokens_per_s: float
    least_share: float

    @classmethod
    def of(cls, came: Sequence[Sequence[float]]) -> Together:
        """Look at when the tokens of each session came.

        Raises:
            UserError: They hardly decoded at once.
        """
        begin, end = max(one[0] for one in came), min(one[-1] for one in came)
        counts = [sum(begin < moment <= end for moment in one) for one in came]
        if min(counts) < LEAST_TOKENS:
            raise UserError(
                f"{len(came)} sessions hardly decoded at once: one had {min(counts)} tokens while "
                "all did",
                hint="ask for more of each with --tokens",
            )
        return cls(end - begin, sum(counts) / (end - begin), min(counts) * len(came) / sum(counts))


def over(several: Sequence[float], others: Sequence[float]) -> dict[str, object]:
    """Return the median of the rounds' own ratios, and each of them."""
    ratios = [one / other for one, other in zip(several, others, strict=True)]
    return {"median": round(median(ratios), 3), "rounds": [round(ratio, 3) for ratio in ratios]}


def newcomer_wait(
    alone: Sequence[float], beside: Sequence[float], chunk: float
) -> Mapping[str, float | bool]:
    """Return how much longer a newcomer waits for its first token beside others than alone.

    What it may wait is twice the median alone, and one chunk of a prompt; all in seconds.
    """
    usual, worst = quantile(alone, 0.5), quantile(beside, 0.99)
    allowed = 2 * usual + chunk
    return {
        "p99_over_alone": round(worst / usual, 3),
        "allowed_ms": round(1e3 * allowed, 1),
        "within": worst <= allowed,
    }
