"""Text in, text out: stop strings, turns, and answers that are given up."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.random_model import random_model
from p2pnode.errors import BusyError, UserError
from p2pnode.inference.events import GenerationFinished, TokenProduced
from p2pnode.node.answering.calls import Calls
from p2pnode.node.answering.question import Question
from p2pnode.node.answering.service import Answering
from p2pnode.node.answering.stream import AnswerStream
from p2pnode.node.answering.turns import Turns
from p2pnode.node.answering.words import Words
from p2pnode.node.text_worker import Prompt, TextWorker
from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.tool_calls.formats import ToolFormat

LETTERS = "abcdefgh"
END = len(LETTERS)


class Texts:
    """Answers as the text process does, of a vocabulary of letters."""

    def __init__(self) -> None:
        self.noted: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def note_answer(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        self.noted.append((prompt.ids, tuple(tokens)))

    async def prompt(self, asked: object) -> Prompt:
        await trio.lowlevel.checkpoint()
        return Prompt((1,), 0, frozenset({END}))

    async def detokenizer(self) -> Detokenizer:
        await trio.lowlevel.checkpoint()
        kinds = [1] * len(LETTERS) + [3]
        return Detokenizer([*LETTERS, "<end>"], kinds, "gpt2", space_prefix=False)


class Small:
    """The one model."""

    info = random_model(1, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2).info

    def __init__(self, texts: Texts | None = None) -> None:
        self.texts = cast(TextWorker, texts or Texts())


class Core:
    """Starts answers, whose tokens the tests give."""

    def __init__(self) -> None:
        self.streams: list[AnswerStream] = []
        self.cancelled: list[int] = []

    def start(self, question: Question, prompt: Prompt, model: ModelInfo) -> AnswerStream:
        number = len(self.streams)
        stream = AnswerStream(lambda: self.cancelled.append(number), lambda: None)
        self.streams.append(stream)
        return stream

    def say(self, number: int, text: str, *, over: bool = True) -> None:
        tokens = [LETTERS.index(letter) for letter in text]
        for position, token in enumerate([*tokens, *([END] if over else [])]):
            event = TokenProduced(number, token, position, 0.1, 0.05, 1, 0.0, 0, None)
            self.streams[number].put(event)
        if over:
            self.streams[number].put(GenerationFinished(number, "eos"))


def answering(core: Core, texts: Texts | None = None) -> Answering:
    return Answering(lambda name: Small(texts), core.start)


async def events_of(served: Answering, **asked: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    answer = served.answer(Question.of({"prompt": "hi", **asked}))
    async with aclosing(answer.events()) as events:
        told = [event async for event in events]
    return told, answer.facts()


def shown(events: Sequence[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["event"] in ("token", "rest"))


@pytest.mark.parametrize(
    ("stop", "text", "by"),
    [
        ([], "abcdefgh", None),
        (["de"], "abc", "de"),
        ("de", "abc", "de"),
        (["hx"], "abcdefgh", None),  # held back, and shown at the end
        (["fgh", "cd"], "ab", "cd"),
    ],
)
async def test_an_answer_ends_before_its_first_stop_string(
    stop: object, text: str, by: str | None
) -> None:
    core = Core()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            events, facts = await events_of(answering(core), stop=stop)
            assert shown(events) == text == facts["text"]
            assert facts["stopped_by"] == by
            assert facts["finish"] == ("stop" if by else "eos")

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        core.say(0, LETTERS, over=not by)
    assert core.cancelled == [0]


async def test_an_answer_is_remembered_with_its_tokens() -> None:
    core, texts = Core(), Texts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events_of, answering(core, texts))
        await wait_all_tasks_blocked()
        core.say(0, "ba")
    assert texts.noted == [((1,), (1, 0, END))]


@pytest.mark.parametrize("stop", [[""], 7, [1], ["x"] * 2 + [str(n) for n in range(16)]], ids=str)
def test_impossible_stop_strings_are_refused(stop: object) -> None:
    with pytest.raises(UserError):
        Question.of({"prompt": "hi", "stop": stop})


async def test_an_answer_that_is_given_up_is_cancelled_and_its_turn_is_free() -> None:
    core = Core()
    served = answering(core)
    with trio.move_on_after(60) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(events_of, served)
            await wait_all_tasks_blocked()
            core.say(0, "ab", over=False)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert core.cancelled == [0]
    assert served.turns.ahead is None


async def test_questions_are_answered_in_the_order_they_came() -> None:
    core = Core()
    served = answering(core)
    served.turns = Turns(at_once=1, most_waiting=2)
    told: dict[int, list[Any]] = {}

    async def ask(number: int) -> None:
        events, _ = await events_of(served)
        told[number] = events

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
        with pytest.raises(BusyError):
            await events_of(served)
        assert len(core.streams) == 1
        for number, text in enumerate(("a", "b", "c")):
            core.say(number, text)
            await wait_all_tasks_blocked()
            assert list(told) == list(range(number + 1))
    assert [shown(told[number]) for number in range(3)] == ["a", "b", "c"]
    assert [told[number][0] for number in (1, 2)] == [
        {"event": "queued", "ahead": 0},
        {"event": "queued", "ahead": 1},
    ]
    assert served.turns.counters["questions refused: too many wait"] == 1
    assert served.turns.counters["questions that waited for their turn"] == 2


async def test_who_gives_up_while_it_waits_gives_its_place_back() -> None:
    core = Core()
    served = answering(core)
    served.turns = Turns(at_once=1, most_waiting=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events_of, served)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as second:
                second.start_soon(events_of, served)
                await wait_all_tasks_blocked()
                assert served.turns.ahead == 1
                waiting.cancel()
        waits = served.turns.ahead
        assert waits == 0
        nursery.start_soon(events_of, served)
        await wait_all_tasks_blocked()
        for number in range(2):
            core.say(number, "a")
            await wait_all_tasks_blocked()
    assert len(core.streams) == 2
    assert served.turns.ahead is None


CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def words_of(text: str, calls: Calls | None, stop: Sequence[str] = ()) -> Words:
    """Return the words of an answer whose tokens are its letters, the marks control tokens."""
    tokens = ["<tool_call>", "</tool_call>", *sorted(set(text) | {" "})]
    detokenizer = Detokenizer(tokens, [3, 3] + [1] * len(tokens[2:]), "llama", space_prefix=False)
    words = Words(detokenizer, Prompt((), 0, frozenset()), stop, calls)
    position = 0
    while text:
        spelled = next(token for token in tokens if text.startswith(token))
        event = TokenProduced(1, tokens.index(spelled), position, 0.1, 0.05, 1, 0.0, 0, None)
        words.take(event)
        text, position = text.removeprefix(spelled), position + 1
    words.finish()
    return words


def test_calls_of_tools_are_told_apart_though_control_tokens_mark_them() -> None:
    words = words_of(f"so {CALL}", Calls(ToolFormat.HERMES, is_forced=False))
    assert words.text.strip() == "so"
    assert words.calls == [{"index": 0, "name": "f", "arguments": '{"x":1}'}]


def test_without_tools_a_call_is_what_its_letters_are() -> None:
    words = words_of(CALL, None)
    assert words.text == CALL.removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert words.calls == []


def test_a_stop_string_within_a_call_ends_nothing() -> None:
    words = words_of(f"{CALL}{CALL}", Calls(ToolFormat.HERMES, is_forced=False), ['"x"'])
    assert (len(words.calls), words.stopped_by) == (2, None)


@pytest.mark.parametrize(
    ("said", "stop", "text", "calls", "stopped_by"),
    [
        (f"ab{CALL}cd", ["abcd"], "abcd", 1, None),  # never said in one piece
        (f"ab{CALL}cd", ["abc", "d"], "abc", 1, "d"),
        (f"ab{CALL}cd", ["abx", "b"], "a", 0, "b"),  # whole before the call
        (f"xy{CALL}ab", ["y{", "ab"], "xy", 1, "ab"),
    ],
)
def test_a_stop_string_does_not_reach_across_a_call(
    said: str, stop: list[str], text: str, calls: int, stopped_by: str | None
) -> None:
    words = words_of(said, Calls(ToolFormat.HERMES, is_forced=False), stop)
    assert (words.text, len(words.calls), words.stopped_by) == (text, calls, stopped_by)


@pytest.mark.parametrize(
    ("said", "text", "calls"),
    [('{"name": "f", "arguments": {}}', "", 1), ('{"name": "f", "argu', '{"name": "f", "argu', 0)],
)
def test_a_forced_call_is_the_whole_answer_or_it_is_none(said: str, text: str, calls: int) -> None:
    words = words_of(said, Calls(None, is_forced=True))
    assert (words.text, len(words.calls)) == (text, calls)


def test_a_forced_call_holds_the_answer_to_a_schema() -> None:
    asked = Question.of({"prompt": "hi", "tools": TOOLS, "tool_choice": "required"})
    assert '"f"' in asked.sampling.schema
    assert not Question.of({"prompt": "hi", "tools": TOOLS}).sampling.schema
    with pytest.raises(UserError, match="both"):
        Question.of({"prompt": "hi", "tools": TOOLS, "tool_choice": "required", "json_mode": True})
