"""What the work of a chain should take: by its stages' promises, and by what it has shown.

An evidence machine. Times are in seconds. A promise is what the plan says of a stage; what a chain
has shown is the time of its newest tokens, a layer. The worse of the two is expected.
"""

from collections import deque
from collections.abc import Iterable
from statistics import fmean, median

from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Leg
from p2pnode.scheduler.chain import ChainPlan

_GAIN = 0.25
_BEFORE = 2  # pieces of work of others, each of `job_rows` at the most
_NEWEST = 32  # tokens of a chain by which it is judged when it ends
_ENOUGH = 8  # fewer say nothing: a moment in which something else had the machine


class Pace:
    """How fast one chain promised to be, and is.

    Attributes:
        promised: Seconds a token, the way included; 0 where nobody promised anything.
        slow_tokens: Tokens in a row that took far longer.
        slow_for: Seconds that those came late, together.
        patience: Seconds that tokens may come late, together, before anybody is looked for.
    """

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._hop = 0.0
        self._layers = 1
        self._layer: float | None = None
        self._row = 0.0  # seconds that a position of many took
        self._trips = deque[float](maxlen=_NEWEST)
        self.promised = 0.0
        self._due = 0.0  # what the newest token should have taken, beside other answers of ours
        self.slow_tokens = 0
        self.slow_for = 0.0
        self.patience = config.slow_seconds

    def planned(self, plan: ChainPlan) -> None:
        """Take what a first plan says of the way."""
        self._hop = max(plan.hop_us, default=0.0) / 1e6

    def of_chain(self, legs: tuple[Leg, ...]) -> None:
        """The chain is another one: what the old one has shown says nothing of it."""
        self._layers = max(1, sum(len(leg.run.layers) for leg in legs))
        self.promised = sum([_cost(leg) for leg in legs], 0.0) + self._hop * (len(legs) + 1)
        self._layer, self._row = None, 0.0
        self._trips.clear()
        self.slow_tokens, self.slow_for = 0, 0.0

    def work(self, lacking: Iterable[tuple[Leg, int]]) -> float:
        """Return the seconds that it should take legs to compute what they lack, in positions."""
        seconds, most = 0.0, 0
        for leg, positions in lacking:
            shown = (self._layer or 0.0) * len(leg.run.layers)
            seconds += positions * max(_cost(leg), shown)
            most = max(most, positions)
        return seconds if seconds > 0 else self._config.stall_per_prompt_token * most

    def ample(self, leg: Leg, positions: int) -> float:
        """Return seconds in which a leg that has its input should long have computed so much.

        As long as until the second look at a chain that does nothing else, and so much longer as
        the work of others takes that may come before: what its engine has in hand, and the next.
        """
        config = self._config
        others = _BEFORE * config.job_rows * _cost(leg)
        return 1.5 * config.stall_after + config.caution * self.work([(leg, positions)]) + others

    def many(self, trip: float, positions: int) -> None:
        """A prompt or a replay took ``trip`` seconds: no measure of a token, but of the way."""
        self._row = trip / positions

    def token(self, trip: float, answers: int = 1) -> None:
        """A token took ``trip`` seconds, while so many ``answers`` of ours were under way.

        They may all be with the same engines, each of which has its turn: so it is not slow before
        it takes longer than the promise so many times.
        """
        config = self._config
        if answers == 1:
            self._trips.append(trip)
        self._due = due = self.promised * max(1, answers)
        layer = trip / self._layers
        known = self._layer
        self._layer = layer if known is None else known + _GAIN * (layer - known)
        if trip > config.slow_factor * due and trip > due + config.slow_margin:
            self.slow_tokens += 1
            self.slow_for += trip - due
        else:
            self.slow_tokens, self.slow_for = 0, 0.0

    @property
    def expected(self) -> float:
        """Seconds that the next token should take."""
        known = self._layer
        return max(self.promised, self._row if known is None else known * self._layers)

    @property
    def is_slow(self) -> bool:
        """Whether somebody is far slower than promised, and has been for long enough."""
        return self.slow_tokens >= self._config.slow_tokens and self.slow_for >= self.patience

    @property
    def late(self) -> float:
        """Seconds that the newest slow tokens took, each."""
        return self._due + self.slow_for / max(1, self.slow_tokens)

    @property
    def trip(self) -> float | None:
        """The mean seconds of the newest tokens, the way included; None where they are few.

        The mean, so that nobody hides slow tokens among others.
        """
        return fmean(self._trips) if len(self._trips) >= _ENOUGH else None

    def shown_by(self, legs: tuple[Leg, ...]) -> float | None:
        """Return the seconds a layer that ``legs``, of one peer, took; None if as it promised.

        The median of the newest tokens, without the way. None, too, where it is not surely worse
        than the promise: of few tokens, or by no more than the way may vary.
        """
        if len(self._trips) < _ENOUGH:
            return None
        config, promised = self._config, sum(map(_cost, legs), 0.0)
        took = median(self._trips) - (self.promised - promised)
        if promised <= 0 or took <= config.notice_factor * promised + config.notice_margin:
            return None
        return took / self._layers

    def blame(self, leg: Leg) -> tuple[float, str]:
        """Return the seconds that ``leg`` takes for a token, and that as evidence.

        It is borne for twice as long before anybody is looked for again.
        """
        promised = _cost(leg)
        took = max(promised, self.late - (self._due - promised))
        self.slow_tokens, self.slow_for = 0, 0.0
        self.patience *= 2
        return took, f"promised {_duration(promised)}, took {_duration(took)} a token"

    def pays(self, took: float, offered: float, positions: int, left: int) -> bool:
        """Whether an offer is worth it, with all that it would have to replay first."""
        saved = took - offered
        replay = positions * offered + self._config.slow_seconds
        return saved > took / 2 and left * saved > replay


def _cost(leg: Leg) -> float:
    return leg.run.cost_us / 1e6


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
