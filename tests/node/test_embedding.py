"""A node turns texts into vectors off its loop: in turns, bounded, read when first asked."""

import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import KNOWN_MODELS, KnownModel
from p2pnode.node.embedder import Embedder, Embeddings
from p2pnode.node.embedding import (
    WAITING,
    Embedding,
    check_room,
    embedder_called,
    result_of,
    texts_of,
)
from tests.node.small_embedder import small_embedder

MINILM = KNOWN_MODELS["minilm"]


class Slow(Embedder):
    """Computes one text a step, when it is told to."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.may_go = trio.CancelScope()
        self.gate: Any = None

    @property
    def dimensions(self) -> int:
        return 2

    def steps(self, texts: Sequence[str]) -> Iterator[Embeddings]:
        for text in texts:
            if self.gate is not None:
                trio.from_thread.run(self.gate.wait)
            self.order.append(text)
            yield Embeddings(np.ones((1, 2), np.float32), (3,), (False,))


async def test_the_model_is_read_once_and_when_first_asked(tmp_path: Path) -> None:
    read: list[str] = []

    def read_model(known: KnownModel) -> Embedder:
        read.append(known.name)
        return small_embedder(tmp_path)

    embedding = Embedding(read_model)
    assert read == []
    one = await embedding.embed(MINILM, ["the cat"])
    other = await embedding.embed(MINILM, ["the cat"])
    assert read == ["minilm"]
    assert (one.vectors == other.vectors).all()


async def test_requests_take_turns_step_by_step() -> None:
    order: list[str] = []
    slow = Slow(order)
    embedding = Embedding(lambda known: slow)
    slow.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(embedding.embed, MINILM, ["a"] * 5)
        await wait_all_tasks_blocked(0.05)
        nursery.start_soon(embedding.embed, MINILM, ["b"] * 2)
        await wait_all_tasks_blocked(0.05)
        slow.gate.set()
    assert "".join(order[:4]) == "abab"
    assert sorted(order) == [*"aaaaabb"]


async def test_too_many_requests_are_refused_and_room_comes_back() -> None:
    slow = Slow([])
    slow.gate = trio.Event()
    embedding = Embedding(lambda known: slow)
    async with trio.open_nursery() as nursery:
        for _ in range(WAITING):
            nursery.start_soon(embedding.embed, MINILM, ["a"])
        await wait_all_tasks_blocked(0.05)
        with pytest.raises(UserError, match="too many"):
            await embedding.embed(MINILM, ["one more"])
        slow.gate.set()
    assert (await embedding.embed(MINILM, ["again"])).tokens == (3,)


async def test_one_that_gives_up_leaves_its_place() -> None:
    slow = Slow([])
    embedding = Embedding(lambda known: slow)
    for _ in range(WAITING + 1):
        with trio.move_on_after(0):
            await embedding.embed(MINILM, ["a"] * 100)
    assert (await embedding.embed(MINILM, ["last"])).tokens == (3,)


async def test_a_model_that_cannot_be_read_is_told_each_time() -> None:
    def read(known: KnownModel) -> Embedder:
        raise ModelError("not here", hint="pull it")

    embedding = Embedding(read)
    for _ in range(WAITING + 1):
        with pytest.raises(ModelError, match="not here"):
            await embedding.embed(MINILM, ["a"])


@pytest.mark.parametrize("texts", [None, [], "abc", [1], ["a", None], {"a": 1}])
def test_what_is_no_list_of_texts_is_refused(texts: object) -> None:
    with pytest.raises(UserError, match="list of texts"):
        texts_of({"texts": texts})


@pytest.mark.parametrize("name", ["", "smollm2-135m", "nobody", "minilm/../x"])
def test_no_other_model_is_an_embedder(name: str) -> None:
    assert embedder_called(name) is None
    assert embedder_called("All-MiniLM") is MINILM


async def test_vectors_are_written_as_asked(tmp_path: Path) -> None:
    made = small_embedder(tmp_path).embed(["the cat", "the"])
    plain = json.loads((await result_of("small", made, {})).text)
    assert (plain["model"], plain["dimensions"], plain["tokens"]) == ("small", 12, 7)
    assert (plain["tokens_each"], plain["truncated"]) == ([4, 3], [False, False])
    assert np.array(plain["embeddings"]) == pytest.approx(made.vectors, abs=1e-9)
    packed = json.loads((await result_of("small", made, {"encoding_format": "base64"})).text)
    back = [np.frombuffer(b64decode(one), "<f4") for one in packed["embeddings"]]
    assert (np.array(back) == made.vectors).all()
    with pytest.raises(UserError, match="encoding_format"):
        await result_of("small", made, {"encoding_format": ["float"]})


def test_more_vectors_than_a_line_holds_are_refused() -> None:
    check_room(512, 384)
    with pytest.raises(UserError, match="600 vectors of 1000") as caught:
        check_room(600, 1000)
    assert caught.value.hint == "give 317 texts at a time"
