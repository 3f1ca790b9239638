"""The answering service: text in, text out.

It runs in the node's process: the words of a token cost microseconds there, and no face needs the
model's file. What takes longer, templates and tokenising, is the text process's.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias

import numpy as np
import trio

from p2pnode.engine.base import Floats, ModelInfo
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.schema import check_schema
from p2pnode.errors import GenerationError
from p2pnode.inference.events import GenerationPlanned, TokenProduced
from p2pnode.node.answering.bodies import details_body, event_body, facts_body
from p2pnode.node.answering.calls import Calls
from p2pnode.node.answering.question import Conversation, PlainText, Question, Tokens
from p2pnode.node.answering.stream import AnswerStream
from p2pnode.node.answering.timings import Timings
from p2pnode.node.answering.turns import Turns
from p2pnode.node.answering.words import Words
from p2pnode.node.text_worker import Prompt, TextWorker
from p2pnode.text.tool_calls.offered import Choice

Body: TypeAlias = dict[str, Any]
"""An event, or the facts, as JSON has it."""


class Model(Protocol):
    """A model that answers, and what turns texts into its tokens."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def texts(self) -> TextWorker: ...


class Start(Protocol):
    """Starts an answer of ``model`` in the core: a question whose words became ``prompt``."""

    def __call__(self, question: Question, prompt: Prompt, model: ModelInfo) -> AnswerStream: ...


class Answering:
    """Answers what faces ask of one node.

    Attributes:
        turns: Who is answered now, and who waits.
        timings: How long answers took.
    """

    def __init__(self, meant: Callable[[str], Model], start: Start) -> None:
        """``meant`` returns the model of a name, the first of none; else it raises a UserError."""
        self._meant = meant
        self._start = start
        self.turns = Turns()
        self.timings = Timings()

    def answer(self, question: Question) -> "TextAnswer":
        """Return the answer to ``question``; it begins when its events are asked for."""
        return TextAnswer(question, self._meant, self._start, self.turns, self.timings)

    async def count(self, question: Question) -> int:
        """Return how many tokens a question has; of one far beyond the context, so many at least.

        Raises:
            UserError: It cannot be rendered, or there is no such model.
        """
        texts = self._meant(question.model).texts
        match question.said:
            case Conversation() as said:
                return await texts.count(_asked(said, question))
            case PlainText(text):
                return await texts.count({"text": text})
            case tokens:
                return len(tokens.ids)

    async def tokens_of(self, text: str, model: str = "") -> tuple[int, ...]:
        """Return a plain text as tokens of the model that is called so.

        Raises:
            UserError: It does not fit the context, or there is no such model.
        """
        return (await self._meant(model).texts.prompt({"text": text})).ids

    async def mean_of(self, ids: tuple[int, ...], wait: float, model: str = "") -> Floats:
        """Return the mean of the hidden states of a prompt: [d_model].

        ``wait`` is how many seconds to wait for peers.

        Raises:
            UserError: No chain of peers can do it, or there is no such model.
        """
        asked = Question(Tokens(ids), 1, Sampling(mean=True), wait=wait, ignore_eos=True)
        info = self._meant(model).info
        async with self.turns.turn():
            with self._start(asked, Prompt(ids, 0, frozenset()), info) as stream:
                async for _ in stream:
                    pass
        if not stream.answer.mean:
            raise GenerationError("the mean was not computed: it was cancelled")
        return np.frombuffer(stream.answer.mean, "<f4").astype(np.float32)  # [d_model]


class TextAnswer:
    """One answer: its events as they come, and its facts when they are over."""

    def __init__(
        self,
        question: Question,
        meant: Callable[[str], Model],
        start: Start,
        turns: Turns,
        timings: Timings,
    ) -> None:
        self._question = question
        self._meant = meant
        self._start = start
        self._turns = turns
        self._timings = timings
        self._facts: Body = {}

    async def events(self) -> AsyncGenerator[Body]:
        """Yield each event as JSON has it; to close this early cancels the answer.

        Raises:
            UserError: What was asked cannot be, or the answer failed.
        """
        asked_at = trio.current_time()
        question = self._question
        model = self._meant(question.model)
        texts = model.texts
        if question.sampling.schema:
            await trio.to_thread.run_sync(check_schema, question.sampling.schema)
        if (ahead := self._turns.ahead) is not None:
            yield {"event": "queued", "ahead": ahead}
        async with self._turns.turn():
            began_at = trio.current_time()
            prompt = await _prompt(question, texts)
            words = await _words(question, prompt, texts)
            sent_at = trio.current_time()
            with self._start(question, prompt, model.info) as stream:
                try:
                    async with aclosing(_said(stream, prompt, words, model.info.name)) as said:
                        async for body in said:
                            yield body
                finally:
                    self._timings.take(stream.answer, sent_at - asked_at)
                    texts.note_answer(prompt, stream.answer.token_ids)
        self._facts = self._told(stream, prompt, words) | {
            "queued_ms": _milliseconds(began_at - asked_at),
            "total_ms": _milliseconds(trio.current_time() - asked_at),
        }

    def facts(self) -> Body:
        """Return what came of it, once the events are over.

        They name among others ``prompt_ids``, ``stop_ids`` (tokens that end the answer),
        ``token_ids``, ``reused`` (positions of the prompt that no stage had to compute), ``text``,
        ``stopped_by`` (the stop string, or None), ``tool_calls``, and ``left_out``: how
        many of the oldest messages left so that the rest fits; and ``logprobs`` of each token,
        where they were asked for. Times are in milliseconds: ``queued_ms`` before its turn,
        ``first_token_ms`` from the prompt's sending to the first token, ``total_ms``.
        """
        return self._facts

    def _told(self, stream: AnswerStream, prompt: Prompt, words: Words) -> Body:
        question, done = self._question, stream.answer
        facts: Body = {
            "prompt_ids": list(prompt.ids),
            "stop_ids": [] if question.ignore_eos else sorted(prompt.stop_ids),
            "text": words.text,
            "tool_calls": words.calls,
            "left_out": prompt.left_out,
            **facts_body(done),
            "finish": "stop" if words.stopped_by else done.finish,
            "stopped_by": words.stopped_by,
        }
        if question.sampling.logprobs is not None:
            facts["logprobs"] = words.logprobs
        return facts | details_body(done) if question.details else facts


async def _said(
    stream: AnswerStream, prompt: Prompt, words: Words, model: str
) -> AsyncGenerator[Body]:
    """Yield the events of an answer under way, to its end or its first stop string."""
    for line in stream.notes:
        yield {"event": "note", "text": line}
    if prompt.left_out:
        yield {"event": "history", "left_out": prompt.left_out}
    async for event in stream:
        body = event_body(event)
        if isinstance(event, GenerationPlanned):
            body |= {"prompt_tokens": len(prompt.ids), "model": model}
        if isinstance(event, TokenProduced):
            body |= words.take(event)
        if body:
            yield body
        if words.stopped_by:
            return
    if rest := words.finish():
        yield {"event": "rest", **rest}


async def _prompt(question: Question, texts: TextWorker) -> Prompt:
    """Return what is asked as tokens, and what ends its answer."""
    match question.said:
        case Conversation() as said:
            return await texts.prompt(_asked(said, question))
        case PlainText(text):
            return await texts.prompt({"text": text})
        case tokens:
            ends = frozenset[int]() if question.ignore_eos else await texts.stop_ids()
            return Prompt(tokens.ids, 0, ends)


def _asked(said: Conversation, question: Question) -> Body:
    """Return a conversation as the text process is asked about it."""
    is_silent = said.choice.choice is Choice.NONE
    return {
        "messages": said.messages,
        "tools": [] if is_silent else [one.as_offered() for one in said.tools],
        "documents": said.documents,
        "goes_on": said.goes_on,
        "max_tokens": question.max_tokens,
    }


async def _words(question: Question, prompt: Prompt, texts: TextWorker) -> Words:
    """Return what spells the answer, and finds the calls of tools in it."""
    said, calls = question.said, None
    detokenizer = await texts.detokenizer()
    if isinstance(said, Conversation) and said.choice.choice is not Choice.NONE:
        calls = Calls(await texts.tool_format(), is_forced=said.choice.choice is Choice.REQUIRED)
    return Words(detokenizer, prompt, question.stop, calls)


def _milliseconds(seconds: float) -> float:
    return round(1e3 * seconds, 3)
