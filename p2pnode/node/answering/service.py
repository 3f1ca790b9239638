"""The answering service: text in, text out.

It runs in the node's process: the words of a token cost microseconds there, and no face needs the
model's file. What takes longer, templates and tokenising, is the text process's.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeAlias

import trio

from p2pnode.engine.sampling.schema import check_schema
from p2pnode.inference.events import GenerationPlanned, TokenProduced
from p2pnode.node.answering.bodies import details_body, event_body, facts_body
from p2pnode.node.answering.logprobs import logprobs_body
from p2pnode.node.answering.question import Conversation, PlainText, Question
from p2pnode.node.answering.stream import AnswerStream
from p2pnode.node.text_worker import Prompt, TextWorker
from p2pnode.text.detokenizer import Detokenizer, IncrementalDecoder

Body: TypeAlias = dict[str, Any]
"""An event, or the facts, as JSON has it."""


class Start(Protocol):
    """Starts an answer in the core: a question whose words became ``prompt``."""

    def __call__(self, question: Question, prompt: Prompt) -> AnswerStream: ...


class Answering:
    """Answers what faces ask of one node."""

    def __init__(self, texts: Callable[[], TextWorker], start: Start) -> None:
        """``texts`` raises a UserError where the node has no model."""
        self._texts = texts
        self._start = start

    def answer(self, question: Question) -> "TextAnswer":
        """Return the answer to ``question``; it begins when its events are asked for."""
        return TextAnswer(question, self._texts, self._start)


class TextAnswer:
    """One answer: its events as they come, and its facts when they are over."""

    def __init__(self, question: Question, texts: Callable[[], TextWorker], start: Start) -> None:
        self._question = question
        self._texts = texts
        self._start = start
        self._facts: Body = {}

    async def events(self) -> AsyncGenerator[Body]:
        """Yield each event as JSON has it; to close this early cancels the answer.

        Raises:
            UserError: What was asked cannot be, or the answer failed.
        """
        question, texts = self._question, self._texts()
        if question.sampling.schema:
            await trio.to_thread.run_sync(check_schema, question.sampling.schema)
        prompt = await _prompt(question, texts)
        words = _Words(prompt, await texts.detokenizer())
        with self._start(question, prompt) as stream:
            for line in stream.notes:
                yield {"event": "note", "text": line}
            if prompt.left_out:
                yield {"event": "history", "left_out": prompt.left_out}
            async for event in stream:
                body = event_body(event)
                if isinstance(event, GenerationPlanned):
                    body["prompt_tokens"] = len(prompt.ids)
                if isinstance(event, TokenProduced):
                    body |= words.take(event)
                if body:
                    yield body
            self._facts = self._told(stream, prompt, words)

    def facts(self) -> Body:
        """Return what came of it, once the events are over.

        They name among others ``prompt_ids``, ``stop_ids`` (tokens that end the answer),
        ``token_ids``, ``text``, and ``left_out``: how many of the oldest messages left so that the
        rest fits; and ``logprobs`` of each token, where they were asked for.
        """
        return self._facts

    def _told(self, stream: AnswerStream, prompt: Prompt, words: "_Words") -> Body:
        question, done = self._question, stream.answer
        facts: Body = {
            "prompt_ids": list(prompt.ids),
            "stop_ids": [] if question.ignore_eos else sorted(prompt.stop_ids),
            "text": "".join(words.text),
            "left_out": prompt.left_out,
            **facts_body(done),
        }
        if question.sampling.logprobs is not None:
            facts["logprobs"] = words.logprobs
        return facts | details_body(done) if question.details else facts


class _Words:
    """The words of an answer, as its tokens come."""

    def __init__(self, prompt: Prompt, detokenizer: Detokenizer) -> None:
        self._ends = prompt.stop_ids
        self._detokenizer = detokenizer
        self._decoder: IncrementalDecoder = detokenizer.decoder(
            after=next(reversed(prompt.ids), None)
        )
        self.text: list[str] = []
        self.logprobs: list[object] = []

    def take(self, event: TokenProduced) -> Body:
        """Return what a token says: its words, and how likely it was if that is known."""
        # The token that ends an answer is none of its words, even where it has a spelling.
        words = "" if event.token in self._ends else self._decoder.push(event.token)
        self.text.append(words)
        if event.logprobs is None:
            return {"text": words}
        told = logprobs_body(event.token, event.logprobs, self._detokenizer)
        self.logprobs.append(told)
        return {"text": words, "logprobs": told}


async def _prompt(question: Question, texts: TextWorker) -> Prompt:
    """Return what is asked as tokens, and what ends its answer."""
    match question.said:
        case Conversation(messages, tools, documents):
            more = {"tools": tools, "documents": documents, "max_tokens": question.max_tokens}
            return await texts.prompt({"messages": messages, **more})
        case PlainText(text):
            return await texts.prompt({"text": text})
        case tokens:
            ends = frozenset[int]() if question.ignore_eos else await texts.stop_ids()
            return Prompt(tokens.ids, 0, ends)
