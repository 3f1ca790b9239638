"""What one engine computes next, decided where all sessions are seen.

One step is with the engine at a time, and what comes while it computes is gathered for the next. A
step is either rows of many sessions, which the engine computes together, or one batch of a prompt
or of a replay, which it could not compute together with anything; so results of rows never wait
for a batch in their own step. Rows come first, and a batch has its turn when rows have had as much
of the engine since the last one as it takes: so a token waits for one batch at most, and a prompt
has half of the engine whoever else there is. After some batches of prompts comes one of a replay.

Of each kind requesters have equal shares (:mod:`.fair_round`); models have shares by weight.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from p2pnode.scheduler.fair_round import FairRound
from p2pnode.scheduler.step_cost import StepCost
from p2pnode.scheduler.waiting import Group, Kind, SessionName, Waiting
from p2pnode.values import value

MOST_ROWS: Final = 32
"""Rows in a step: engines compute larger batches by other kernels, and each session in a step
takes memory for what lies between its layers."""

FEW_ROWS: Final = 8
"""Rows that a step may always have, however long they take: a slow engine, or one measured in a
busy moment, has the more to gain from computing them at once."""

_PROMPTS_IN_A_ROW: Final = 3
_MOST_TURNS: Final = 64  # in the time of a step, where each session is one: they take turns finely
_REMEMBERED: Final = 64  # steps whose figures are told


@value
class EngineQueue:
    """How one engine was kept busy: what waits, and means of the newest 64 steps.

    Attributes:
        waiting: Sessions that have something for it.
        steps: How many steps there were; cumulative.
        sessions: Mean sessions in a step.
        rows: Mean rows in a step.
        queued: Mean seconds from a session's input to the beginning of its step.
        longest: The longest of those.
    """

    waiting: int
    steps: int
    sessions: float
    rows: float
    queued: float
    longest: float


@dataclass(slots=True)
class _Room:
    """What there is room for in a step of rows; all of one group, once there is one.

    Attributes:
        most: Microseconds that it may take.
        most_rows: Rows; 0 for those of one session, however many.
    """

    costs: Callable[[int], StepCost]
    most: float
    most_rows: int
    group: Group | None = None
    rows: int = 0
    draws: int = 0

    def takes(self, one: Waiting) -> bool:
        rows, draws = self.rows + one.rows, self.draws + one.draws
        if self.rows:  # a step has at least one
            cost = self.costs(one.group[0])
            took = cost.fixed_us + cost.rows_us(rows, one.layers) + cost.head_us * draws
            is_long = took > self.most and rows > FEW_ROWS
            if rows > self.most_rows or is_long:
                return False
        self.group, self.rows, self.draws = one.group, rows, draws
        return True


class _Lane:
    """What waits for one model.

    Attributes:
        rounds: By :class:`Kind`.
        weight: Its share of the engine, beside those of others.
        served: Microseconds that it had, by weight; the model that had least is next.
        owed: Microseconds of rows since the last batch.
        prompts: Batches of prompts since the last of a replay.
    """

    def __init__(self, cost: Callable[[Waiting], float], weight: float) -> None:
        self.rounds = tuple(FairRound(cost) for _ in Kind)
        self.weight = weight
        self.served = 0.0
        self.owed = 0.0
        self.prompts = 0

    def __len__(self) -> int:
        return sum(map(len, self.rounds))

    def batches(self) -> FairRound | None:
        """Return the round of which a batch is next, if any waits."""
        prompts, replays = self.rounds[Kind.PROMPT], self.rounds[Kind.REPLAY]
        if len(replays) and (not len(prompts) or self.prompts >= _PROMPTS_IN_A_ROW):
            return replays
        return prompts if len(prompts) else None


class Batcher:
    """The batch scheduler of one engine.

    Invariants: a session waits for one thing at most, in the lane of its model.

    Attributes:
        is_busy: Whether a step is with the engine.
    """

    def __init__(self, step_ms: float, *, is_batching: bool = True) -> None:
        """A step of rows is to take ``step_ms`` at most; not ``is_batching``: one session each."""
        self._most = step_ms * 1000
        self._most_rows = MOST_ROWS if is_batching else 0
        self._costs: dict[int, StepCost] = {}
        self._weights: Mapping[int, float] = MappingProxyType({})
        self._lanes: dict[int, _Lane] = {}
        self._waiting: dict[SessionName, Waiting] = {}
        self._steps = 0
        self._told: deque[tuple[int, int, float, float]] = deque(maxlen=_REMEMBERED)
        self.is_busy = False

    def __len__(self) -> int:
        """Return how many sessions wait."""
        return len(self._waiting)

    def __contains__(self, session: SessionName) -> bool:
        return session in self._waiting

    # Commands

    def measured(self, space: int, cost: StepCost) -> None:
        """The engine takes so long for the model of ``space``."""
        self._costs[space] = cost

    def weigh(self, weights: Mapping[int, float]) -> None:
        """Let models have the engine by these weights, by space; one that is not named has 1."""
        self._weights = weights
        for space, lane in self._lanes.items():
            lane.weight = weights.get(space, 1.0)

    def ready(self, one: Waiting) -> None:
        """A session has something for the engine; what it had before stands."""
        if one.session in self._waiting:
            return
        lane = self._lane(one.group[0])
        if not len(lane):  # it has no claim to what it did not ask for
            others = [other.served for other in self._lanes.values() if len(other)]
            lane.served = max(lane.served, min(others, default=0.0))
        lane.rounds[one.kind].add(one)
        self._waiting[one.session] = one

    def leave(self, session: SessionName) -> None:
        """What a session had for the engine is void."""
        if session in self._waiting:
            one = self._waiting.pop(session)
            self._lanes[one.group[0]].rounds[one.kind].remove(one)

    def compose(self, now: float) -> Sequence[Waiting]:
        """Return what the engine is to compute next, all of one group.

        Empty where it computes still, or nothing waits. Afterwards it computes, until
        :meth:`finished`.
        """
        if self.is_busy or not self._waiting:
            return ()
        step = self._next_step()
        self.is_busy = True
        self._steps += 1
        waits = [now - one.since for one in step]
        self._told.append((len(step), sum(one.rows for one in step), sum(waits), max(waits)))
        return step

    def began_alone(self, rows: int, queued: float) -> None:
        """The engine was given what the only session had that waited, without more ado."""
        self.is_busy = True
        self._steps += 1
        self._told.append((1, rows, queued, queued))

    def finished(self) -> None:
        """The step is done, or nobody waits for it any more."""
        self.is_busy = False

    def rows_within(self, space: int, layers: int) -> int:
        """Return how many rows, computed one after the other, take as long as a step may."""
        one = self._cost(space).rows_us(1, layers)
        return max(1, int(self._most / one)) if one else MOST_ROWS

    # Outputs

    @property
    def figures(self) -> EngineQueue:
        told = list(self._told)
        count, shares = len(told), sum(sessions for sessions, *_ in told)
        return EngineQueue(
            len(self),
            self._steps,
            shares / count if count else 0.0,
            sum(rows for _, rows, _, _ in told) / count if count else 0.0,
            sum(queued for _, _, queued, _ in told) / shares if shares else 0.0,
            max((longest for *_, longest in told), default=0.0),
        )

    # The next step

    def _lane(self, space: int) -> _Lane:
        lane = self._lanes.get(space)
        if lane is None:
            lane = _Lane(self._alone_us, self._weights.get(space, 1.0))
            self._lanes[space] = lane
        return lane

    def _next_step(self) -> list[Waiting]:
        lane = min((lane for lane in self._lanes.values() if len(lane)), key=_served)
        rows, batches = lane.rounds[Kind.ROWS], lane.batches()
        following = None if batches is None else batches.first()
        is_turn = following is not None and lane.owed >= max(self._most, self._alone_us(following))
        if batches is not None and (is_turn or not len(rows)):
            step = batches.take(_Room(self._cost, self._most, 0), self._most)
            lane.prompts = lane.prompts + 1 if batches is lane.rounds[Kind.PROMPT] else 0
            lane.owed = 0.0
        else:
            room = _Room(self._cost, self._most, self._most_rows)
            turns = rows.parties if self._most_rows else _MOST_TURNS
            step = rows.take(room, self._most / turns)
            lane.owed += self._step_us(step) if batches is not None else 0.0
        for one in step:
            del self._waiting[one.session]
        lane.served += self._step_us(step) / lane.weight
        return step

    # Costs

    def _cost(self, space: int) -> StepCost:
        return self._costs.get(space, _UNKNOWN)

    def _alone_us(self, one: Waiting) -> float:
        """Return what something takes by itself: what its requester is charged."""
        cost = self._cost(one.group[0])
        return cost.rows_us(one.rows, one.layers) + cost.head_us * one.draws

    def _step_us(self, step: Sequence[Waiting]) -> float:
        first = step[0]
        cost, rows = self._cost(first.group[0]), sum(one.rows for one in step)
        drawn = sum(one.draws for one in step)
        return cost.fixed_us + cost.rows_us(rows, first.layers) + cost.head_us * drawn


_UNKNOWN: Final = StepCost()


def _served(lane: _Lane) -> float:
    return lane.served
