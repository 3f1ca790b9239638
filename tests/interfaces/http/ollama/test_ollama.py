"""Ollama's API, by Ollama's own client: pieces, times, models, and what the node is asked."""

import json
import queue
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

from p2pnode.errors import BusyError, GenerationError, UserError
from tests.interfaces.http.fake_node import (
    CALLS,
    HELLO,
    NAME,
    PROMPT,
    FakeNode,
    Hang,
    facts,
    plan,
    token,
)

SAID: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[ollama.Client]:
    with ollama.Client(host=url) as client:
        yield client


def lines(url: str, path: str, **body: Any) -> list[dict[str, Any]]:
    answer = httpx.post(f"{url}{path}", json={"model": NAME, **body}, timeout=10)
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_chat_comes_in_lines(url: str, node: FakeNode) -> None:
    node.says(*HELLO)
    *pieces, last = lines(url, "/api/chat", messages=SAID)
    assert [one["message"] for one in pieces] == [
        {"role": "assistant", "content": "He"},
        {"role": "assistant", "content": "llo"},
    ]
    assert not any(one["done"] for one in pieces)
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"], last["model"]) == (True, "stop", NAME)
    assert (last["prompt_eval_count"], last["eval_count"]) == (len(PROMPT), 2)
    assert last["total_duration"] == 51_000_000
    assert last["load_duration"] == 1_000_000
    assert last["prompt_eval_duration"] == 20_000_000
    assert last["eval_duration"] == 30_000_000


def test_a_prompt_comes_in_lines(url: str, node: FakeNode) -> None:
    node.says(plan(), token("a"), facts("a", finish="length"))
    piece, last = lines(url, "/api/generate", prompt="hi", system="Be brief")
    assert (piece["response"], piece["done"]) == ("a", False)
    assert (last["response"], last["done_reason"]) == ("", "length")
    said = node.question()["messages"]
    assert [one["role"] for one in said] == ["system", "user"]


def test_the_client_has_whole_answers(client: ollama.Client, node: FakeNode) -> None:
    node.says(*CALLS)
    answer = client.chat(NAME, SAID, tools=[TOOL])
    assert answer.message.content == "Let me see."
    assert answer.message.tool_calls is not None
    assert [(one.function.name, one.function.arguments) for one in answer.message.tool_calls] == [
        ("weather", {"city": "Wien"}),
        ("time", {}),
    ]
    assert answer.done_reason == "stop"
    node.says(*HELLO)
    assert client.generate(NAME, "hi").response == "Hello"


def test_calls_in_a_stream_are_pieces(client: ollama.Client, node: FakeNode) -> None:
    node.says(*CALLS)
    pieces = list(client.chat(NAME, SAID, tools=[TOOL], stream=True))
    assert "".join(one.message.content or "" for one in pieces) == "Let me see."
    calls = [call for one in pieces for call in one.message.tool_calls or ()]
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert [one.done for one in pieces] == [False] * (len(pieces) - 1) + [True]


def test_defaults_are_those_of_the_original(client: ollama.Client, node: FakeNode) -> None:
    node.says(*HELLO)
    client.chat(NAME, SAID)
    asked = node.question()
    usual = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0}
    usual |= {"repetition_penalty": 1.1, "penalty_last_n": 64, "max_tokens": 4096}
    assert {name: asked[name] for name in usual} == usual
    client.chat(NAME, SAID)
    assert node.question()["seed"] != asked["seed"]


def test_options_reach_the_node(client: ollama.Client, node: FakeNode) -> None:
    node.says(*HELLO)
    options = {"temperature": 0, "seed": 7, "num_predict": 9, "stop": ["END"], "num_ctx": 8192}
    options |= {"repeat_last_n": 0, "frequency_penalty": 1.0, "mirostat": 2}
    client.chat(f"{NAME}:latest", SAID, options=options, keep_alive="5m")
    asked = node.question()
    assert (asked["temperature"], asked["seed"], asked["max_tokens"]) == (0.0, 7, 9)
    assert asked["stop"] == ["END"]
    assert asked["repetition_penalty"] == 1.0  # nothing is looked back on
    assert asked["frequency_penalty"] == 0.0
    client.chat(NAME, SAID, options={"num_predict": -2, "repeat_last_n": -1, "repeat_penalty": 1})
    asked = node.question()
    assert (asked["max_tokens"], asked["penalty_last_n"]) == (256, 4096)


def test_forms_of_answers(client: ollama.Client, node: FakeNode) -> None:
    node.says(*HELLO)
    client.chat(NAME, SAID, format="json")
    assert node.question()["json_mode"] is True
    client.chat(NAME, SAID, format={"type": "object"})
    assert node.question()["schema"] == {"type": "object"}


def test_raw_and_a_beginning(client: ollama.Client, node: FakeNode) -> None:
    node.says(*HELLO)
    client.generate(NAME, "Once", raw=True)
    asked = node.question()
    assert (asked["prompt"], asked["raw"]) == ("Once", True)
    client.chat(NAME, [*SAID, {"role": "assistant", "content": "I am"}])
    assert node.question()["goes_on"] is True


def test_a_conversation_with_calls_reaches_the_node(client: ollama.Client, node: FakeNode) -> None:
    node.says(*HELLO)
    call = {"function": {"name": "weather", "arguments": {"city": "Wien"}}}
    said: list[Any] = [
        *SAID,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": "21"},
    ]
    client.chat(NAME, said, tools=[TOOL])
    _, called, result = node.question()["messages"]
    function = {"name": "weather", "arguments": '{"city": "Wien"}'}
    assert called["tool_calls"] == [{"type": "function", "function": function}]
    assert result == {"role": "tool", "content": "21", "name": "weather"}


def test_who_says_nothing_loads(client: ollama.Client, node: FakeNode) -> None:
    loaded = client.generate(NAME)
    assert (loaded.response, loaded.done, loaded.done_reason) == ("", True, "load")
    assert client.chat(NAME, []).done_reason == "load"
    assert client.generate(NAME, keep_alive=0).done_reason == "unload"
    with pytest.raises(queue.Empty):
        node.asked.get_nowait()


def test_models_are_listed(client: ollama.Client, url: str) -> None:
    (model,) = client.list().models
    assert model.model == f"{NAME}:latest"
    assert model.size == 144_811_904
    assert model.details is not None
    assert (model.details.family, model.details.parameter_size) == ("llama", "134.5M")
    assert (model.details.quantization_level, model.details.format) == ("Q8_0", "gguf")
    (running,) = client.ps().models
    assert (running.model, running.context_length) == (f"{NAME}:latest", 256)
    version = httpx.get(f"{url}/api/version").json()["version"]
    assert [int(one) for one in version.split(".")] > [0, 6, 4]
    assert httpx.head(url).status_code == 200


def test_a_model_is_shown(client: ollama.Client, node: FakeNode) -> None:
    shown = client.show(f"{NAME}:latest")
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 256
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("other")
    assert caught.value.status_code == 404
    assert "there is: tiny" in caught.value.error


def test_tools_for_a_model_that_knows_none(client: ollama.Client, node: FakeNode) -> None:
    node.template = "{{ messages }}"
    assert client.show(NAME).capabilities == ["completion"]
    with pytest.raises(ollama.ResponseError, match="tiny does not support tools"):
        client.chat(NAME, SAID, tools=[TOOL])


def test_vectors(client: ollama.Client, node: FakeNode) -> None:
    made = client.embed(NAME, ["a", "b"])
    assert made.embeddings == [[1.0, 0.0]] * 2
    assert made.prompt_eval_count == 6
    assert client.embed("all-minilm", "a").embeddings == [[1.0, 0.0]]
    assert [node.question()["model"] for _ in range(2)] == [NAME, "minilm"]
    assert client.embeddings(NAME, "a").embedding == [1.0, 0.0]


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("chat", {"options": {"temperature": "hot"}}, "options.temperature must be a number"),
        ("chat", {"options": 3}, "options must be an object"),
        ("chat", {"messages": [{"role": "robot"}]}, "messages[0].role must be"),
        ("chat", {"messages": [{"role": "user", "images": ["aa"]}]}, "reads text only"),
        ("chat", {"format": "xml"}, 'format must be "json"'),
        ("chat", {"think": True}, "tiny does not support thinking"),
        ("generate", {"suffix": "end"}, "suffix cannot be had here"),
        ("generate", {"template": "{{ .Prompt }}"}, "template cannot be had here"),
        ("generate", {"context": [1, 2]}, "context cannot be had here"),
        ("generate", {"images": ["aa"]}, "images cannot be had here"),
        ("generate", {"prompt": 3}, "prompt must be a string"),
    ],
)
def test_bad_input_is_named(url: str, path: str, more: dict[str, Any], words: str) -> None:
    body = {"model": NAME, "messages": SAID, "prompt": "hi", **more}
    answer = httpx.post(f"{url}/api/{path}", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError("odd"), 400), (BusyError("full"), 503), (GenerationError("nobody"), 503)],
    ids=str,
)
def test_what_the_node_refuses(
    client: ollama.Client, node: FakeNode, error: UserError, status: int, is_stream: bool
) -> None:
    node.says(error)
    with pytest.raises(ollama.ResponseError) as caught:
        _ = [*client.chat(NAME, SAID, stream=True)] if is_stream else client.chat(NAME, SAID)
    assert (caught.value.error, caught.value.status_code) == (str(error), status)


def test_an_answer_that_breaks_off(client: ollama.Client, node: FakeNode) -> None:
    node.says(plan(), token("a"), GenerationError("a peer was lost"))
    seen: list[str] = []
    with pytest.raises(ollama.ResponseError, match="a peer was lost"):
        seen.extend(one.message.content or "" for one in client.chat(NAME, SAID, stream=True))
    assert seen == ["a"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/api/push", "the page / lists what there is"),
        ("/api/pull", "on the node's machine, p2pnode models pull NAME fetches models"),
    ],
)
def test_a_path_that_there_is_not(url: str, path: str, hint: str) -> None:
    answer = httpx.post(f"{url}{path}", json={})
    assert answer.status_code == 404
    assert answer.json() == {"error": f"there is no POST {path} here: {hint}"}


def test_a_method_that_there_is_not(url: str) -> None:
    answer = httpx.get(f"{url}/api/chat")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"error": "there is no GET /api/chat here: ask with POST"}


def test_a_client_that_leaves_ends_the_answer(client: ollama.Client, node: FakeNode) -> None:
    node.says(plan(), token("a"), Hang())
    pieces = client.chat(NAME, SAID, stream=True)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert node.gone.get(timeout=5) == "gone"
