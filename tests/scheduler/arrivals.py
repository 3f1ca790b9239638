"""Newcomers of a swarm that start one by one, and hear of each other in any order."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol, TypeVar


class Arriving(Protocol):
    """A node that is about to choose its layers.

    Attributes:
        changes: How often it changed what it says.
    """

    changes: int

    def start(self) -> None: ...


NewcomerT = TypeVar("NewcomerT", bound=Arriving)


def converge(
    newcomers: Sequence[NewcomerT], rng: Random, tell: Callable[[NewcomerT, NewcomerT], None]
) -> int:
    """Start all at random moments and deliver their news in random order, until all is quiet.

    Args:
        newcomers: None of whom has started.
        rng: Draws who is next.
        tell: Lets the second hear what the first says now.

    Returns:
        The steps that it took.
    """
    told: dict[tuple[int, int], int] = {}
    waiting = list(newcomers)
    numbers = range(len(newcomers))
    for steps in range(5_000):
        news = [
            (one, other)
            for one in numbers
            for other in numbers
            if one != other and newcomers[one].changes > told.get((one, other), 0)
        ]
        if waiting and (not news or rng.random() < 0.3):
            waiting.pop(rng.randrange(len(waiting))).start()
        elif news:
            one, other = rng.choice(news)
            told[one, other] = newcomers[one].changes
            tell(newcomers[one], newcomers[other])
        else:
            return steps
    raise AssertionError("they never agreed")
