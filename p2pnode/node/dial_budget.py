"""How many may be called at once on a stranger's word, how fast, and how often at one address."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from p2pnode.sansio import Address

HintT = TypeVar("HintT")


class Limits(Protocol):
    """What a budget asks of a config; the fields are explained there."""

    @property
    def most_in_flight(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def burst(self) -> int: ...
    @property
    def outcome_seconds(self) -> float: ...
    @property
    def most_pauses(self) -> int: ...
    def pause(self, failures: int, *, met: bool = False) -> float: ...


class _Flight(Generic[HintT]):
    """A call whose outcome is not known yet; past its deadline none will be told."""

    __slots__ = ("deadline", "hint")

    def __init__(self, hint: HintT, deadline: float) -> None:
        self.hint = hint
        self.deadline = deadline


@dataclass(slots=True)
class _Pause:
    """An address that did not answer."""

    failures: int
    until: float


class Budget(Generic[HintT]):
    """A token bucket, a number of calls in flight, and a pause for each address.

    The pause belongs to the address, not to the hint: a thousand names at one address are a
    thousand reasons to call it, and no more reason than one.
    """

    def __init__(self, config: Limits) -> None:
        self._config = config
        self._tokens = float(config.burst)
        self._renewed: float | None = None
        self._flights: dict[Address, _Flight[HintT]] = {}
        self._pauses: OrderedDict[Address, _Pause] = OrderedDict()

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def has_room(self) -> bool:
        return self._tokens >= 1 and len(self._flights) < self._config.most_in_flight

    def renew(self, now: float) -> None:
        """Count the time that has passed."""
        if self._renewed is not None:
            gained = self._config.rate * max(0.0, now - self._renewed)
            self._tokens = min(self._config.burst, self._tokens + gained)
        self._renewed = now
        over = [address for address, one in self._flights.items() if one.deadline <= now]
        for address in over:
            del self._flights[address]

    def choose(self, addresses: list[Address], turn: int, now: float) -> Address | None:
        """Return the address whose turn it is, of those that may be called now."""
        free = [
            address
            for address in addresses
            if address not in self._flights and self._paused_until(address) <= now
        ]
        return free[turn % len(free)] if free else None

    def failures(self, address: Address) -> int:
        """Return how often ``address`` was called since somebody answered there."""
        known = self._pauses.get(address)
        return 0 if known is None else known.failures

    def spend(self, address: Address, hint: HintT, now: float, *, met: bool = False) -> None:
        """Note that ``address`` is called because of ``hint``, whose node was ``met`` before."""
        self._tokens -= 1
        self._flights[address] = _Flight(hint, now + self._config.outcome_seconds)
        known = self._pauses.pop(address, _Pause(0, now))
        failures = known.failures + 1
        self._pauses[address] = _Pause(failures, now + self._config.pause(failures, met=met))
        while len(self._pauses) > self._config.most_pauses:
            self._pauses.popitem(last=False)

    def done(self, address: Address) -> HintT | None:
        """Note that a call came to nothing; return what it was made for."""
        flight = self._flights.pop(address, None)
        return None if flight is None else flight.hint

    def met(self, address: Address) -> None:
        """Note that somebody answered at ``address``."""
        self._flights.pop(address, None)
        self._pauses.pop(address, None)

    def forgive(self) -> None:
        """Forget which addresses did not answer."""
        self._pauses.clear()

    def next_room(self, now: float) -> float:
        """Return when the next call may be made, if none ends before."""
        if len(self._flights) >= self._config.most_in_flight:
            return min(one.deadline for one in self._flights.values())
        return now + max(0.0, 1 - self._tokens) / self._config.rate

    def _paused_until(self, address: Address) -> float:
        pause = self._pauses.get(address)
        return float("-inf") if pause is None else pause.until
