"""Anthropic's messages, by Anthropic's own client: events, errors, and what the node is asked."""

import json
import queue
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from p2pnode.errors import BusyError, GenerationError, LengthError, UserError
from tests.interfaces.http.fake_node import (
    CALLS,
    HELLO,
    NAME,
    FakeNode,
    Hang,
    Step,
    facts,
    plan,
    rest,
    token,
)

SAID: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        yield client


def create(client: anthropic.Anthropic, **more: Any) -> Any:
    return client.messages.create(**{"model": NAME, "max_tokens": 50, "messages": SAID, **more})


def events(url: str, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream as they stand on the wire."""
    body = {"model": NAME, "max_tokens": 50, "messages": SAID, "stream": True, **more}
    text = httpx.post(f"{url}/v1/messages", json=body, headers=VERSION, timeout=10).text
    found = []
    for block in text.strip().split("\n\n"):
        head, data = block.split("\n")
        found.append((head.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        assert found[-1][0] == found[-1][1]["type"]
    return found


def test_a_whole_answer(client: anthropic.Anthropic, node: FakeNode) -> None:
    node.says(*HELLO)
    message = create(client)
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", NAME)
    assert [(block.type, block.text) for block in message.content] == [("text", "Hello")]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)


def test_the_events_of_text_are_those_of_the_original(url: str, node: FakeNode) -> None:
    node.says(*HELLO)
    (_, begun), *between, (_, end), (last, _) = events(url)
    assert begun["message"]["content"] == []
    assert begun["message"]["stop_reason"] is None
    assert begun["message"]["usage"]["input_tokens"] == 3
    assert [data for _, data in between] == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "He"},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "content_block_stop", "index": 0},
    ]
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert end["usage"]["output_tokens"] == 2
    assert last == "message_stop"


def test_the_events_of_calls_are_those_of_the_original(url: str, node: FakeNode) -> None:
    node.says(*CALLS)
    told = events(url, tools=[TOOL])
    assert [name for name, _ in told] == [
        "message_start",
        *("content_block_start", "ping", "content_block_delta", "content_block_delta"),
        "content_block_stop",
        *("content_block_start", "content_block_delta", "content_block_stop") * 2,
        "message_delta",
        "message_stop",
    ]
    assert [data["index"] for _, data in told if "index" in data] == [0] * 4 + [1] * 3 + [2] * 3
    block = told[6][1]["content_block"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "weather", {})
    assert told[7][1]["delta"] == {"type": "input_json_delta", "partial_json": '{"city": "Wien"}'}
    assert told[-2][1]["delta"]["stop_reason"] == "tool_use"


def test_the_client_puts_a_stream_together(client: anthropic.Anthropic, node: FakeNode) -> None:
    node.says({"event": "queued", "ahead": 2}, *CALLS)
    with client.messages.stream(
        model=NAME,
        max_tokens=50,
        messages=SAID,
        tools=[TOOL],  # type: ignore[list-item]
    ) as stream:
        assert "".join(stream.text_stream) == "Let me see."
        message = stream.get_final_message()
    text, weather, time = message.content
    assert text.type == "text"
    assert weather.type == time.type == "tool_use"
    assert (weather.name, weather.input, time.input) == ("weather", {"city": "Wien"}, {})
    assert weather.id != time.id


def test_calls_of_a_whole_answer_have_objects(client: anthropic.Anthropic, node: FakeNode) -> None:
    node.says(*CALLS)
    message = create(client, tools=[TOOL], tool_choice={"type": "any"})
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert message.content[1].input == {"city": "Wien"}
    assert message.stop_reason == "tool_use"
    asked = node.question()
    assert asked["tool_choice"] == "required"
    assert asked["tools"][0]["function"]["parameters"] == TOOL["input_schema"]


@pytest.mark.parametrize(
    ("more", "reason", "sequence"),
    [
        ({"finish": "length"}, "max_tokens", None),
        ({"finish": "stop", "stopped_by": "END"}, "stop_sequence", "END"),
    ],
)
def test_why_an_answer_ended(
    client: anthropic.Anthropic, node: FakeNode, more: Any, reason: str, sequence: str | None
) -> None:
    node.says(plan(), token("a"), facts("a", **more))
    message = create(client, stop_sequences=["END"])
    assert (message.stop_reason, message.stop_sequence) == (reason, sequence)
    assert node.question()["stop"] == ["END"]


def test_an_answer_without_words_has_no_block(url: str, node: FakeNode) -> None:
    node.says(plan(), facts("", 1))
    assert [name for name, _ in events(url)] == ["message_start", "message_delta", "message_stop"]


def test_a_conversation_reaches_the_node_as_templates_read_it(
    client: anthropic.Anthropic, node: FakeNode
) -> None:
    node.says(*HELLO)
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Wien"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": False}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Is it"}]},
        {"role": "user", "content": "warm?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": ""}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use]},
        {
            "role": "user",
            "content": [
                {**result, "content": [{"type": "text", "text": "21 degrees"}]},
                {"type": "text", "text": "So?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    create(client, messages=messages, system=[{"type": "text", "text": "Be brief"}])
    asked = node.question()
    function = {"name": "weather", "arguments": '{"city": "Wien"}'}
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Is it\nwarm?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "21 degrees"},
        {"role": "user", "content": "So?"},
    ]
    assert asked["goes_on"] is False
    assert (asked["temperature"], asked["max_tokens"]) == (1.0, 50)


def test_an_answer_goes_on_from_its_beginning(client: anthropic.Anthropic, node: FakeNode) -> None:
    node.says(*HELLO)
    create(client, messages=[*SAID, {"role": "assistant", "content": "The best is ("}])
    assert node.question()["goes_on"] is True


def test_tokens_are_counted_without_an_answer(client: anthropic.Anthropic, node: FakeNode) -> None:
    told = client.messages.count_tokens(model=NAME, messages=SAID, system="Be brief")
    assert told.input_tokens == 7
    assert node.question()["messages"][0] == {"role": "system", "content": "Be brief"}


def test_models_are_listed_in_this_api_s_form(client: anthropic.Anthropic) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.type, model.display_name) == (NAME, "model", "Tiny")
    assert model.created_at.year == 2023
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(anthropic.NotFoundError, match="there is: tiny"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"extra_body": {"n": 2}}, "n: Extra inputs are not permitted"),
        ({"extra_body": {"temperature": 1.5}}, "temperature must be between 0 and 1"),
        ({"max_tokens": 0}, "max_tokens must be between 1"),
        ({"messages": []}, "messages must be a list that is not empty"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages.0.content.0 is of the type 'image'",
        ),
        ({"messages": [*SAID, {"role": "assistant", "content": "I "}]}, "trailing whitespace"),
        ({"tools": [{"name": "a"}]}, "tools.0.input_schema: Field required"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "web_search_20250305"),
        ({"tool_choice": {"type": "most"}}, "tool_choice must be"),
        ({"extra_body": {"mcp_servers": [{"url": "x"}]}}, "mcp_servers cannot be had here"),
        ({"stop_sequences": [1]}, "stop_sequences"),
    ],
    ids=str,
)
def test_bad_input_is_named(
    client: anthropic.Anthropic, node: FakeNode, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        create(client, **more)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert words in body["error"]["message"]
    with pytest.raises(queue.Empty):
        node.asked.get_nowait()


def test_max_tokens_is_needed(url: str, node: FakeNode) -> None:
    body = {"model": NAME, "messages": SAID}
    answer = httpx.post(f"{url}/v1/messages", json=body, headers=VERSION)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "max_tokens: Field required"


def test_the_version_is_needed(url: str, node: FakeNode) -> None:
    body = {"model": NAME, "messages": SAID, "max_tokens": 5}
    answer = httpx.post(f"{url}/v1/messages", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "anthropic-version: header is required"


def test_parameters_of_trials_are_taken_from_those_who_take_part(
    client: anthropic.Anthropic, node: FakeNode
) -> None:
    node.says(*HELLO)
    more: dict[str, Any] = {"extra_body": {"context_management": {"edits": []}}}
    create(client, extra_headers={"anthropic-beta": "context-management-2025-06-27"}, **more)
    with pytest.raises(anthropic.BadRequestError, match="Extra inputs are not permitted"):
        create(client, **more)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "status", "type_"),
    [
        (UserError("odd"), anthropic.BadRequestError, 400, "invalid_request_error"),
        (LengthError("long"), anthropic.BadRequestError, 400, "invalid_request_error"),
        (BusyError("full"), anthropic.InternalServerError, 529, "overloaded_error"),
        (GenerationError("nobody"), anthropic.InternalServerError, 503, "api_error"),
    ],
    ids=str,
)
def test_what_the_node_refuses_has_its_class(
    client: anthropic.Anthropic,
    node: FakeNode,
    error: UserError,
    kind: type[anthropic.APIStatusError],
    status: int,
    type_: str,
    is_stream: bool,
) -> None:
    node.says(error)
    with pytest.raises(kind) as caught:
        create(client, stream=is_stream)
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert body["error"] == {"type": type_, "message": str(error)}


def test_an_answer_that_breaks_off_ends_with_an_error(
    client: anthropic.Anthropic, node: FakeNode
) -> None:
    node.says(plan(), token("He"), GenerationError("a peer was lost"))
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="a peer was lost"):
        seen.extend(event.type for event in create(client, stream=True))
    assert seen[-1] == "content_block_delta"


def test_a_model_that_is_not_here(client: anthropic.Anthropic, node: FakeNode) -> None:
    with pytest.raises(anthropic.NotFoundError, match="there is: tiny"):
        create(client, model="claude")


@pytest.mark.parametrize("steps", [(plan(), token("a"), Hang())])
def test_a_client_that_leaves_ends_the_answer(
    client: anthropic.Anthropic, node: FakeNode, steps: tuple[Step, ...]
) -> None:
    node.says(*steps)
    stream = create(client, stream=True)
    while next(stream).type != "content_block_delta":
        pass
    stream.close()
    assert node.gone.get(timeout=5) == "gone"


def test_what_was_held_back_is_said_in_the_end(url: str, node: FakeNode) -> None:
    node.says(plan(), token("a"), rest("<tool"), facts("a<tool"))
    deltas = [data["delta"] for name, data in events(url) if name == "content_block_delta"]
    assert [delta["text"] for delta in deltas] == ["a", "<tool"]
