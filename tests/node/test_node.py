"""Whole nodes on loopback: the core is touched under the lock alone, whoever asks."""

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from p2pnode import CORES, __version__
from p2pnode.errors import UserError
from p2pnode.net.control_lines import Rendered, render
from p2pnode.net.reactor import Reactor
from p2pnode.node import handlers as handlers_module, model_cache, node as node_module
from p2pnode.node.config import HoldingsConfig, NodeConfig
from p2pnode.node.handlers import handlers
from p2pnode.node.model_use import is_in_use
from p2pnode.node.node import Node
from p2pnode.node.settings import ModelChoice, NodeSettings
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.node.snapshot_json import fields_of
from p2pnode.sansio import Address
from p2pnode.scheduler.moving import Choosing, Settling
from p2pnode.scheduler.placement import Placement
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.text.detokenizer import Detokenizer, IncrementalDecoder
from tests.net.toys import Guard

pytestmark = pytest.mark.timeout(120)


class Guards:
    """Puts a guard before the core of every node that is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.guards: list[Guard] = []
        monkeypatch.setattr(node_module, "Reactor", self._reactor)

    def _reactor(self, core: Any, *arguments: Any, **options: Any) -> Reactor[Any, Any]:
        guard: Any = Guard(core)
        reactor: Reactor[Any, Any] = Reactor(guard, *arguments, **options)
        guard.holds(reactor._monitor._lock)
        self.guards.append(guard)
        return reactor

    @property
    def faults(self) -> list[str]:
        return [fault for guard in self.guards for fault in guard.faults]


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def settings(
    state: Path, model: Path, layers: range, peers: tuple[Address, ...] = ()
) -> NodeSettings:
    state.mkdir(mode=0o700)
    return NodeSettings(
        config=NodeConfig(state.name, holdings=HoldingsConfig(layers=layers), drain=0.0),
        state=state,
        models=(ModelChoice(model),),
        host="127.0.0.1",
        peers=peers,
        mdns=False,
    )


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
        yield
        for node in nodes:
            node.stop()


async def test_a_model_is_seen_to_be_in_use_while_a_node_runs(model: Path, tmp_path: Path) -> None:
    async with running(Node(settings(tmp_path / "a", model, range(1)))):
        assert is_in_use(model)
    assert not is_in_use(model)


async def until_covered(node: Node) -> None:
    with trio.fail_after(60):
        while (picture := node.snapshot()).missing_layers or not picture.n_layers:
            await trio.testing.wait_all_tasks_blocked(0.02)


async def test_a_node_tells_others_its_version(model: Path, tmp_path: Path) -> None:
    node = Node(settings(tmp_path / "a", model, range(1)))
    async with running(node):
        assert node.snapshot().software == __version__


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
async def test_the_core_of_a_node_is_never_touched_without_the_lock(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guards = Guards(monkeypatch)
    events: list[Any] = []

    async def emit(event: Any) -> None:
        events.append(event)

    one = Node(settings(tmp_path / "one", model, range(2)))
    async with running(one):
        swarm_secret = (tmp_path / "one" / "swarm.secret").read_text()
        host, port = one.snapshot().listening[0].rsplit(":", 1)
        late = settings(tmp_path / "two", model, range(2, 4), ((host, int(port)),))
        secret = tmp_path / "two" / "swarm.secret"
        secret.write_text(swarm_secret)
        secret.chmod(0o600)
        two = Node(late)
        async with running(two):
            await until_covered(two)
            call = handlers(two)
            await call["connect"]({"address": f"{host}:{port}"}, emit)
            await call["invite"]({}, emit)
            asked = {"prompt": "hi", "raw": True, "max_tokens": 8, "ignore_eos": True}
            answer: Any = await call["generate"](asked, emit)
            picture: Any = await call["snapshot"]({}, emit)
    assert len(answer["token_ids"]) == 8
    assert [event["event"] for event in events].count("token") == 8
    assert picture is not None
    assert guards.faults == []


async def test_an_answer_is_written_as_what_follows_its_prompt(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary may put a space before a text, which an answer must lose and a sequel keep."""
    after: list[int | None] = []

    def noted(self: Detokenizer, **given: Any) -> IncrementalDecoder:
        after.append(given["after"])
        return decoder(self, **given)

    decoder = Detokenizer.decoder
    monkeypatch.setattr(Detokenizer, "decoder", noted)

    async def emit(event: Any) -> None:
        pass

    node = Node(settings(tmp_path / "one", model, range(4)))
    async with running(node):
        await until_covered(node)
        asked = {"prompt": "hi", "raw": True, "max_tokens": 1}
        answer: Any = await handlers(node)["generate"](asked, emit)
    assert after == [answer["prompt_ids"][-1]] == [ord("i")]


async def test_a_node_turns_texts_into_vectors_by_the_model_it_serves(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def emit(event: Any) -> None:
        raise AssertionError(event)

    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    model_cache.pull(str(model), called="mine")

    async def vectors(**asked: object) -> Any:
        return json.loads((await embed(asked, emit)).text)

    node = Node(settings(tmp_path / "one", model, range(4)))
    async with running(node):
        await until_covered(node)
        embed: Any = handlers(node)["embed"]
        told = await vectors(model="Tiny 0", texts=["hello there", "hi"], wait=5)
        assert told["model"] == "Tiny 0"
        assert (told["tokens_each"], told["truncated"]) == ([10, 2], [False, False])
        assert [len(vector) for vector in told["embeddings"]] == [told["dimensions"]] * 2
        for vector in told["embeddings"]:
            assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-6)
        by_another_name = await vectors(model="mine", texts=["hello there", "hi"])
        assert by_another_name["embeddings"] == told["embeddings"]
        assert (await vectors(texts=["hi"]))["model"] == "tiny 0"
        for asked, why in (
            ({"model": "nobody"}, "no model 'nobody'"),
            ({"texts": ["hi", ""]}, "text 2 is empty"),
            ({"texts": ["hi " * 200]}, "context"),
            ({"texts": ["hi"] * 5001}, "too many"),
            ({"wait": -1}, "impossible"),
        ):
            with pytest.raises(UserError, match=why):
                await vectors(**({"texts": ["hi"]} | asked))


async def test_a_large_picture_is_rendered_off_the_loop(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(taken: NodeSnapshot) -> Rendered:
        rendered_in.append(threading.get_ident())
        return render(taken, default=fields_of)

    async def emit(event: object) -> None:
        raise AssertionError(event)

    rendered_in: list[int] = []
    monkeypatch.setattr(handlers_module, "_rendered", noted)
    node = Node(settings(tmp_path / "one", model, range(4)))
    async with running(node):
        few = await handlers(node)["snapshot"]({}, emit)
        monkeypatch.setattr(handlers_module, "_FEW_PEERS", -1)
        many = await handlers(node)["snapshot"]({}, emit)
    assert isinstance(few, Rendered)
    assert isinstance(many, Rendered)
    assert json.loads(many.text)["node_id"] == json.loads(few.text)["node_id"]
    assert rendered_in[0] == threading.get_ident() != rendered_in[1]


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
async def test_where_to_go_among_many_is_found_off_the_loop(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(self: Choosing | Settling) -> Placement | None:
        found_in.append(threading.get_ident())
        found: Placement | None = answers[type(self)](self)
        return found

    found_in: list[int] = []
    answers: dict[Any, Any] = {asked: asked.__call__ for asked in (Choosing, Settling)}
    for asked in answers:
        monkeypatch.setattr(asked, "is_brief", False)
        monkeypatch.setattr(asked, "__call__", noted)
    told = settings(tmp_path / "one", model, range(0))
    holdings = HoldingsConfig(settle=0.0, jitter=0.0, confirm=0.5)
    node = Node(replace(told, config=replace(told.config, holdings=holdings)))
    async with running(node):
        await until_covered(node)
    assert len(found_in) == 2  # the choice, and whether the claim stands
    assert threading.get_ident() not in found_in


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
async def test_a_core_that_fails_ends_its_node_with_that_error_alone(
    tmp_path: Path, model: Path
) -> None:
    node = Node(settings(tmp_path / "one", model, range(2)))

    def break_it(core: Any, now: float) -> None:
        core.next_timeout = lambda: 1 / 0

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            await node.run()
        ended.set()

    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(30):
            while not hasattr(node, "_reactor"):
                await trio.testing.wait_all_tasks_blocked(0.01)
            node._reactor.call(break_it)
            await ended.wait()
