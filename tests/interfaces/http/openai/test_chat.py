"""OpenAI's chat completions, by OpenAI's own client: what it reads, and what the node is asked."""

import queue
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from p2pnode.errors import BusyError, GenerationError, LengthError, ModelError, UserError
from tests.interfaces.http.fake_node import (
    CALLS,
    HELLO,
    NAME,
    FakeNode,
    Hang,
    plan,
    token,
)

SAID: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": NAME, "messages": SAID, **more})


def test_a_whole_completion(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    completion = create(client)
    assert completion.id.startswith("chatcmpl-")
    assert (completion.object, completion.model) == ("chat.completion", NAME)
    assert completion.system_fingerprint == "fp_1234abcd"
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello")
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 2, 5)


def test_a_stream_is_chunks_and_ends_with_usage_where_that_is_asked(
    client: openai.OpenAI, node: FakeNode
) -> None:
    node.says(*HELLO)
    plain = list(create(client, stream=True))
    assert [chunk.choices[0].delta.content for chunk in plain] == ["", "He", "llo", None]
    assert plain[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in plain] == [None, None, None, "stop"]
    assert all(chunk.usage is None for chunk in plain)
    assert len({chunk.id for chunk in plain}) == 1
    told = list(create(client, stream=True, stream_options={"include_usage": True}))
    assert (told[-1].choices, told[-1].usage.total_tokens) == ([], 5)


@pytest.mark.parametrize("is_stream", [False, True])
def test_calls_of_tools(client: openai.OpenAI, node: FakeNode, is_stream: bool) -> None:
    node.says(*CALLS)
    if is_stream:
        with client.chat.completions.stream(model=NAME, messages=SAID, tools=[TOOL]) as stream:  # type: ignore[list-item]
            completion: Any = stream.get_final_completion()
    else:
        completion = create(client, tools=[TOOL])
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    last: Any = CALLS[-1]
    said = last["tool_calls"]
    assert [call.function.name for call in calls] == [call["name"] for call in said]
    assert [call.function.arguments for call in calls] == [call["arguments"] for call in said]
    assert len({call.id for call in calls}) == len(calls)


def test_several_answers_have_seeds_of_their_own(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    completion = create(client, n=3, seed=7)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {node.question()["seed"] for _ in range(3)} == {7, 8, 9}
    assert completion.usage.completion_tokens == 6
    chunks = list(create(client, n=2, stream=True))
    ends = [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason]
    assert sorted(ends) == [0, 1]


def test_what_is_asked_reaches_the_node(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    messages: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    create(
        client,
        messages=messages,
        temperature=0.5,
        top_p=0.9,
        seed=-1,
        stop=["x", ""],
        max_completion_tokens=9,
        presence_penalty=0.5,
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}},
        extra_body={"top_k": -1, "min_p": 0.1, "prefer": "kitchen"},
    )
    asked = node.question()
    assert asked["messages"][0] == {"role": "system", "content": "be brief"}
    assert asked["messages"][1]["content"] == messages[1]["content"]
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (0.5, 0.9, 0)
    assert (asked["seed"], asked["stop"], asked["max_tokens"]) == (2**64 - 1, ["x"], 9)
    assert (asked["logprobs"], asked["schema"], asked["prefer"]) == (2, {"a": 1}, ["kitchen"])


def test_defaults_are_openai_s(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    create(client)
    create(client)
    first, second = node.question(), node.question()
    assert (first["temperature"], first["top_p"]) == (1.0, 1.0)
    assert first["seed"] != second["seed"]


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"messages": []}, "messages", "messages must be a list that is not empty"),
        ({"tools": 5}, "tools", "tools must be a list, not 5"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role", "must be one of"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "has no content"),
        ({"messages": ["hi"]}, "messages[0]", "is not an object"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
            "is of the type 'image_url'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]},
            "messages[0].content[0]",
            "is of the type \"['text']\"",
        ),
        ({"temperature": 3}, "temperature", "between 0 and 2, not 3"),
        ({"extra_body": {"top_k": 2**31}}, "top_k", "between -1 and 2147483647"),
        ({"temperature": True}, "temperature", "must be a number"),
        ({"n": 0}, "n", "between 1 and 16"),
        ({"max_tokens": "many"}, "max_tokens", "whole number"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "between 0 and 20"),
        ({"stop": [1]}, "stop", "list of strings"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "has no schema"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "cannot be had here"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"extra_body": {"tempo": 1}}, "tempo", "unknown parameter: tempo"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "goes with stream"),
    ],
    ids=str,
)
def test_bad_input_is_named(
    client: openai.OpenAI, node: FakeNode, more: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **more)
    assert words in caught.value.message
    assert caught.value.param == param
    with pytest.raises(queue.Empty):
        node.asked.get_nowait()


def test_a_model_that_is_not_here_is_told_with_those_that_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=NAME) as caught:
        create(client, model="gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (UserError("odd"), openai.BadRequestError, "invalid_request"),
        (LengthError("long"), openai.BadRequestError, "context_length_exceeded"),
        (ModelError("no template"), openai.BadRequestError, "model_unusable"),
        (BusyError("full"), openai.InternalServerError, "overloaded"),
        (GenerationError("gone"), openai.InternalServerError, "swarm_unavailable"),
    ],
)
def test_what_the_node_refuses_has_its_class(
    client: openai.OpenAI,
    node: FakeNode,
    error: UserError,
    kind: type[openai.APIStatusError],
    code: str,
    is_stream: bool,
) -> None:
    node.says(error)
    with pytest.raises(kind, match=str(error)) as caught:
        create(client, stream=is_stream)
    assert caught.value.code == code


def test_an_answer_that_breaks_off_says_why_in_its_stream(
    client: openai.OpenAI, node: FakeNode
) -> None:
    node.says(plan(), token("a"), GenerationError("every peer left"))
    with pytest.raises(openai.APIError, match="every peer left"):
        list(create(client, stream=True))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_ends_its_answers(
    client: openai.OpenAI, node: FakeNode, is_stream: bool
) -> None:
    node.says(plan(), token("a"), Hang())
    if is_stream:
        stream = create(client, stream=True, n=2)
        next(stream)
        assert [node.question()["seed"] is not None for _ in range(2)] == [True, True]
        stream.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            create(client, n=2, timeout=0.5)
    assert [node.gone.get(timeout=5) for _ in range(2)] == ["gone", "gone"]
