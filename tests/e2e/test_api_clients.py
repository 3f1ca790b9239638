"""The official clients of three APIs, and a node with the real model behind ``p2pnode serve``."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "api.md"
MODEL = "smollm2-135m"
SAID: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


@contextmanager
def started(*words: str) -> Iterator[Mapping[str, Any]]:
    """Run a command that says in a line of JSON when it is ready."""
    command = [sys.executable, "-m", "p2pnode", *words, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(name="url", scope="module")
def _url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    state = ("--state", str(tmp_path_factory.mktemp("node")))
    network = ("--listen", "127.0.0.1", "--port", "0", "--no-mdns")
    with (
        started("up", "--model", MODEL, *network, *state),
        started("serve", "--http", "0", *state) as served,
    ):
        yield served["url"]


def _examples(kind: str) -> list[str]:
    return re.findall(
        rf"^```{kind}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("kind", ["bash", "python"])
def test_the_examples_of_the_guide_answer(url: str, kind: str) -> None:
    examples = _examples(kind)
    assert len(examples) > 1
    for example in examples:
        asked = example.replace("http://127.0.0.1:8080", url)
        assert asked != example
        program = ["bash", "-c"] if kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run([*program, asked], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        if kind == "bash":
            assert "error" not in json.loads(done.stdout), done.stdout


def test_anthropic(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        cold: Any = {"extra_body": {"temperature": 0}}
        message = client.messages.create(model=MODEL, messages=SAID, max_tokens=24, **cold)
        (block,) = message.content
        assert "Paris" in block.text
        assert message.stop_reason == "end_turn"
        counted = client.messages.count_tokens(model=MODEL, messages=SAID)
        assert counted.input_tokens == message.usage.input_tokens
        begun = [*SAID, {"role": "assistant", "content": "The capital of France is"}]
        with client.messages.stream(model=MODEL, messages=begun, max_tokens=8, **cold) as stream:
            assert "".join(stream.text_stream).startswith(" Paris")


def test_a_forced_call_through_anthropic(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        message = client.messages.create(
            model=MODEL,
            max_tokens=60,
            messages=SAID,
            tools=[{"name": "weather", "description": "Of a city", "input_schema": CITY}],
            tool_choice={"type": "tool", "name": "weather"},
        )
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.name, set(block.input)) == ("weather", {"city"})
    assert message.stop_reason == "tool_use"


def test_responses_and_vectors(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        response = client.responses.create(
            model=MODEL, input=SAID, temperature=0, max_output_tokens=24
        )
        assert "Paris" in response.output_text
        assert response.status == "completed"
        texts = list(
            client.responses.create(model=MODEL, input="Hi", stream=True, max_output_tokens=16)
        )
        assert texts[-1].type in ("response.completed", "response.incomplete")
        made = client.embeddings.create(model=MODEL, input=["a cat", "a kitten"])
        assert made.model == MODEL
        assert all(
            math.isclose(sum(x * x for x in one.embedding), 1, abs_tol=1e-3) for one in made.data
        )


def test_ollama(url: str) -> None:
    with ollama.Client(host=url) as client:
        (listed,) = client.list().models
        assert listed.model == f"{MODEL}:latest"
        pieces = [*client.chat(listed.model, SAID, options={"temperature": 0}, stream=True)]
        assert "Paris" in "".join(one.message.content or "" for one in pieces)
        assert pieces[-1].eval_duration
        told = client.generate(MODEL, "Name a city.", format=CITY, options={"num_predict": 40})
        assert set(json.loads(told.response or "")) == {"city"}
        assert len(client.embed(MODEL, "a cat").embeddings[0]) == 576


def test_a_prompt_beyond_the_context_is_told_in_words(url: str) -> None:
    long: list[Any] = [{"role": "user", "content": "word " * 20_000}]
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        with pytest.raises(anthropic.BadRequestError, match="context of smollm2-135m ends at"):
            client.messages.create(model=MODEL, messages=long, max_tokens=5)
        counted = client.messages.count_tokens(model=MODEL, messages=long)
        assert counted.input_tokens > 20_000
