"""What a stranger, a member and all members together may cost, as numbers.

Every limit is a :class:`Rate`. What is beyond one is dropped and counted, and nothing is lost for
good: records come again with a later push/pull, claims are repeated while their reason lasts.
"""

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

from p2pnode.errors import ConfigError

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and then so many a second."""

    burst: float
    per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything a second.

    Where a reason names an honest swarm, it is one of 1,000 members, unless it says otherwise.

    Raises:
        ConfigError: A burst is below one, or a rate is not above zero.
    """

    verifications: Rate = Rate(1024, 512)
    """Signatures checked for all members together. One costs about 60 us, so this is 3 % of a core
    and at worst 60 ms at once, spread over 15 messages or more. A whole table at once."""

    records_per_source: Rate = Rate(384, 96)
    """Newer or unknown records that one member brings of others. A newcomer that knows one member
    learns 1,000 others from it in 9 s (measured); ads that change once in 10 s arrive at 100 a
    second, from all members together."""

    records_per_subject: Rate = Rate(12, 3)
    """Newer records of one member, whoever brings them. Its own changes come once in
    ``announce_interval``, its refutations at most at ``renewals``."""

    rebirths_per_source: Rate = Rate(32, 2)
    """Records of later lives of others that one member brings. A restart of one's own is brought
    by oneself. A guess: a whole lab that restarts within a minute."""

    rebirths_per_subject: Rate = Rate(6, 0.2)
    """Later lives of one member. A few quick restarts in a row are usual; one every five seconds
    for ever is a fault, or a key in use twice."""

    claims_per_claimant: Rate = Rate(64, 8)
    """Claims of one member about others. One that is cut off from half of a swarm of 100 signs two
    about each of 50, as fast as it probes: 2.5 a second."""

    claims_per_source: Rate = Rate(256, 64)
    """Claims that one member brings, its own and others'. Four claimants' worth."""

    probes_of_accused: Rate = Rate(16, 16)
    """Probes begun because of others' words. One costs about 10 datagrams of 100 bytes."""

    challenges: Rate = Rate(32, 64)
    """Pings to suspects between probes, for all suspects together: eight suspects as often as
    ``ack_timeout`` says, more of them less often."""

    hints_per_source: Rate = Rate(16, 1)
    """Probes begun because of one member's words that do not count: its digests, which are not
    signed, and its claims if it accused falsely. They take no more of ``probes_of_accused``."""

    renewals: Rate = Rate(5, 1)
    """New versions of our own record signed because others accuse us. A healthy node signs none; a
    node on a bad link a few in a minute. What comes faster is answered together."""

    renewals_per_accuser: Rate = Rate(4, 0.25)
    """The same for the claims of one member."""

    renewals_per_digest: Rate = Rate(3, 0.2)
    """The same for the digests of one member, which are not signed. Who truly believes us dead
    also brings the claim that made it so."""

    replies_per_source: Rate = Rate(4, 1)
    """Messages to one member because what it says of itself differs from what we hold."""

    compared_per_source: Rate = Rate(4096, 1024)
    """Entries of our table compared with one member's digests, each digest counting 64 besides.
    Joining takes three times the table at most, a push/pull as much as the table."""

    joins_per_peer: Rate = Rate(4, 0.2)
    """Push/pulls begun because a session with one member came up: the digest of 1,000 members takes
    4 ms and 21 KB (measured), a handshake 0.3 ms. Whoever connects more often is compared with when
    the next push/pull is due, with anybody. A guess: a link that fails every five seconds."""

    def __post_init__(self) -> None:
        for field in fields(self):
            rate: Rate = getattr(self, field.name)
            if rate.burst < 1 or rate.per_second <= 0:
                raise ConfigError(f"{field.name}: at least one at once, and more than none later")


_ROUNDING = 1e-9  # who waits as long as it was told must not find a hair too little


class TokenBucket:
    """Says whether one more is within a rate."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._tokens = rate.burst
        self._at = 0.0

    def has(self, now: float, cost: float = 1.0) -> bool:
        """Return whether ``cost`` could be taken; what costs more than a burst may take a burst."""
        self._fill(now)
        return self._tokens >= min(cost, self._rate.burst) - _ROUNDING

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` if it is there; return whether it was."""
        if not self.has(now, cost):
            return False
        self._tokens = max(0.0, self._tokens - min(cost, self._rate.burst))
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until one more can be taken."""
        self._fill(now)
        return 0.0 if self.has(now) else (1.0 - self._tokens) / self._rate.per_second

    def _fill(self, now: float) -> None:
        if now > self._at:
            gained = (now - self._at) * self._rate.per_second
            self._tokens = min(self._rate.burst, self._tokens + gained)
            self._at = now


class Buckets(Generic[KeyT]):
    """A bucket for each of many; those used longest ago are let go beyond ``room`` of them."""

    def __init__(self, rate: Rate, room: int) -> None:
        self._rate = rate
        self._room = room
        self._buckets: dict[KeyT, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: KeyT) -> TokenBucket:
        """Return the bucket of ``key``, a full one if it has none."""
        bucket = self._buckets.pop(key, None) or TokenBucket(self._rate)
        self._buckets[key] = bucket
        if len(self._buckets) > self._room:
            del self._buckets[next(iter(self._buckets))]
        return bucket
