"""One answer of the core, as its events come: in order, bounded, and what they come to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import trio

from p2pnode.errors import GenerationError
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationEvent,
    GenerationFailed,
    GenerationFinished,
    GenerationPlanned,
    TokenProduced,
)
from p2pnode.inference.terms import out_dtype
from p2pnode.scheduler.chain import ChainPlan

READER_PATIENCE = 30.0
"""Seconds in which a reader takes nothing while events wait for it, before its answer is ended:
others want its peers' memory and engines. Longer than a busy terminal hesitates. A guess."""

_QUEUE = 65_536
"""Events that wait for a reader at the most, whatever the clock says: more than half a minute of
any answer."""


@dataclass(slots=True)
class Answer:
    """What came of it; grows with every event.

    Attributes:
        token_ids: The tokens so far, an end-of-text token included.
        plan: The chain as first opened.
        first_token_ms: Milliseconds from sending the prompt to the first token.
        hops_ms: Milliseconds a hop of each decoded token: the round trip less the engines' time,
            over the edges between different nodes.
        steps: Seconds between one decoded token and the next.
        broken: Losses of a stage, in order: epoch, peers, reason.
        repaired: Repairs, in order: epoch, stages, seconds.
        finish: Why it ended.
        kl: Nats a token that the codings of hidden states cost it, by their senders' estimates.
        codings: Mask of the codings that its states were sent as; 0 where nothing was coded.
        mean: Of its prompt's hidden states, float32 [d_model], little-endian, where it was asked.
        reused: Positions of the prompt that no stage had to compute: each held them from an earlier
            answer.
        uncoded: What they were sent as where nothing was coded: ``f32`` or ``f16``.
    """

    token_ids: list[int] = field(default_factory=list)
    plan: ChainPlan | None = None
    first_token_ms: float = 0.0
    hops_ms: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    broken: list[ChainBroken] = field(default_factory=list)
    repaired: list[ChainRepaired] = field(default_factory=list)
    finish: str = ""
    kl: list[float] = field(default_factory=list)
    codings: int = 0
    uncoded: str = "f32"
    mean: bytes = b""
    reused: int = 0

    def take(self, event: GenerationEvent) -> None:
        """Note one event.

        Raises:
            GenerationError: The generation failed.
        """
        match event:
            case GenerationPlanned(plan=plan, activations=activations):
                self.plan, self.uncoded = plan, out_dtype(activations)
                self.reused = event.reused
            case TokenProduced():
                self._take_token(event)
            case ChainBroken():
                self.broken.append(event)
            case ChainRepaired():
                self.repaired.append(event)
            case GenerationFinished(reason=reason):
                self.finish = reason
            case GenerationFailed(reason=reason, hint=hint):
                raise GenerationError(reason, hint=hint)

    def _take_token(self, event: TokenProduced) -> None:
        if self.token_ids:  # the first comes out of the prefill
            self.steps.append(event.round_trip)
            if event.hops:
                self.hops_ms.append(1e3 * (event.round_trip - event.compute) / event.hops)
        else:
            self.first_token_ms = 1e3 * event.round_trip
        self.token_ids.append(event.token)
        self.kl.append(event.kl)
        self.codings |= event.codings
        self.mean = event.mean

    @property
    def changed(self) -> str:
        """Why it is no longer bit-reproducible; empty while it is."""
        return next((event.changed for event in self.repaired if event.changed), "")

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed: the median step's inverse would flatter; this is tokens over time."""
        spent = sum(self.steps)
        return len(self.steps) / spent if spent > 0 else 0.0


class AnswerStream:
    """The events of one answer, in order, as they come; to leave it cancels the answer.

    Attributes:
        notes: What of the question changes nothing, in words, e.g. a peer that nobody knows.
        answer: What came of it so far.
    """

    def __init__(self, cancel: Callable[[], None], forget: Callable[[], object]) -> None:
        self._send, self._receive = trio.open_memory_channel[GenerationEvent](_QUEUE)
        self._moved_at = 0.0  # when the reader last took something, or had nothing to take
        self._cancel = cancel
        self._forget = forget
        self._is_open = True
        self._is_unread = False
        self.notes: tuple[str, ...] = ()
        self.answer = Answer()

    def put(self, event: GenerationEvent, now: float | None = None) -> None:
        """Take an event of the core, at ``now`` of trio's clock; never blocks.

        Where others have waited for :data:`READER_PATIENCE` and their reader took none, or too many
        wait, it has stopped reading: the answer is cancelled.
        """
        if not self._is_open:
            return
        moment = trio.current_time() if now is None else now
        waiting = self._send.statistics().current_buffer_used
        if not waiting:
            self._moved_at = moment
        is_last = isinstance(event, GenerationFinished | GenerationFailed)
        is_late = not is_last and moment - self._moved_at > READER_PATIENCE
        if is_late or waiting >= _QUEUE:
            self._is_unread = True
            self._close()
            self._cancel()
            return
        self._send.send_nowait(event)
        if is_last:
            self._close()

    @property
    def is_unread(self) -> bool:
        """Whether the answer was cancelled because nobody read its events."""
        return self._is_unread

    def _close(self) -> None:
        self._is_open = False
        self._send.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what is still under way; its peers' memory is freed."""
        self._forget()
        self._cancel()  # harmless when it has ended by itself

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationEvent:
        """Return the next event.

        Raises:
            GenerationError: The generation failed, or was cancelled because nobody read its events.
        """
        try:
            event = await self._receive.receive()
        except trio.EndOfChannel:
            if self._is_unread:
                raise GenerationError(
                    "the answer was cancelled: its reader stopped reading"
                ) from None
            raise StopAsyncIteration from None
        self._moved_at = trio.current_time()
        self.answer.take(event)
        return event
