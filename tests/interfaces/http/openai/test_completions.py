"""OpenAI's completions: a text gone on with, by OpenAI's own client."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.interfaces.http.fake_node import HELLO, NAME, FakeNode


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, **more: Any) -> Any:
    return client.completions.create(**{"model": NAME, "prompt": "Once", **more})


def test_a_whole_completion(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    completion = create(client, echo=True)
    assert (completion.object, completion.choices[0].text) == ("text_completion", "OnceHello")
    asked = node.question()
    assert (asked["prompt"], asked["raw"]) == ("Once", True)


def test_a_stream(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    chunks = list(create(client, stream=True, echo=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "OnceHello"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_several_prompts_several_times_each(client: openai.OpenAI, node: FakeNode) -> None:
    node.says(*HELLO)
    completion = create(client, prompt=["a", [1, 2]], n=2)
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    asked = [node.question() for _ in range(4)]
    assert sorted(str(one.get("prompt")) for one in asked) == ["None", "None", "a", "a"]
    assert completion.usage.prompt_tokens == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"prompt": []}, "prompt must be"),
        ({"prompt": [[]]}, "prompt[0] is neither"),
        ({"prompt": ["a"] * 17}, "prompts times n"),
        ({"suffix": "end"}, "suffix cannot be had here"),
        ({"best_of": 2}, "best_of must be n"),
        ({"logprobs": 6}, "logprobs must be between 0 and 5"),
        ({"echo": True, "prompt": [1]}, "echo needs prompts that are text"),
    ],
    ids=str,
)
def test_bad_input_is_named(client: openai.OpenAI, more: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **more)
    assert words in caught.value.message
