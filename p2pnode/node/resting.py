"""When a node steps back for its owner, and when it comes back: a decision, made of what was seen.

Pure: whoever drives it looks at the machine and at the clock, says what is there, and does what is
answered (:mod:`p2pnode.node.rest_watch`).

An evidence machine: any look is welcome, and one that tells nothing changes nothing. Invariant:
between stepping back and coming back lie at least ``below_for`` seconds of looks below the lower
bound, and ``above_for`` of looks above the upper one before the next time; so nothing that a load
does makes a node flap faster.
"""

from dataclasses import dataclass

from p2pnode.errors import ConfigError
from p2pnode.node.quiet_hours import QuietHours, clock
from p2pnode.wire.rest import RestCause


@dataclass(frozen=True, slots=True)
class RestConfig:
    """When a node computes for nobody else. Bounds and times are guesses.

    Attributes:
        when_idle: Whether it steps back while its owner uses the machine.
        quiet_hours: Hours of the day in which it always does.
        look_every: Seconds between two looks at the machine while it computes for others. A
            node steps back one look and ``above_for`` after its owner came: 0.75 s.
        look_idle: The same while it does not, where there is nothing to feel. At least
            ``look_every``; a session may begin between two looks, and with ``above_for`` it is a
            second at most all the same.
        above: Share of the machine, 0 to 1, that the owner's programs use when it steps back:
            half a core of two, two of eight. What a desktop does by itself stays below it.
        above_for: Seconds for which they do; at least two looks at work, since one may be a window
            opening.
        below: Share of the machine under which the owner counts as gone; below ``above``.
        below_for: Seconds for which the owner is gone when the node comes back: longer than a
            person thinks between two strokes of work.
        longest_look: Seconds that a look may cover; what lies further apart, because the machine
            slept, says nothing of any moment. At least two looks.
    """

    when_idle: bool = False
    quiet_hours: tuple[QuietHours, ...] = ()
    look_every: float = 0.25
    look_idle: float = 0.5
    above: float = 0.25
    above_for: float = 0.5
    below: float = 0.10
    below_for: float = 30.0
    longest_look: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.below < self.above < 1:
            raise ConfigError("rest settings: 0 < below < above < 1")
        if not 0 < self.look_every <= self.above_for / 2 or self.below_for < self.above_for:
            raise ConfigError(
                "rest settings: above_for is two looks at least, below_for no less than above_for"
            )
        if not self.look_every <= self.look_idle <= 1.0 - self.above_for:
            raise ConfigError(
                "rest settings: look_idle is look_every at least, a second with above_for at most"
            )
        if self.longest_look < 2 * self.look_idle:
            raise ConfigError("rest settings: longest_look is two looks at least")

    @property
    def is_always(self) -> bool:
        """Whether it never rests."""
        return not self.when_idle and not self.quiet_hours


@dataclass(frozen=True, slots=True)
class Load:
    """What others than this node used of the machine, since the look before.

    Attributes:
        cpu: Share of all cores together, 0 to 1; None if nobody could tell.
        gpu: Share of the busiest GPU's time, 0 to 1; None if nobody could tell.
    """

    cpu: float | None = None
    gpu: float | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Why a node rests.

    Attributes:
        cause: For its ad.
        words: For its owner.
    """

    cause: RestCause
    words: str


class RestPolicy:
    """Says whether to rest; one for a node.

    Attributes:
        load: What was seen last.
    """

    def __init__(self, config: RestConfig) -> None:
        self._config = config
        self._cpu = _Bounds(config)
        self._gpu = _Bounds(config)
        self._seen_at: float | None = None
        self.load = Load()

    def look(self, load: Load, minute: int, now: float) -> Rest | None:
        """Take what is seen at ``now``, and the minute of the local day; return why to rest.

        None is no reason. The first look tells from when on the next one counts.
        """
        since, self._seen_at = self._seen_at, now
        self.load = load
        if since is not None and now - since <= self._config.longest_look:
            self._cpu.look(load.cpu, since, now)
            self._gpu.look(load.gpu, since, now)
        for hours in self._config.quiet_hours:
            if minute in hours:
                return Rest(RestCause.HOURS, f"quiet hours until {clock(hours.stop)}")
        if self._cpu.is_over:
            return Rest(RestCause.CPU, self._cpu.words("CPU", load.cpu, now))
        if self._gpu.is_over:
            return Rest(RestCause.GPU, self._gpu.words("GPU", load.gpu, now))
        return None


class _Bounds:
    """One share of the machine, between its two bounds.

    Attributes:
        is_over: Whether the owner uses it.
    """

    def __init__(self, config: RestConfig) -> None:
        self._config = config
        self._since: float | None = None  # since when it has been beyond the bound that counts
        self.is_over = False

    def look(self, share: float | None, since: float, now: float) -> None:
        """Take what was used from ``since`` to ``now``."""
        if share is None:
            return
        config = self._config
        is_beyond = share < config.below if self.is_over else share > config.above
        if not is_beyond:
            self._since = None
            return
        self._since = since if self._since is None else self._since
        if now - self._since >= (config.below_for if self.is_over else config.above_for):
            self.is_over, self._since = not self.is_over, None

    def words(self, what: str, share: float | None, now: float) -> str:
        """Say that the owner uses it, or since when no more."""
        if self._since is None:
            used = "" if share is None else f"{share:.0%} of "
            return f"the owner uses {used}the {what}"
        left = self._config.below_for - (now - self._since)
        return f"the owner has used the {what}; computes again in {max(left, 0.0):.0f} s"
