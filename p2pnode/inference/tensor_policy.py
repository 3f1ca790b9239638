"""Which coding the hidden states on an edge get: the finest that does not hold the answer up.

An edge of an answer that allows coarser than f16 begins there. Where its link is the bottleneck,
that is, where a payload spends longer on the wire than everything else of the step takes, it goes
down the ladder a rung at a time, and up again where the finer rung would fit as well. Two things
keep it from flapping: a margin (what makes it go down and what makes it go up are apart), and
patience (the same evidence several times in a row). What the sender measures on the real tensor
has the last word: a rung that cost more of the answer than allowed is left at once and not tried
again for long.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple, Protocol

from p2pnode.errors import ConfigError
from p2pnode.inference.terms import LADDER, PLAIN, Terms, nearest
from p2pnode.sansio import NodeId
from p2pnode.wire.states import Rung

SHARE_OF_F16: Final[Mapping[Rung, float]] = {
    Rung.F16: 1.0,
    Rung.I8: 0.52,
    Rung.Q5: 0.52,
    Rung.Q4: 0.31,
    Rung.Q3: 0.31,
    Rung.Q2: 0.19,
}
"""Bytes against f16, scales of a group included; measured on 576 channels. A rung that does not
exist without a calibration counts as the next finer one, which takes its place."""

CALIBRATED_SHARE: Final[Mapping[Rung, float]] = {
    Rung.F16: 1.0,
    Rung.I8: 0.46,
    Rung.Q5: 0.34,
    Rung.Q4: 0.28,
    Rung.Q3: 0.23,
    Rung.Q2: 0.18,
}
"""The same with a calibration; of a single row, which takes the most (``docs/decisions/0008``)."""


class Evidence(Enum):
    """What one look at an edge says."""

    HEAVY = "the payload is the larger part of the step"
    ROOM = "the next finer coding would not be"
    UNMEASURED = "nothing is known that speaks for a coarse coding"
    BALANCED = "a coarser coding would gain little, a finer one cost much"


# An evidence machine: what says nothing moves no edge. How far each moves one down the ladder, once
# it has come so often in a row (PolicyConfig).
STEP: Final[Mapping[Evidence, int]] = {
    Evidence.HEAVY: 1,
    Evidence.ROOM: -1,
    Evidence.UNMEASURED: -1,
    Evidence.BALANCED: 0,
}


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """When an edge changes its coding.

    Attributes:
        heavy: The payload's time on the wire is this many times all the rest of the step before a
            coarser coding is taken. Above 1, or the payload is not the larger part. A guess.
        room: The finer coding's time on the wire is at most this many times the rest before it
            is taken again. Below ``heavy``, and the further, the calmer. A guess.
        least_wire: Seconds on the wire that are never worth a coarser coding: coding and decoding
            128 rows of 4096 channels take 1 to 4 ms (measured), so less gains nothing.
        patience_down: Looks in a row that say so before a step down. A prompt of 256 tokens gives
            four. At least 1.
        patience_up: The same for a step up; longer, since a step up too early is felt at once.
        bar: Looks for which a rung that cost too much is not tried again; twice as many with every
            further time.
        edges: Edges remembered, the longest unused forgotten first.
    """

    heavy: float = 1.25
    room: float = 0.8
    least_wire: float = 0.002
    patience_down: int = 3
    patience_up: int = 8
    bar: int = 64
    edges: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.room < self.heavy or self.heavy <= 1:
            raise ConfigError("room is below heavy, and heavy above 1")
        if min(self.patience_down, self.patience_up, self.bar, self.edges) < 1:
            raise ConfigError("patience, bar and edges are at least 1")


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of the way to a peer.

    Attributes:
        goodput: Bytes a second that large messages reach; None where none was sent yet.
        delay: Seconds a small message takes one way; None where it is not known.
    """

    goodput: float | None = None
    delay: float | None = None


class Links(Protocol):
    """Knows the ways to peers; a node answers from its transport."""

    def link(self, peer: NodeId) -> Link: ...


@dataclass(frozen=True, slots=True)
class Coded:
    """What the coding of one batch came to.

    Attributes:
        rung: As what it was sent.
        kl: Nats that this costs, as estimated on the batch itself.
        saved: Bytes that f16 would have taken more.
        failed: Coarser rungs that were tried and would have cost more than the terms allow.
    """

    rung: Rung
    kl: float = 0.0
    saved: int = 0
    failed: tuple[Rung, ...] = ()


class EdgeKey(NamedTuple):
    """Hidden states of one kind that leave for one place.

    Attributes:
        peer: Where they go.
        layer: The layer they enter there.
        block: Whether they are batches of several positions (a prompt), or single ones (an answer's
            tokens): a link may be the bottleneck for one and not for the other.
        space: Names the model.
    """

    peer: NodeId
    layer: int
    block: bool
    space: int = 0


@dataclass(slots=True)
class EdgeState:
    """What an edge uses now, and how it came to that.

    Attributes:
        rung: The coding that the link asks for; what a session's terms allow may be finer.
        used: The coding of the newest batch, after the budget had its say.
        why: Why ``rung`` is what it is.
        kl: Nats of KL divergence that the newest batch's coding costs, as estimated by its sender.
        saved: Bytes that f16 would have taken more.
        down: Steps to coarser codings, by reason.
        up: Steps to finer ones, by reason.
        row_s: Seconds a position takes to be computed here; None before the first.
    """

    rung: Rung = Rung.F16
    used: Rung = Rung.F16
    why: str = "f16 is where every edge begins"
    kl: float = 0.0
    saved: int = 0
    down: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    row_s: float | None = None
    looks: int = 0
    _evidence: Evidence = Evidence.BALANCED
    _run: int = 0
    _barred: dict[Rung, tuple[int, float]] = field(default_factory=dict)
    _exceeded: Counter[Rung] = field(default_factory=Counter)

    def look(self, evidence: Evidence, terms: Terms, config: PolicyConfig) -> None:
        """Take one look's evidence; step when it has come often enough in a row."""
        self.looks += 1
        self._run = self._run + 1 if evidence is self._evidence else 1
        self._evidence = evidence
        step = STEP[evidence]
        patience = config.patience_down if step > 0 else config.patience_up
        if not step or self._run < patience:
            return
        self._run = 0
        following = neighbour(self.rung, step, terms)
        if following is None or (step > 0 and self._is_barred(following, terms)):
            return
        self._move(following, evidence.value)

    def exceeded(self, failed: Rung, used: Rung, terms: Terms, config: PolicyConfig) -> None:
        """The coding ``failed`` cost more than the terms allow, so ``used`` was sent instead."""
        looks = config.bar << min(self._exceeded[failed], 16)
        self._barred[failed] = (self.looks + looks, terms.kl)
        self._exceeded[failed] += 1
        if LADDER.index(self.rung) > LADDER.index(used):
            self._run = 0
            self._move(used, "its coding cost more of the answer than allowed")

    def _is_barred(self, rung: Rung, terms: Terms) -> bool:
        until, kl = self._barred.get(rung, (0, 0.0))
        return self.looks < until and terms.kl <= kl

    def _move(self, rung: Rung, why: str) -> None:
        coarser = LADDER.index(rung) > LADDER.index(self.rung)
        (self.down if coarser else self.up)[why] += 1
        self.rung, self.why = rung, why


class TensorPolicy:
    """The codings of all edges that leave one node."""

    def __init__(self, config: PolicyConfig, links: Links | None) -> None:
        self._config = config
        self._links = links
        self._edges: dict[EdgeKey, EdgeState] = {}

    def choose(
        self, key: EdgeKey, terms: Terms, rows: int, row_bytes: int, *, calibrated: bool = False
    ) -> tuple[Rung, ...]:
        """Return the codings to try on a batch, in order; the last is never refused.

        Args:
            key: Where the batch is to go.
            terms: What the session allows.
            rows: Its positions.
            row_bytes: What one takes in f16.
            calibrated: Whether both ends have a calibration of this cut; without one there are
                fewer codings.
        """
        if not calibrated:
            terms = replace(terms, rungs=terms.rungs & PLAIN)
        shares = CALIBRATED_SHARE if calibrated else SHARE_OF_F16
        if terms.pinned is not None:
            return (nearest(terms.pinned, terms),)
        state = self._state(key)
        link = Link() if self._links is None else self._links.link(key.peer)
        rest = None if state.row_s is None else state.row_s * rows
        evidence = weigh(state.rung, rows * row_bytes, rest, link, terms, self._config, shares)
        state.look(evidence, terms, self._config)
        first = LADDER.index(nearest(state.rung, terms))
        return tuple(rung for rung in reversed(LADDER[: first + 1]) if rung in terms.rungs)

    def sent(self, key: EdgeKey, terms: Terms, batch: Coded, seconds: float, rows: int) -> None:
        """Take what became of a batch: its coding, and the seconds its rows took to compute."""
        state = self._state(key)
        state.row_s = seconds / rows
        state.used, state.kl = batch.rung, batch.kl
        state.saved += batch.saved
        if terms.pinned is not None:
            return  # what one answer asks for says nothing about the link, which others share
        for rung in batch.failed:
            state.exceeded(rung, batch.rung, terms, self._config)

    def edges(self) -> Mapping[EdgeKey, EdgeState]:
        return self._edges

    def _state(self, key: EdgeKey) -> EdgeState:
        state = self._edges.pop(key, None)
        if state is None:
            state = EdgeState()
            while len(self._edges) >= self._config.edges:
                del self._edges[next(iter(self._edges))]
        self._edges[key] = state  # the newest used is last
        return state


def weigh(
    rung: Rung,
    f16_bytes: int,
    compute_s: float | None,
    link: Link,
    terms: Terms,
    config: PolicyConfig,
    shares: Mapping[Rung, float] = SHARE_OF_F16,
) -> Evidence:
    """Say what the link asks for, where ``rung`` is in use.

    Args:
        rung: The coding now.
        f16_bytes: The payload in f16.
        compute_s: Seconds that computing it takes here; None where that is not known.
        link: What is known of the way.
        terms: What the session allows.
        config: The margins.
        shares: What each coding takes against f16.
    """
    if compute_s is None or not link.goodput or link.delay is None:
        return Evidence.UNMEASURED
    wire = f16_bytes / link.goodput  # seconds, in f16
    rest = compute_s + link.delay
    if wire * shares[rung] > max(config.heavy * rest, config.least_wire):
        return Evidence.HEAVY
    finer = neighbour(rung, -1, terms)
    if finer is not None and wire * shares[finer] < config.room * max(rest, config.least_wire):
        return Evidence.ROOM
    return Evidence.BALANCED


def neighbour(rung: Rung, step: int, terms: Terms) -> Rung | None:
    """Return the next coding up (-1) or down (1) that the terms allow; None at the end."""
    at = LADDER.index(rung)
    way = LADDER[at + 1 :] if step > 0 else LADDER[:at][::-1]
    return next((one for one in way if one in terms.rungs), None)
