"""One model more, and one less, while a node runs: real nodes on loopback with tiny models."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pnode.engine.registry import EngineOptions
from p2pnode.errors import BusyError, CapacityError, ModelError, UnknownModelError, UserError
from p2pnode.node import engine_jobs
from p2pnode.node.answering.question import Question
from p2pnode.node.config import NodeConfig
from p2pnode.node.model_orders import choice_of
from p2pnode.node.model_use import is_in_use
from p2pnode.node.node import Node
from p2pnode.node.settings import ModelChoice, NodeSettings
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> tuple[Path, Path]:
    """Two models: they are called ``tiny 0`` and ``tiny 1``."""
    paths = tmp_path / "one.gguf", tmp_path / "two.gguf"
    for seed, path in enumerate(paths):
        write_tiny_gguf(path, seed=seed)
    return paths


class Heard(list[Mapping[str, Any]]):
    """What was told on the way."""

    async def __call__(self, event: Mapping[str, Any]) -> None:
        self.append(event)
        await trio.lowlevel.checkpoint()

    @property
    def states(self) -> list[str]:
        return [event["state"] for event in self if event["event"] == "state"]


@asynccontextmanager
async def running(state: Path, *models: ModelChoice, hold: bool = True) -> AsyncIterator[Node]:
    await trio.Path(state).mkdir(mode=0o700)
    settings = NodeSettings(
        config=NodeConfig(state.name, drain=0.0),
        state=state,
        models=models,
        hold=hold,
        host="127.0.0.1",
        mdns=False,
        engine=EngineOptions("numpy"),
    )
    node = Node(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        yield node
        node.stop()


async def answer(node: Node, model: str) -> str:
    asked = node.answering.answer(
        Question.of({"prompt": "hi", "raw": True, "max_tokens": 4, "wait": 30, "model": model})
    )
    async for _ in asked.events():
        pass
    return str(asked.facts()["token_ids"])


async def test_each_model_that_a_node_starts_with_answers_by_its_name(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    async with running(tmp_path / "a", *map(ModelChoice, files)) as node:
        assert [one.name for one in node.snapshot().models] == ["tiny 0", "tiny 1"]
        first, second = await answer(node, "tiny 0"), await answer(node, "tiny 1")
        assert first != second
        assert await answer(node, "") == first
        assert await answer(node, str(files[1])) == second
        with pytest.raises(UnknownModelError, match="there is: tiny 0, tiny 1"):
            await answer(node, "tiny 2")


async def test_a_model_is_loaded_beside_the_others_and_unloaded_again(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    async with running(tmp_path / "a", ModelChoice(files[0])) as node:
        heard = Heard()
        loaded = await node.orders.load(ModelChoice(files[1], range(4)), heard)
        assert (loaded["name"], loaded["layers"], loaded["is_new"]) == ("tiny 1", [0, 4], True)
        assert heard.states[-1] == "serving"
        assert is_in_use(files[1])
        before = await answer(node, "tiny 1")
        again = await node.orders.load(ModelChoice(files[1]), heard)
        assert (again["layers"], again["is_new"]) == ([0, 4], False)
        with pytest.raises(ModelError, match="its layers stay as they are"):
            await node.orders.load(ModelChoice(files[1], range(2)), heard)
        gone = await node.orders.unload("tiny 1", heard)
        assert gone["name"] == "tiny 1"
        assert not is_in_use(files[1])
        assert [one.name for one in node.snapshot().models] == ["tiny 0"]
        with pytest.raises(UnknownModelError, match="there is: tiny 0"):
            await node.orders.unload("tiny 1", heard)
        await node.orders.load(ModelChoice(files[1]), heard)
        assert await answer(node, "tiny 1") == before


async def test_a_node_may_be_left_without_a_model_and_get_one(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    async with running(tmp_path / "a", ModelChoice(files[0])) as node:
        expected = await answer(node, "")
        await node.orders.unload("tiny 0", Heard())
        with pytest.raises(UnknownModelError, match="no model"):
            await answer(node, "")
        with pytest.raises(UserError, match="name the model"):
            await node.orders.unload("", Heard())
        await node.orders.load(ModelChoice(files[0]), Heard())
        assert await answer(node, "") == expected


async def test_memory_that_runs_out_while_the_second_loads_leaves_the_first(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "a", ModelChoice(files[0])) as node:
        expected = await answer(node, "")

        def full(*_: object, **__: object) -> None:
            raise CapacityError("there is not enough memory")

        monkeypatch.setattr(engine_jobs, "load_engine", full)
        with pytest.raises(ModelError, match=r"tiny 1 is not held: .*not enough memory; tiny 0"):
            await node.orders.load(ModelChoice(files[1]), Heard())
        assert [one.name for one in node.snapshot().models] == ["tiny 0"]
        assert await answer(node, "tiny 0") == expected


async def test_two_of_one_name_are_told_apart_by_their_roots(tmp_path: Path) -> None:
    paths = tmp_path / "one.gguf", tmp_path / "two.gguf"
    write_tiny_gguf(paths[0])
    write_tiny_gguf(paths[1], n_layers=2)  # which is called tiny 0 as well
    async with running(tmp_path / "a", *map(ModelChoice, paths)) as node:
        one, two = (view.name for view in node.snapshot().models)
        assert one.startswith("tiny 0@")
        assert two.startswith("tiny 0@")
        assert await answer(node, one) != await answer(node, two)
        with pytest.raises(UnknownModelError, match=f"could be {one} or {two}"):
            await answer(node, "tiny 0")
        await node.orders.unload(two, Heard())
        assert [view.name for view in node.snapshot().models] == ["tiny 0"]


async def test_the_same_model_under_two_paths_is_one(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(files[0].read_bytes())
    async with running(tmp_path / "a", ModelChoice(files[0]), ModelChoice(copy)) as node:
        assert len(node.snapshot().models) == 1
        assert not is_in_use(copy)


async def test_a_model_that_the_ad_has_no_room_for_is_refused_by_name(tmp_path: Path) -> None:
    async with running(tmp_path / "a", hold=False) as node:
        refused: UserError | None = None
        while refused is None:
            path = tmp_path / f"{len(node.models)}.gguf"
            write_tiny_gguf(path, seed=len(node.models), n_layers=1)
            try:
                await node.orders.load(ModelChoice(path), Heard())
            except UserError as error:
                refused = error
        assert "one model too many" in str(refused)
        assert "unload" in refused.hint
        names = [one.name for one in node.snapshot().models]
        assert names == [f"tiny {number}" for number in range(len(names))]
        assert not is_in_use(tmp_path / f"{len(names)}.gguf")
        await node.orders.unload("tiny 0", Heard())
        await node.orders.load(ModelChoice(path), Heard())


async def test_one_order_at_a_time(files: tuple[Path, Path], tmp_path: Path) -> None:
    async with running(tmp_path / "a", ModelChoice(files[0])) as node:
        refused = []

        async def load(path: Path) -> None:
            try:
                await node.orders.load(ModelChoice(path), Heard())
            except BusyError as error:
                refused.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, files[1])
            nursery.start_soon(load, files[1])
        assert refused == ["another model is being loaded here"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"path": "relative.gguf"},
        {"path": 5},
        {"path": "/x", "called": 5},
        {"path": "/x", "layers": [0]},
        {"path": "/x", "layers": [0, 1, 2]},
        {"path": "/x", "layers": [1, 1]},
        {"path": "/x", "layers": [0, True]},
        {"path": "/x", "layers": [-1, 3]},
        {"path": "/x", "layers": [0, 1 << 40]},
        {"path": "/x", "layers": "0:3"},
    ],
)
def test_an_order_that_is_none_is_refused(params: dict[str, object]) -> None:
    with pytest.raises(UserError):
        choice_of(params)


def test_an_order_names_path_layers_and_what_the_model_is_called() -> None:
    assert choice_of({"path": "/x"}) == ModelChoice(Path("/x"))
    asked = {"path": "/x", "called": "x", "layers": [2, 5]}
    assert choice_of(asked) == ModelChoice(Path("/x"), range(2, 5), "x")
