"""What peers may do to an answer, what each offence says of them, and for how long it counts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple

from p2pnode.errors import ConfigError


class Kind(Enum):
    """What an offence says of a peer; distrust of each kind is kept apart."""

    DEAD = auto()  # it was not there, or could not do it
    SLOW = auto()  # it was there, and did it late or not at once
    LYING = auto()  # what it said cannot be true


class Offence(Enum):
    """What a peer did; :data:`MEANINGS` says what each is worth."""

    LOST = auto()
    CLOSED = auto()
    SILENT = auto()
    STALLED = auto()
    REFUSED = auto()
    STEPPED_BACK = auto()
    FAILED = auto()
    NOT_FINITE = auto()
    IMPOSSIBLE_TOKEN = auto()
    SLOWER_THAN_PROMISED = auto()
    ACCUSED = auto()
    DISPUTED = auto()


class Meaning(NamedTuple):
    """What one offence is worth.

    Attributes:
        kind: What it says of the peer.
        weight: Of a whole offence, 0 to 1: how sure it is that the peer is to blame. Guesses.
        clause: Goes on after the peer's name.
    """

    kind: Kind
    weight: float
    clause: str


MEANINGS: Mapping[Offence, Meaning] = MappingProxyType(
    {
        Offence.LOST: Meaning(Kind.DEAD, 1.0, "was lost"),
        Offence.CLOSED: Meaning(Kind.DEAD, 1.0, "closed its session"),
        Offence.SILENT: Meaning(Kind.DEAD, 1.0, "did not answer"),
        Offence.STALLED: Meaning(Kind.SLOW, 1.0, "stalled"),
        Offence.REFUSED: Meaning(Kind.SLOW, 0.5, "refused"),
        # Its owner's right, and no fault; but a chain through whoever often does is mended often.
        Offence.STEPPED_BACK: Meaning(Kind.SLOW, 0.125, "stepped back"),
        Offence.FAILED: Meaning(Kind.DEAD, 1.0, "failed"),
        Offence.NOT_FINITE: Meaning(Kind.LYING, 1.0, "sent numbers that are not finite"),
        Offence.IMPOSSIBLE_TOKEN: Meaning(Kind.LYING, 1.0, "sent a token that does not exist"),
        Offence.SLOWER_THAN_PROMISED: Meaning(Kind.SLOW, 1.0, "was slower than promised"),
        Offence.ACCUSED: Meaning(Kind.DEAD, 0.25, "was accused by a neighbour"),
        # One of two lies, and it may be either: so it is no lie, and not beyond a last resort.
        Offence.DISPUTED: Meaning(Kind.DEAD, 1.0, "is said to have sent useless numbers"),
    }
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer is avoided for offences of one kind.

    Attributes:
        first: Seconds after the first offence; each further one doubles them.
        longest: The most seconds; at least ``first``.
        half_life: Seconds in which half of an offence is forgotten. Well above ``first``, or a
            peer that offends each time it is tried again would never be distrusted more.
    """

    first: float
    longest: float
    half_life: float

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.longest:
            raise ConfigError(f"first {self.first} s, at the longest {self.longest} s: impossible")
        if self.half_life <= 0:
            raise ConfigError(f"a half-life is positive, unlike {self.half_life} s")

    def avoided_for(self, level: float) -> float:
        """Return the seconds for which a peer of this many unforgotten offences is avoided."""
        if level <= 0:
            return 0.0
        return min(self.longest, self.first * math.exp2(min(level - 1, 64.0)))


@dataclass(frozen=True, slots=True)
class TrustConfig:
    """Settings of the ledger. All are guesses, tried against the hostile simulations.

    Attributes:
        dead: Patience with those that were not there. Short at first, since a machine that was
            restarted is good again at once.
        slow: Patience with those that were late.
        lying: Patience with those that cannot be honest: a broken memory chip does not mend.
        max_factor: The most a peer is dearer than it says for what it did, at least 1.
        proven_tokens: Tokens of ours that a peer computes before it is proven. About an answer: few
            enough that an honest newcomer gets there in its first trial.
        most_tokens: Tokens that count at the most, at least ``proven_tokens``. Each offence halves
            what counts, so log2(most / proven) offences in a row make a stranger of anybody.
        pessimism: What a stranger costs in a pause, in prices of the slowest proven peer; at least
            1. Each failure that is not forgotten doubles it.
        trial: Patience with strangers as a whole: the pause after a failure.
        trial_tokens: Tokens of ours computed since that failure, before the pause is over: without
            them whoever asks seldom would try a stranger in every answer, since each minute is over
            by then. A guess: a short answer.
        introduction: Seconds in which a stranger costs as in a pause, if we met it after anybody
            had served us: a fresh key is not believed at once, even while nobody failed us. Whoever
            came with the first is no newcomer. A guess: what the owner of a new machine will wait
            before it is used at full worth.
        acquaintance: Seconds for which a stranger must have been known to have part in a trial, as
            long as a failure is not forgotten.
        place: The same for strangers at an address that a failure came from.
        slowness_half_life: Seconds in which half of an observed slowness is forgotten and what the
            peer says of itself believed again.
        gain: Share of a new observation of speed in what is believed, above 0 and at most 1.
        hopeless: Unforgotten offences of one kind beyond which a peer is not even a last resort.
        max_proven: Proven peers remembered.
        max_strangers: Strangers remembered; one more pushes out the least distrusted of them, and
            never one of the proven.
        max_places: Addresses remembered.
        max_evidence: Pieces of evidence kept for each peer, newest first.
        max_text: Letters kept of each.
    """

    dead: Patience = field(default_factory=lambda: Patience(5.0, 120.0, 120.0))
    slow: Patience = field(default_factory=lambda: Patience(10.0, 600.0, 300.0))
    lying: Patience = field(default_factory=lambda: Patience(120.0, 86_400.0, 7_200.0))
    max_factor: float = 64.0
    proven_tokens: int = 16
    most_tokens: int = 256
    pessimism: float = 2.0
    trial: Patience = field(default_factory=lambda: Patience(60.0, 7_200.0, 1_800.0))
    trial_tokens: int = 64
    place: Patience = field(default_factory=lambda: Patience(60.0, 7_200.0, 1_800.0))
    introduction: float = 30.0
    acquaintance: float = 120.0
    slowness_half_life: float = 120.0
    gain: float = 0.25
    hopeless: float = 5.0
    max_proven: int = 1024
    max_strangers: int = 256
    max_places: int = 256
    max_evidence: int = 4
    max_text: int = 120

    def __post_init__(self) -> None:
        if self.max_factor < 1 or self.pessimism < 1:
            raise ConfigError("max_factor and pessimism are at least 1")
        if self.trial_tokens < 0:
            raise ConfigError(f"a pause of {self.trial_tokens} tokens: how?")
        if not 1 <= self.proven_tokens <= self.most_tokens:
            raise ConfigError(f"proven by {self.proven_tokens} of {self.most_tokens} tokens: how?")
        if not 0 < self.gain <= 1 or self.slowness_half_life <= 0 or self.hopeless <= 0:
            raise ConfigError("gain is in (0, 1], slowness_half_life and hopeless are positive")
        if min(self.max_proven, self.max_strangers, self.max_places, self.max_evidence) < 1:
            raise ConfigError("the ledger has room for one of each at least")

    def patience(self, kind: Kind) -> Patience:
        return {Kind.DEAD: self.dead, Kind.SLOW: self.slow, Kind.LYING: self.lying}[kind]
