"""A chain whose middle is hostile, and all that its requester notes of it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import UnionType
from typing import Any

import numpy as np

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.activations import Batch, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.distrust import BriefDistrust
from p2pnode.inference.events import (
    GenerationFailed,
    GenerationFinished,
)
from p2pnode.inference.generation import Generation
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Computed, Forward, Work, WorkFailed, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.standing import Standing
from p2pnode.testing.frames import Behaviour, FrameNetwork, node_id
from p2pnode.wire.states import Rung, encode_states

A, B, C, EVIL, SPARE, TAIL = (node_id(name) for name in ("a", "b", "c", "evil", "spare", "tail"))
D_MODEL = 32
PROMPT = tuple(range(3, 43))
TOKENS = 12


class Book(BriefDistrust):
    """Remembers all it is told."""

    def __init__(self) -> None:
        super().__init__(5.0)
        self.noted: list[tuple[NodeId, Offence, str, float]] = []
        self.good: dict[NodeId, int] = {}
        self.good_at = 0.0
        self.speeds: dict[NodeId, float] = {}
        self.bounds: dict[NodeId, float] = {}
        self.proven: frozenset[NodeId] = frozenset()

    def standing(self, now: float) -> Standing:
        return replace(super().standing(now), proven=self.proven)

    def note(
        self, peer: NodeId, offence: Offence, evidence: str, now: float, *, share: float = 1.0
    ) -> None:
        super().note(peer, offence, evidence, now, share=share)
        self.noted.append((peer, offence, evidence, share))

    def served(self, peer: NodeId, tokens: int, now: float) -> None:
        self.good[peer] = self.good.get(peer, 0) + tokens
        self.good_at = now

    def observed(self, peer: NodeId, layer_us: float, now: float) -> None:
        self.speeds[peer] = layer_us

    def took_at_most(self, peer: NodeId, layer_us: float, now: float) -> None:
        self.bounds[peer] = layer_us

    def offences(self, peer: NodeId) -> set[Offence]:
        return {offence for one, offence, _, _ in self.noted if one == peer}


class Story:
    """A chain a, evil, c, with b to take over from evil; evil is asked first."""

    def __init__(
        self,
        seed: int = 1,
        evil: range = range(2, 4),
        more: Mapping[str, range] | None = None,
        config: InferenceConfig | None = None,
    ) -> None:
        held = {A: range(2), EVIL: evil, B: range(2, 4), C: range(4, 6)}
        held |= {node_id(name): layers for name, layers in (more or {}).items()}
        engines = {
            peer: random_model(5, n_layers=6, layers=layers) for peer, layers in held.items()
        }
        self.books: list[Book] = []
        config = config or InferenceConfig(prefill_chunk=16)
        self.network = FrameNetwork(seed, engines, config, trust=self._book)
        self.book = self.books[0]
        self.number = 0

    def _book(self) -> Book:
        self.books.append(Book())
        return self.books[-1]

    def ask(self, max_tokens: int = TOKENS, seconds: float = 120.0) -> float:
        """Answer; return the seconds it took."""
        request = GenerationRequest(PROMPT, max_tokens, Sampling(), frozenset())
        began = self.network.now
        self.number = self.network.generate(A, request)
        self.network.run(seconds)
        ends = GenerationFinished | GenerationFailed
        return (
            next(at for at, _, event in reversed(self.network.events) if isinstance(event, ends))
            - began
        )

    @property
    def tokens(self) -> list[int]:
        return self.network.tokens(A, self.number)

    @property
    def generation(self) -> Generation:
        return self.network.cores[A].generations()[-1]

    @property
    def chain(self) -> list[str]:
        return [leg.run.name for leg in self.generation.legs]

    def all_of(self, kind: type | UnionType) -> list[Any]:
        return [event for _, _, event in self.network.events if isinstance(event, kind)]


@cache
def right(max_tokens: int = TOKENS) -> list[int]:
    story = Story()
    story.ask(max_tokens)
    return story.tokens


# What hostile engines do


def silent(work: Work, result: WorkResult) -> tuple[float, WorkResult] | None:
    return None


def failing(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
    return 0.0, WorkFailed("no")


def slow(seconds: float) -> Behaviour:
    return lambda work, result: (seconds, result)


def filled_with(value: float) -> Behaviour:
    def fill(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        if not isinstance(work, Forward) or not isinstance(result, Computed):
            return 0.0, result
        batches = []
        for one in work.batches:
            rows = np.full((one.rows, D_MODEL), value, np.float32)
            batches.append(Batch(one.start, one.rows, (encode_states(rows, Rung.F32),)))
        return 0.0, Computed(tuple(batches), 1)

    return fill


def impossible(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
    if not isinstance(work, Forward):
        return 0.0, result
    wanted = [one for one in work.batches if one.end >= work.sample_from]
    return 0.0, Computed(tuple(token_batch((4_000_000_000,), one.end) for one in wanted), 1)
