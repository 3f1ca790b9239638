"""Answers for faces: text in, tokens and text out as they come, and the facts at the end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import trio

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.sampling.options import MOST_ENDS, Sampling
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
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.terms import out_dtype
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan
from p2pnode.scheduler.route import Objective

READER_PATIENCE = 30.0
"""Seconds in which a reader takes nothing while events wait for it, before its answer is ended:
others want its peers' memory and engines. Longer than a busy terminal hesitates. A guess."""

_QUEUE = 65_536
"""Events that wait for a reader at the most, whatever the clock says: more than half a minute of
any answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a face asks.

    Attributes:
        prompt_ids: The prompt as tokens.
        max_tokens: Most tokens to produce.
        sampling: How to draw them.
        stop: Tokens that end the answer, beside those that the model's file names.
        wait: Seconds to wait for peers that cover the model.
        lost_wait: The same for layers lost in mid-answer; None for the node's setting, or ``wait``
            if that is longer.
        prefer: Hex prefixes or names of peers to use.
        avoid: Hex prefixes or names of peers to spare.
        objective: ``latency`` or ``throughput``.
        ignore_eos: Go on to ``max_tokens`` whatever the model says; for measurements.
        activations: How stages send each other hidden states; None for the node's setting.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop: frozenset[int] = frozenset()
    wait: float = 10.0
    lost_wait: float | None = None
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    objective: Objective = "latency"
    ignore_eos: bool = False
    activations: str | None = None


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

    def take(self, event: GenerationEvent) -> None:
        """Note one event.

        Raises:
            GenerationError: The generation failed.
        """
        match event:
            case GenerationPlanned(plan=plan, activations=activations):
                self.plan, self.uncoded = plan, out_dtype(activations)
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
    """The events of one answer, in order, as they come.

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

    async def follow(self, show: Callable[[GenerationEvent], Awaitable[None]]) -> Answer:
        """Pass every event to ``show`` and return the whole; cancels the peers if cancelled.

        Raises:
            GenerationError: The generation failed, or was cancelled because nobody read its events;
                its peers' memory was freed.
        """
        try:
            async for event in self._receive:
                self._moved_at = trio.current_time()
                self.answer.take(event)
                await show(event)
        except BaseException:
            self._cancel()  # harmless when it has ended by itself
            raise
        finally:
            self._forget()
        if self._is_unread:
            raise GenerationError("the answer was cancelled: its reader stopped reading")
        return self.answer


def request_of(
    question: Question, model: ModelInfo, meant: Callable[[str], NodeId | None]
) -> GenerationRequest:
    """Turn a face's question into the core's request.

    ``meant`` resolves the name of a peer. To prefer or avoid one that nobody knows is no failure:
    the plan says that it changes nothing.

    Raises:
        UserError: A name could mean several peers.
    """
    prefer = {name: meant(name) for name in question.prefer}
    avoid = {name: meant(name) for name in question.avoid}
    stop = frozenset() if question.ignore_eos else question.stop | frozenset(model.eos_ids)
    sampling = question.sampling
    if sampling.schema:
        sampling = replace(sampling, ends=tuple(sorted(stop))[:MOST_ENDS])
    absent = [name for name, peer in (prefer | avoid).items() if peer is None]
    return GenerationRequest(
        prompt=question.prompt_ids,
        max_tokens=min(
            question.max_tokens, max(1, model.context_length - len(question.prompt_ids))
        ),
        sampling=sampling,
        stop=stop,
        wait=question.wait,
        lost_wait=question.lost_wait,
        prefer=frozenset(peer for peer in prefer.values() if peer is not None),
        avoid=frozenset(peer for peer in avoid.values() if peer is not None),
        objective=question.objective,
        activations=question.activations,
        notes=tuple(
            f"nobody here is called {name!r}: --prefer and --avoid of it change nothing"
            for name in absent
        ),
    )
