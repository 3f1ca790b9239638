"""One peer's page in the ledger of trust: its offences by kind, its good conduct, its speed."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import MEANINGS, Kind, Meaning, Offence, TrustConfig
from p2pnode.scheduler.standing import FAILED, SLOW, Observed


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer's page of the ledger, for people.

    Attributes:
        peer: Its node id.
        kind: The kind of offence that weighs most now; None for a clean page.
        offences: How often it did what, since its page was opened.
        evidence: The newest pieces, newest first.
        avoided_for: Seconds until it is planned again; 0 if it may be.
        reason: Why it is avoided, as a clause; empty if it is not.
        factor: What its price is multiplied by.
        proven: Whether it has computed enough of our tokens.
        tokens: How many of those count.
        layer_us: Its observed speed; None if none is known.
    """

    peer: NodeId
    kind: Kind | None
    offences: Mapping[str, int]
    evidence: tuple[str, ...]
    avoided_for: float
    reason: str
    factor: float
    proven: bool
    tokens: int
    layer_us: float | None


FORGOTTEN = 0.05
"""Less than this of an offence is as good as nothing."""
_MENDED = 2.0
"""A peer that takes less than this part of what it took when it was slow is not so any more."""

_LATELY = {
    Offence.SLOWER_THAN_PROMISED: SLOW,
    Offence.STALLED: "it stalled lately",
    Offence.REFUSED: "it refused lately",
}
_TIMES = {1: "", 2: " twice"}


@dataclass(slots=True)
class Level:
    """A number of offences that are forgotten by halves."""

    amount: float = 0.0
    since: float = 0.0

    def at(self, now: float, half_life: float) -> float:
        if self.amount <= 0:
            return 0.0
        return self.amount * math.exp2(-max(0.0, now - self.since) / half_life)

    def add(self, amount: float, now: float, half_life: float) -> float:
        self.amount = max(0.0, self.at(now, half_life) + amount)
        self.since = max(now, self.since)
        return self.amount


@dataclass(slots=True)
class Mark:
    """Distrust of one kind.

    Attributes:
        level: Offences not forgotten.
        until: When the peer may be planned again.
        offence: The newest.
        evidence: Its evidence.
        is_only: Whether none before it was unforgotten.
    """

    level: Level
    until: float
    offence: Offence
    evidence: str
    is_only: bool = True


@dataclass(slots=True)
class Page:
    """All there is about one peer.

    Attributes:
        touched: When something was last entered.
        marks: Distrust by kind.
        offences: How often it did what.
        evidence: The newest pieces, newest first.
        tokens: Tokens it has computed, as far as they count.
        layer_us: Its observed speed.
        observed_at: When that was last observed.
        slowest_us: The worst that was observed since it was last not slow.
    """

    touched: float
    marks: dict[Kind, Mark] = field(default_factory=dict)
    offences: Counter[Offence] = field(default_factory=Counter)
    evidence: tuple[str, ...] = ()
    tokens: int = 0
    layer_us: float | None = None
    observed_at: float = 0.0
    slowest_us: float = 0.0

    @property
    def says_something(self) -> bool:
        return bool(self.offences or self.tokens or self.layer_us is not None)

    def is_proven(self, config: TrustConfig) -> bool:
        return self.tokens >= config.proven_tokens

    def enter(
        self,
        offence: Offence,
        meaning: Meaning,
        amount: float,
        evidence: str,
        now: float,
        config: TrustConfig,
    ) -> None:
        patience = config.patience(meaning.kind)
        text = evidence[: config.max_text]
        mark = self.marks.setdefault(meaning.kind, Mark(Level(), now, offence, text))
        level = mark.level.add(amount, now, patience.half_life)
        mark.until = max(mark.until, now + patience.avoided_for(level))
        mark.offence, mark.evidence = offence, text
        mark.is_only = level <= amount + FORGOTTEN
        self.offences[offence] += 1
        said = f"{meaning.clause}: {text}" if text else meaning.clause
        self.evidence = (said, *self.evidence)[: config.max_evidence]
        self.tokens = 0 if meaning.kind is Kind.LYING else round(self.tokens * (1 - amount / 2))

    def observe(self, layer_us: float, now: float, config: TrustConfig) -> None:
        if self.layer_us is None:
            self.layer_us = layer_us
        else:
            # What has faded weighs less against what is seen now.
            kept = (1 - config.gain) * self._weight(now, config)
            self.layer_us = (kept * self.layer_us + config.gain * layer_us) / (kept + config.gain)
        self.observed_at = now
        self.slowest_us = max(self.slowest_us, layer_us)

    def bound(self, layer_us: float, now: float, config: TrustConfig) -> None:
        """A token took no longer than ``layer_us`` a layer: believe no worse.

        One slowness is half forgotten with each answer that was not; one of several is not, or
        whoever is slow now and then would never be distrusted more.
        """
        if self.layer_us is None:
            return
        self.layer_us = min(self.layer_us, layer_us)
        mark = self.marks.get(Kind.SLOW)
        if layer_us > self.slowest_us / _MENDED:
            return
        if mark is None or mark.offence is not Offence.SLOWER_THAN_PROMISED or not mark.is_only:
            return
        level = mark.level.at(now, config.slow.half_life)
        if mark.level.add(-level / 2, now, config.slow.half_life) < FORGOTTEN:
            self.slowest_us = 0.0

    def speed(self, now: float, config: TrustConfig) -> Observed | None:
        if self.layer_us is None:
            return None
        weight = self._weight(now, config)
        return Observed(self.layer_us, weight) if weight >= FORGOTTEN else None

    def _weight(self, now: float, config: TrustConfig) -> float:
        return math.exp2(-max(0.0, now - self.observed_at) / config.slowness_half_life)

    def levels(self, now: float, config: TrustConfig) -> dict[Kind, float]:
        return {
            kind: mark.level.at(now, config.patience(kind).half_life)
            for kind, mark in self.marks.items()
        }

    def distrust(self, now: float, config: TrustConfig) -> float:
        return sum(self.levels(now, config).values())

    def factor(self, now: float, config: TrustConfig) -> float:
        level = self.distrust(now, config) if self.marks else 0.0
        return 1.0 if level < FORGOTTEN else min(config.max_factor, math.exp2(min(level, 64.0)))

    def trouble(self, now: float, config: TrustConfig) -> str:
        """Return what it did that weighs most now, as a clause."""
        levels = self.levels(now, config)
        kind = max(levels, key=lambda one: levels[one], default=None)
        return FAILED if kind is None else _LATELY.get(self.marks[kind].offence, FAILED)

    def is_hopeless(self, now: float, config: TrustConfig) -> bool:
        levels = self.levels(now, config)
        lying = self.marks.get(Kind.LYING)
        return (lying is not None and lying.until > now) or any(
            level > config.hopeless and self.marks[kind].until > now
            for kind, level in levels.items()
        )

    def worst(self, now: float) -> Mark | None:
        """Return the mark for which it is avoided longest, if it is."""
        held = [mark for mark in self.marks.values() if mark.until > now]
        return max(held, key=lambda mark: mark.until, default=None)

    def reason(self, now: float) -> str:
        mark = self.worst(now)
        if mark is None:
            return ""
        times = self.offences[mark.offence]
        often = _TIMES.get(times, f" {times} times")
        evidence = f" ({mark.evidence})" if mark.evidence else ""
        clause = MEANINGS[mark.offence].clause
        return f"{clause}{often}{evidence}; tried again in {_seconds(mark.until - now)}"

    def entry(self, peer: NodeId, now: float, config: TrustConfig) -> Entry:
        levels = self.levels(now, config)
        kind = max(levels, key=lambda one: levels[one], default=None)
        worst = self.worst(now)
        return Entry(
            peer=peer,
            kind=kind if kind is not None and levels[kind] >= FORGOTTEN else None,
            offences={offence.name.lower(): n for offence, n in _in_order(self.offences)},
            evidence=self.evidence,
            avoided_for=0.0 if worst is None else worst.until - now,
            reason=self.reason(now),
            factor=self.factor(now, config),
            proven=self.is_proven(config),
            tokens=self.tokens,
            layer_us=self.layer_us,
        )


def _in_order(offences: Counter[Offence]) -> list[tuple[Offence, int]]:
    return sorted(offences.items(), key=lambda pair: pair[0].value)


def _seconds(left: float) -> str:
    return f"{math.ceil(left)} s" if left < 120 else f"{math.ceil(left / 60)} min"
