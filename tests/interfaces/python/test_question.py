"""What a program may ask is what the answering service reads."""

import json
from typing import get_type_hints

import pytest

from p2pnode.interfaces.python.question import (
    ChatOptions,
    PromptOptions,
    QuestionOptions,
    chat_params,
    prompt_params,
)
from p2pnode.node.answering.question import Conversation, PlainText, Question, Tokens
from p2pnode.text.tool_calls.offered import Choice, Tool, ToolChoice

EVERYTHING: QuestionOptions = {
    "max_tokens": 7,
    "stop": ("a", "b"),
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.9,
    "min_p": 0.1,
    "seed": 5,
    "repetition_penalty": 1.1,
    "penalty_last_n": 8,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "logprobs": 2,
    "schema": {"type": "object"},
    "json_mode": False,
    "wait": 3.0,
    "lost_wait": 4.0,
    "prefer": ("kitchen",),
    "avoid": ("cellar",),
    "objective": "throughput",
    "ignore_eos": True,
    "activations": "f16",
    "model": "tiny",
}


def test_every_option_reaches_the_question() -> None:
    assert set(EVERYTHING) == set(get_type_hints(QuestionOptions))
    params = prompt_params("hi", {**EVERYTHING, "raw": True})
    asked = Question.of(json.loads(json.dumps(params)))
    assert asked.said == PlainText("hi")
    assert (asked.max_tokens, asked.stop, asked.wait, asked.lost_wait) == (7, ("a", "b"), 3.0, 4.0)
    assert (asked.prefer, asked.avoid) == (("kitchen",), ("cellar",))
    assert (asked.objective, asked.ignore_eos, asked.activations) == ("throughput", True, "f16")
    assert asked.model == "tiny"
    drawn = asked.sampling
    assert (drawn.temperature, drawn.top_k, drawn.top_p, drawn.min_p) == (0.5, 3, 0.9, 0.1)
    assert (drawn.seed, drawn.logprobs, drawn.penalty_last_n) == (5, 2, 8)
    assert (drawn.repetition_penalty, drawn.presence_penalty) == (1.1, 0.2)
    assert (drawn.frequency_penalty, drawn.schema) == (0.3, '{"type":"object"}')


def test_a_prompt_may_be_tokens() -> None:
    assert Question.of(prompt_params((1, 2), {})).said == Tokens((1, 2))


def test_a_chat_has_messages_and_what_the_template_may_use() -> None:
    message = {"role": "user", "content": "hi"}
    tool = {"type": "function", "function": {"name": "f"}}
    options: ChatOptions = {"tools": (tool,), "tool_choice": "auto", "documents": ["d"]}
    asked = Question.of(chat_params([message], options))
    assert asked.said == Conversation(
        [message], (Tool("f", "", None),), ToolChoice(Choice.AUTO), ["d"]
    )


def test_what_is_none_is_left_out() -> None:
    params = prompt_params("hi", {"seed": None})  # type: ignore[typeddict-item]
    assert params == {"prompt": "hi"}


@pytest.mark.parametrize("name", ["tempo", "details", "prompt", "messages", "tools"])
def test_an_option_that_nobody_reads_is_refused(name: str) -> None:
    options: PromptOptions = {name: 1}  # type: ignore[misc]
    with pytest.raises(TypeError, match=rf"generate\(\) has no option '{name}'; it has"):
        prompt_params("hi", options)


def test_a_chat_has_no_raw() -> None:
    options: ChatOptions = {"raw": True}  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="chat"):
        chat_params([], options)
