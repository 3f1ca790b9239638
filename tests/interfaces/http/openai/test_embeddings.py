"""OpenAI's embeddings, by OpenAI's own client."""

import base64
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from p2pnode.interfaces.http import embedding
from tests.interfaces.http.fake_node import NAME, FakeNode, Hang


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_vectors_come_as_the_client_asks_by_itself(client: openai.OpenAI, node: FakeNode) -> None:
    made = client.embeddings.create(model=NAME, input=["a", "b"])
    assert [(one.index, one.object) for one in made.data] == [(0, "embedding"), (1, "embedding")]
    assert list(made.data[0].embedding) == list(struct.unpack("<2f", base64.b64decode(SAME)))
    assert (made.model, made.usage.prompt_tokens, made.usage.total_tokens) == (NAME, 6, 6)
    assert node.question()["encoding_format"] == "base64"


SAME = "AACAPwAAAAA="


def test_vectors_come_as_numbers(client: openai.OpenAI, node: FakeNode) -> None:
    made = client.embeddings.create(
        model="minilm", input="a", encoding_format="float", dimensions=2
    )
    assert made.data[0].embedding == [1.0, 0.0]
    assert (node.question()["model"], made.model) == ("minilm", "minilm")


def test_many_texts_are_asked_of_the_node_in_parts(client: openai.OpenAI, node: FakeNode) -> None:
    made = client.embeddings.create(model=NAME, input=[f"{n}" for n in range(70)])
    assert [one.index for one in made.data] == list(range(70))
    assert [len(node.question()["texts"]) for _ in range(3)] == [32, 32, 6]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"input": [1, 2]}, "input[0] is no string: send text"),
        ({"input": [[1, 2]]}, "input[0] is no string: send text"),
        ({"input": []}, "input must be a string"),
        ({"input": ["a", ""]}, "input[1] is empty"),
        ({"input": ["a"] * 2049}, "2048 are the most"),
        ({"dimensions": 3}, "tiny makes 2 of them"),
        ({"encoding_format": "hex"}, "encoding_format must be one of float, base64"),
        ({"extra_body": {"task": "a"}}, "unknown parameter: task"),
    ],
    ids=lambda one: str(one)[:50],
)
def test_bad_input_is_named(client: openai.OpenAI, more: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": NAME, "input": "a", **more})
    assert words in caught.value.message


def test_a_model_that_is_not_here_names_those_that_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is: minilm, tiny"):
        client.embeddings.create(model="other", input="a")


def test_models_made_for_it_are_listed_where_they_are(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [model.id for model in client.models.list()] == [NAME, "minilm"]
    assert client.models.retrieve("minilm").id == "minilm"
    monkeypatch.setattr(embedding, "is_missing", lambda name: True)
    assert [model.id for model in client.models.list()] == [NAME]
    with pytest.raises(openai.NotFoundError, match="models pull minilm"):
        client.embeddings.create(model="minilm", input="a")


def test_a_client_that_goes_away_is_computed_for_no_longer(
    client: openai.OpenAI, node: FakeNode
) -> None:
    node.says(Hang())
    with pytest.raises(openai.APITimeoutError):
        client.embeddings.create(model=NAME, input=["a"], timeout=0.5)
    assert node.gone.get(timeout=5) == "gone"
