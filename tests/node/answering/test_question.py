"""What a face may say of sampling, and what is refused in words."""

from typing import Any

import pytest

from p2pnode.engine.sampling.logprobs import Logprobs
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import UserError
from p2pnode.interfaces.cli.logprob_lines import logprob_lines
from p2pnode.node.answering.logprobs import logprobs_body
from p2pnode.node.answering.question import Conversation, Question
from p2pnode.node.answering.sampling_params import sampling_of
from p2pnode.text.detokenizer import Detokenizer


def test_everything_is_read() -> None:
    params = {
        "temperature": 0.5,
        "top_k": 40,
        "top_p": 0.9,
        "seed": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "penalty_last_n": 32,
        "logprobs": 0,
    }
    assert sampling_of(params) == Sampling(0.5, 40, 0.9, 3, 0.1, 1.1, 1, -1, 32, 0)
    assert sampling_of({}) == Sampling()


@pytest.mark.parametrize(
    "params",
    [
        {"min_p": 2},
        {"min_p": "much"},
        {"min_p": None},
        {"presence_penalty": float("nan")},
        {"repetition_penalty": 0},
        {"penalty_last_n": float("inf")},
        {"penalty_last_n": []},
        {"wait": -1},
        {"wait": float("inf")},
        {"lost_wait": float("nan")},
        {"lost_wait": "long"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(params: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Question.of({"prompt": "hi", **params})


def test_logprobs_are_told_with_spelling_and_bytes() -> None:
    detokenizer = Detokenizer(["a", "\u00c3", "<|end|>"], [1, 1, 3], "gpt2", space_prefix=False)
    told = logprobs_body(1, Logprobs(-1.5, ((0, -0.25), (2, -3.0))), detokenizer)
    assert told == {
        "token": 1,
        "text": "\ufffd",
        "bytes": [0xC3],
        "logprob": -1.5,
        "top": [
            {"token": 0, "text": "a", "bytes": [97], "logprob": -0.25},
            {"token": 2, "text": "<|end|>", "bytes": list(b"<|end|>"), "logprob": -3.0},
        ],
    }
    [line] = logprob_lines([told])
    assert line.split() == ["22.31", "%", "'\ufffd'", "'a'", "77.88", "%", "'<|end|>'", "4.98", "%"]


def test_a_refusal_repeats_little_of_what_was_said() -> None:
    with pytest.raises(UserError, match="cannot be sent as 'xxx") as caught:
        Question.of({"prompt": "hi", "activations": "x" * 100_000})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("asked", [-1, 21, "few", []])
def test_logprobs_out_of_range_are_refused_in_words(asked: object) -> None:
    with pytest.raises(UserError):
        Question.of({"prompt": "hi", "logprobs": asked})


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "I am"}],
        [{"role": "user", "content": "hi"}],
        [{"role": "user", "content": "hi"}, "I am"],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}],
        [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "I", "tool_calls": [1]},
        ],
    ],
    ids=str,
)
def test_only_a_text_of_the_model_s_own_is_gone_on_with(messages: list[Any]) -> None:
    with pytest.raises(UserError, match="answer"):
        Question.of({"messages": messages, "goes_on": True})


def test_the_beginning_of_an_answer_is_known_as_one() -> None:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I am"}]
    begun = Question.of({"messages": said, "goes_on": True}).said
    assert isinstance(begun, Conversation)
    assert begun.goes_on
    over = Question.of({"messages": said}).said
    assert isinstance(over, Conversation)
    assert not over.goes_on
