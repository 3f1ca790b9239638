"""Drawing at the stage that does: tokens, what travels beside them, and the schemas they follow.

Everything a draw depends on is in its work. What is kept here between two draws of a session is
what its schema was walked to: a cache, and whatever is not in it is made anew.
"""

from collections import OrderedDict
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from p2pnode.engine.base import Engine, SessionKey
from p2pnode.engine.sampling.draw import Ids, sample
from p2pnode.engine.sampling.logprobs import logprobs_of
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import DrawError
from p2pnode.inference.activations import Batch, Piece
from p2pnode.inference.logprob_slice import logprob_slice
from p2pnode.inference.mean_slice import mean_slice
from p2pnode.inference.means import Means
from p2pnode.values import value

MOST_WALKS: Final = 16
"""Schemas that are kept walked; each may have some MB. Beyond, the longest unused is forgotten."""


class Walker(Protocol):
    """Where an answer is in its schema: :class:`p2pnode.engine.sampling.schema.Matcher`."""

    def take(self, tokens: tuple[int, ...]) -> None: ...
    def allowed(self, ends: tuple[int, ...]) -> Ids: ...


class Grammars(Protocol):
    """Compiles schemas for one model's vocabulary."""

    def prepare(self, schema: str) -> None:
        """A schema will be wanted soon; returns at once."""

    def matcher(self, schema: str) -> Walker:
        """Return a schema's beginning.

        Raises:
            DrawError: It cannot be followed.
        """


@value
class Drawn:
    """A token, and the slices that travel ``beside`` it."""

    token: int
    beside: Piece = ()


class Draws:
    """Draws tokens; used in one thread."""

    def __init__(self, grammars: Grammars | None = None) -> None:
        self._grammars = grammars
        self._means = Means()
        self._walks: OrderedDict[SessionKey, tuple[str, tuple[int, ...], Walker]] = OrderedDict()

    def prepare(self, sampling: Sampling | None) -> None:
        """A session begins."""
        if sampling is not None and sampling.schema and self._grammars is not None:
            self._grammars.prepare(sampling.schema)

    def close(self, session: SessionKey) -> None:
        self._walks.pop(session, None)
        self._means.close(session)

    def tokens(
        self,
        engine: Engine,
        session: SessionKey,
        sampling: Sampling,
        sample_from: int,
        past: Past | None,
        batches: tuple[Batch, ...],
        hidden: list[NDArray[np.float32]],
        logits: NDArray[np.float32] | None = None,
    ) -> list[Drawn | None]:
        """Draw after each batch that ends at ``sample_from`` or beyond; None for the others.

        ``logits`` [1, vocab] are those after the only batch, where they are known.

        Raises:
            DrawError: It cannot be drawn as asked.
            GenerationError: The engine's output is no use.
        """
        if sampling.mean:
            return self._summed(engine, session, sample_from, batches, hidden)
        drawn: list[Drawn | None] = []
        for batch, rows in zip(batches, hidden, strict=True):
            if batch.end < sample_from:
                drawn.append(None)
                continue
            past = past and past.at(batch.end)
            allowed = self._allowed(session, sampling, past)
            row = (engine.logits(rows[-1:]) if logits is None else logits)[0]  # [vocab]
            token = sample(row, sampling, batch.end, past, allowed)
            past = past and past.then(token)
            count = sampling.logprobs
            told = () if count is None else (logprob_slice(logprobs_of(row, token, count)),)
            drawn.append(Drawn(token, told))
        return drawn

    def _summed(
        self,
        engine: Engine,
        session: SessionKey,
        sample_from: int,
        batches: tuple[Batch, ...],
        hidden: list[NDArray[np.float32]],
    ) -> list[Drawn | None]:
        """Return the mean so far beside a token that says nothing, where one is wanted."""
        means = [
            self._means.take(engine, session, batch.start, rows)
            for batch, rows in zip(batches, hidden, strict=True)
        ]
        return [
            None if batch.end < sample_from else Drawn(0, (mean_slice(mean),))
            for batch, mean in zip(batches, means, strict=True)
        ]

    def _allowed(self, session: SessionKey, sampling: Sampling, past: Past | None) -> Ids | None:
        if not sampling.schema:
            return None
        if self._grammars is None or past is None:
            raise DrawError("schemas cannot be followed here: there is no vocabulary")
        answer = past.answer
        schema, walked, walk = self._walks.pop(session, ("", (), None))
        if walk is None or schema != sampling.schema or answer[: len(walked)] != walked:
            walked, walk = (), self._grammars.matcher(sampling.schema)
        walk.take(answer[len(walked) :])
        allowed = walk.allowed(sampling.ends)
        self._walks[session] = sampling.schema, answer, walk
        if len(self._walks) > MOST_WALKS:
            self._walks.popitem(last=False)
        return allowed
