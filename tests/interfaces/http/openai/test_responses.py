"""OpenAI's responses, by OpenAI's own client: items, events, and what the node is asked."""

import queue
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from p2pnode.errors import BusyError, GenerationError, UserError
from tests.interfaces.http.fake_node import (
    CALLS,
    HELLO,
    NAME,
    FakeNode,
    Hang,
    facts,
    plan,
    token,
)

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Of a city",
    "parameters": {"type": "object", "properties": {}},
}
_TEXT = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
_CALL = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, **more: Any) -> Any:
    return client.responses.create(**{"model": NAME, "input": "hi", **more})


def test_a_whole_response(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    response = create(client, metadata={"a": "b"}, store=True)
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == ("response", "completed", NAME)
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["message"]
    assert response.error is None
    assert response.metadata == {"a": "b"}
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 2, 5)


def test_the_events_of_text(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    told = list(create(client, stream=True))
    assert [event.type for event in told] == [
        "response.created",
        "response.in_progress",
        *_TEXT,
        "response.completed",
    ]
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert [told[0].response.status, told[-1].response.status] == ["in_progress", "completed"]
    assert len({event.item_id for event in told[3:8]} | {told[2].item.id, told[8].item.id}) == 1
    assert (told[6].text, told[7].part.text) == ("Hello", "Hello")
    assert told[2].item.content == []
    assert told[8].item.status == "completed"
    assert told[-1].response.output_text == "Hello"
    assert told[-1].response.id == told[0].response.id


def test_the_events_of_calls(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*CALLS)
    told = list(create(client, stream=True, tools=[TOOL]))
    assert [event.type for event in told[2:-1]] == [*_TEXT, *_CALL, *_CALL]
    assert [event.output_index for event in told[2:-1]] == [0] * 7 + [1] * 4 + [2] * 4
    added, delta, done, over = told[9:13]
    assert (added.item.arguments, added.item.status) == ("", "in_progress")
    assert delta.delta == done.arguments == over.item.arguments == '{"city": "Wien"}'
    assert added.item.id == delta.item_id == done.item_id == over.item.id
    response = told[-1].response
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert response.output[1].call_id == over.item.call_id


def test_the_client_puts_a_stream_together(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*CALLS)
    with client.responses.stream(model=NAME, input="hi", tools=[TOOL]) as stream:  # type: ignore[list-item]
        for _ in stream:
            pass
        response = stream.get_final_response()
    assert response.output_text == "Let me see."
    assert response.output[2].type == "function_call"


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_that_was_cut_is_incomplete(
    client: openai.OpenAI, node: FakeNode, is_stream: bool
) -> None:
    node.says(plan(), token("a"), facts("a", finish="length"))
    response = create(client, stream=is_stream, max_output_tokens=16)
    if is_stream:
        *_, last = response
        assert last.type == "response.incomplete"
        response = last.response
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"
    assert node.question()["max_tokens"] == 16


def test_an_answer_without_words_is_an_empty_text(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(plan(), facts("", 1))
    assert create(client).output[0].content[0].text == ""
    *_, last = create(client, stream=True)
    assert last.response.output[0].content[0].text == ""


def test_an_answer_that_breaks_off_has_failed(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(plan(), token("a"), GenerationError("a peer was lost"))
    *_, last = create(client, stream=True)
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.message == "a peer was lost"


def test_items_reach_the_node_as_messages(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    call = {"type": "function_call", "name": "weather", "arguments": "{}"}
    items: list[Any] = [
        {"role": "developer", "content": "Be kind"},
        {"role": "user", "content": [{"type": "input_text", "text": "Warm?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {**call, "call_id": "call_1"},
        {**call, "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_1", "output": "21"},
        {"type": "function_call_output", "call_id": "call_2", "output": "22"},
    ]
    create(
        client,
        input=items,
        instructions="Be brief",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "text"}},
        reasoning={"effort": "low"},
    )
    asked = node.question()
    said = asked["messages"]
    roles = ["system", "system", "user", "assistant", "tool", "tool"]
    assert [one["role"] for one in said] == roles
    assert [one["id"] for one in said[3]["tool_calls"]] == ["call_1", "call_2"]
    assert [one["tool_call_id"] for one in said[4:]] == ["call_1", "call_2"]
    assert asked["tools"][0]["function"]["name"] == "weather"
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


def test_a_schema_reaches_the_node(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    form = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}
    create(client, text={"format": form})
    assert node.question()["schema"] == {"type": "object"}


def test_logprobs_are_there_where_they_were_asked_for(
    client: openai.OpenAI, node: FakeNode
) -> None:
    told = {"text": "a", "bytes": [97], "logprob": -0.5, "token": 5, "top": []}
    node.says(plan(), token("a", logprobs=told), facts("a", logprobs=[told]))
    response = create(client, include=["message.output_text.logprobs"])
    assert response.output[0].content[0].logprobs[0].logprob == -0.5
    assert node.question()["logprobs"] == 0
    deltas = [one for one in create(client, top_logprobs=2, stream=True) if "delta" in one.type]
    assert deltas[0].logprobs[0].token == "a"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id cannot be had here"),
        ({"conversation": "conv_1"}, "conversation cannot be had here"),
        ({"background": True}, "background cannot be had here"),
        ({"extra_body": {"n": 2}}, "unknown parameter: n"),
        ({"temperature": 3}, "temperature must be between 0 and 2"),
        ({"input": []}, "input must be a list that is not empty"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0] is of the type 'input_image'",
        ),
        ({"input": [{"role": "user", "content": [{"type": {}}]}]}, "is of the type '{}'"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "'item_reference'"),
        ({"tools": [{"type": "web_search"}]}, "tools[0] is of the type 'web_search'"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type must be"),
        ({"metadata": {"a": 1}}, "metadata must be"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice must be"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options goes with stream"),
        ({"truncation": "some"}, "truncation must be"),
    ],
    ids=str,
)
def test_bad_input_is_named(
    client: openai.OpenAI, node: FakeNode, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **more)
    assert words in caught.value.message
    with pytest.raises(queue.Empty):
        node.asked.get_nowait()


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (UserError("odd"), openai.BadRequestError, 400),
        (BusyError("full"), openai.InternalServerError, 503),
    ],
)
def test_what_the_node_refuses_has_its_class(
    client: openai.OpenAI,
    node: FakeNode,
    error: UserError,
    kind: type[openai.APIStatusError],
    status: int,
    is_stream: bool,
) -> None:
    node.says(error)
    with pytest.raises(kind, match=str(error)) as caught:
        create(client, stream=is_stream)
    assert caught.value.status_code == status


def test_a_client_that_leaves_ends_the_response(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(plan(), token("a"), Hang())
    stream = create(client, stream=True)
    next(stream)
    stream.close()
    assert node.gone.get(timeout=5) == "gone"
