"""Asking for peers: at once where that is brief, else by an event and its answer.

Invariants: at most one question is open; an answer to any other is of no more use, and is not
looked for any more where that has not begun. While PLANNING an open question is for lost legs,
while RUNNING for somebody better than a slow one; in the other phases none is open.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from p2pnode.inference.chain import Chain
from p2pnode.inference.cover import Covered, CoverTask
from p2pnode.inference.events import PlanRequested
from p2pnode.inference.request import GenerationRequest, Planner
from p2pnode.scheduler.chain import NoCover
from p2pnode.scheduler.standing import Standing

Answered: TypeAlias = Callable[[Covered | NoCover, float], None]


class Questions:
    """The questions for peers of one answer."""

    def __init__(
        self, generation: int, request: GenerationRequest, planner: Planner, chain: Chain
    ) -> None:
        self._generation = generation
        self._request = request
        self._planner = planner
        self._chain = chain
        self._ticket = 0
        self._open = 0  # the ticket of the open question, if any; read in other threads too
        self._answered: Answered | None = None

    @property
    def is_open(self) -> bool:
        return self._answered is not None

    def drop(self) -> None:
        """Whatever was asked, the answer would be about another chain."""
        self._answered, self._open = None, 0

    def ask(
        self,
        standings: tuple[Standing, ...],
        lost: frozenset[int],
        answered: Answered,
        now: float,
    ) -> PlanRequested | None:
        """Ask who may take the place of ``lost`` legs, by the first of ``standings`` that helps.

        There is at least one of those, all out of one book: they go by one picture of the swarm.

        ``answered`` is called at once; or later, where an event is returned.
        """
        self.drop()
        self._ticket += 1
        ticket = self._ticket
        request = replace(self._request, activations=self._chain.cover.activations)
        view = self._planner.view(request, standings[0], now)
        task = CoverTask(
            (view, *(view.under(standing) for standing in standings[1:])),
            self._chain.legs,
            lost,
            tuple(self._chain.path),
            bool(self._chain.cover.calibration),
            lambda: self._open == ticket,
            self._chain.numerics.of(self._chain.legs, lost),
        )
        if task.is_brief:
            self._open = ticket
            found = task()
            self.drop()
            answered(found, now)
            return None
        self._answered, self._open = answered, ticket
        return PlanRequested(self._generation, ticket, task)

    def take(self, ticket: int, result: Covered | NoCover, now: float) -> bool:
        """Take an answer; False when nobody waits for it any more."""
        answered = self._answered
        if ticket != self._open or answered is None:
            return False
        self.drop()
        answered(result, now)
        return True
