"""What the API remembers of the node's model, and for how long."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
import trio

from p2pnode.errors import UserError
from p2pnode.interfaces.http import node_link
from p2pnode.interfaces.http.errors import ApiError
from p2pnode.interfaces.http.node_link import NodeLink, asked_of
from p2pnode.net.control_lines import Rendered
from tests.interfaces.http.fake_node import FakeNode


class Clock:
    """Stands for the module ``time`` of a link alone: asyncio keeps the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(node_link, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(name="link")
def _link(node: FakeNode) -> NodeLink:
    return NodeLink(node.path)


async def on_asyncio(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    await trio.to_thread.run_sync(lambda: asyncio.run(run()))


async def looked_at(node: FakeNode, times: int = 1) -> None:
    """Wait until the node was asked for its model so many times more, and no further."""
    for _ in range(times):
        await asyncio.to_thread(node.looks.get, timeout=5)
    assert node.looks.empty()


async def test_an_answer_begins_with_what_is_known_and_the_node_is_asked_beside_it(
    node: FakeNode, link: NodeLink, clock: Clock
) -> None:
    async def ask() -> None:
        assert (await link.model_called("TINY:latest"))["name"] == "tiny"
        await looked_at(node)
        clock.now += 1
        await link.model_called("tiny")
        await looked_at(node, 0)
        clock.now += 4
        await asyncio.gather(*(link.model_called("tiny") for _ in range(5)))
        await looked_at(node)
        clock.now += 11
        await link.model_called("tiny")
        await looked_at(node)

    await on_asyncio(ask)


async def test_a_node_that_came_back_with_another_model_is_asked_for_that(
    node: FakeNode, link: NodeLink, clock: Clock
) -> None:
    async def ask() -> None:
        await link.model_called("tiny")
        node.name = "other"
        with pytest.raises(ApiError, match="there is: tiny"):
            await link.model_called("other")  # it was asked a moment ago
        clock.now += 3
        assert (await link.model_called("other"))["name"] == "other"
        with pytest.raises(ApiError, match="there is: other"):
            await link.model_called("tiny")

    await on_asyncio(ask)


async def test_nothing_is_kept_of_a_node_that_is_gone(
    node: FakeNode, link: NodeLink, clock: Clock
) -> None:
    async def ask() -> None:
        await link.model_called("tiny")
        clock.now += 3
        link.path = node.path.with_name("nobody")

        async def until_refused() -> None:
            while True:  # the look beside finds nobody
                await link.model_called("tiny")
                await asyncio.sleep(0.001)

        with pytest.raises(ApiError) as caught:
            await asyncio.wait_for(until_refused(), 5)
        assert caught.value.status == 503

    await on_asyncio(ask)


async def test_a_question_without_a_node_forgets_the_model(node: FakeNode, link: NodeLink) -> None:
    async def ask() -> None:
        await link.model_called("tiny")
        link.path = node.path.with_name("nobody")

        async def hear(number: int, event: object) -> None:
            raise AssertionError(event)

        with pytest.raises(ApiError):
            await link.answers([Rendered(b"{}")], hear)
        with pytest.raises(ApiError) as caught:
            await link.model_called("tiny")
        assert caught.value.status == 503

    node.says(UserError("no"))
    await on_asyncio(ask)


async def test_each_of_several_is_asked_for_by_its_name(node: FakeNode, link: NodeLink) -> None:
    node.name, node.others = "tiny@abababab", ("tiny@cdcdcdcd", "other")

    async def ask() -> None:
        shown = [one["name"] for one in await link.models()]
        assert shown == ["tiny@abababab", "tiny@cdcdcdcd", "other"]
        second = await link.model_called("tiny@cdcdcdcd")
        asked = json.loads(asked_of(second, {"prompt": "hi"}).text)
        assert asked == {"prompt": "hi", "model": f"tiny@{'cdcdcdcd' * 8}"}
        assert (await link.model_called("OTHER:latest"))["name"] == "other"
        with pytest.raises(ApiError, match="could be tiny@abababab or tiny@cdcdcdcd") as caught:
            await link.model_called("tiny")
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")

    await on_asyncio(ask)


async def test_a_model_whose_file_is_broken_is_not_listed_and_says_why(
    node: FakeNode, link: NodeLink
) -> None:
    node.others, node.broken = ("other",), "other"

    async def ask() -> None:
        assert [one["name"] for one in await link.models()] == ["tiny"]
        with pytest.raises(ApiError, match="the file is broken") as caught:
            await link.model_called("other")
        assert caught.value.code == "model_unusable"

    await on_asyncio(ask)
