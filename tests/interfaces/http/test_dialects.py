"""What all APIs have in common: whatever is sent, a client gets JSON of its own API's form."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.interfaces.http.access import Access
from p2pnode.interfaces.http.app import make_app
from p2pnode.interfaces.http.body import MOST_NESTED
from p2pnode.interfaces.http.node_link import NodeLink
from tests.interfaces.http.fake_node import HELLO, NAME, FakeNode

VERSION = {"anthropic-version": "2023-06-01"}
SAID: list[Any] = [{"role": "user", "content": "hi"}]
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/chat",
    "/api/generate",
    "/api/show",
    "/api/embed",
    "/api/embeddings",
)
WORDS = (
    *("model", "messages", "input", "prompt", "role", "content", "type", "text", "tools", "name"),
    *("function", "function_call", "tool_choice", "options", "temperature", "max_tokens", "stop"),
    *("stream", "stream_options", "format", "response_format", "system", "metadata", "logprobs"),
    *("tool_use", "tool_result", "message", "user", "assistant", "tool", "json_schema", "schema"),
    *("output_config", "tool_calls", "arguments", "input_schema", "n", "seed", "include", "echo"),
    *("instructions", "call_id", "output", "id", "images", "think", "num_predict", NAME),
)
ODD = st.sampled_from(["\ud800", "\x00", "\u2028", "", "a" * 300, "<script>", "\x1b[2J"])
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 2**63, 1e308])
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | ODD
    | st.text(max_size=5)
)
KEY = st.sampled_from(WORDS) | ODD
ANY = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=6),
    max_leaves=20,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | SCALAR, "content": ANY},
        optional={"tool_calls": ANY, "type": SCALAR, "call_id": SCALAR, "images": ANY},
    ),
    max_size=3,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(KEY, ANY, max_size=6),
    said=st.none() | MESSAGES | ANY,
)
def test_any_json_is_answered_with_json(
    url: str, node: FakeNode, path: str, body: dict[str, Any], said: Any
) -> None:
    node.says(*HELLO)
    filled = {"model": NAME, "max_tokens": 5, **body}
    if said is not None:
        filled |= {"messages": said, "input": said, "prompt": said}
    if path == "/api/show":
        filled["stream"] = False
    data = json.dumps(filled)
    answer = httpx.post(f"{url}{path}", content=data, headers=VERSION, timeout=10)
    assert answer.status_code in (200, 400, 404), answer.text
    kind = answer.headers["content-type"]
    if kind == "application/json":
        answer.json()
    elif kind == "application/x-ndjson":
        assert all(json.loads(line) for line in answer.text.splitlines())
    else:
        assert kind == "text/event-stream"
        assert answer.text.startswith(("data: ", "event: "))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "line 1, column 2"),
        (b"[]", "not a JSON object"),
        (b'"\xff"', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),  # half of a surrogate pair
        ('{"a": "\ud800"}'.encode("utf-16", "surrogatepass"), "not UTF-8"),
        (b'{"a": NaN}', "a number is impossible"),
        (b'{"a": 1e999}', "a number is impossible"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a":' * (MOST_NESTED + 1) + b"1" + b"}" * (MOST_NESTED + 1), "nested too deep"),
        (b"[" * 50_000, "nested too deep"),
    ],
    ids=lambda one: str(one)[:20],
)
def test_what_is_no_json_is_refused_in_words(url: str, path: str, data: bytes, words: str) -> None:
    answer = httpx.post(f"{url}{path}", content=data, headers=VERSION)
    assert answer.status_code == 400
    told = answer.json()["error"]
    assert words in (told if path.startswith("/api/") else told["message"])


Serving = Callable[..., AbstractContextManager[Any]]


def test_who_has_no_key_hears_it_from_the_client(serving: Serving, node: FakeNode) -> None:
    node.says(*HELLO)
    with serving(make_app(NodeLink(node.path), Access(key="secret"))) as served:
        url = f"http://127.0.0.1:{served.port}"
        with pytest.raises(openai.AuthenticationError, match="a key is needed"):
            by_openai(url, "wrong")
        with pytest.raises(anthropic.AuthenticationError) as caught:
            by_anthropic(url, "wrong")
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["error"]["type"] == "authentication_error"
        with pytest.raises(ollama.ResponseError) as told:
            by_ollama(url, "wrong")
        assert told.value.error.startswith("a key is needed")
        for ask in (by_openai, by_anthropic, by_ollama):
            assert ask(url, "secret") == "Hello"


def by_openai(url: str, key: str) -> object:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model=NAME, messages=SAID, stream=False)
        return answer.choices[0].message.content


def by_anthropic(url: str, key: str) -> object:
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as client:
        message = client.messages.create(model=NAME, messages=SAID, max_tokens=5)
        (block,) = message.content
        return block.text if block.type == "text" else None


def by_ollama(url: str, key: str) -> object:
    with ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"}) as client:
        return client.chat(NAME, SAID).message.content


def test_both_lists_of_models_are_on_one_path(url: str) -> None:
    assert httpx.get(f"{url}/v1/models").json()["object"] == "list"
    assert "has_more" in httpx.get(f"{url}/v1/models", headers=VERSION).json()


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/v1/messages/batches", "POST", 404), ("/v1/messages", "GET", 405)],
)
def test_a_path_that_there_is_not_is_told_in_the_api_s_form(
    url: str, path: str, method: str, status: int
) -> None:
    answer = httpx.request(method, f"{url}{path}", headers=VERSION)
    assert answer.status_code == status
    assert answer.json()["type"] == "error"


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/v1/chat/completions", "GET", "POST"),
        ("/v1/messages", "GET", "POST"),
        ("/api/chat", "GET", "POST"),
        ("/v1/models", "POST", "GET"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_told_as_such(
    url: str, path: str, method: str, allowed: str
) -> None:
    answer = httpx.request(method, f"{url}{path}")
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"]
    assert f"ask with {answer.headers['allow']}" in answer.text
    assert "not_found" not in answer.text
    if path.startswith("/v1/chat"):
        assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_node_that_is_not_there_is_told_in_each_api_s_form(
    serving: Serving, tmp_path: Any
) -> None:
    body = {"model": NAME, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    with serving(make_app(NodeLink(tmp_path / "none"), Access())) as served:
        url = f"http://127.0.0.1:{served.port}"
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            answer = httpx.post(f"{url}{path}", json=body, headers=VERSION)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert "the node is not running" in answer.text
