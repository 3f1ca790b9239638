"""A node in a program's own process: real ones on loopback, with a tiny model."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import p2pnode
from p2pnode import Ask, Client, DType, Node, NodeSnapshot, Slice, UserError
from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.node_options import UpOptions
from p2pnode.interfaces.python.options import up_options
from p2pnode.net.control_lines import render
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.wire.messages import sync_frame

pytestmark = pytest.mark.timeout(120)

NOT_A_PROGRAM_S = {"nice"}  # it is the whole process that is
"""Options of ``up`` that a node in a program has no use for."""


@pytest.fixture(name="model")
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    write_tiny_gguf(tmp_path / "tiny.gguf")
    return str(tmp_path / "tiny.gguf")


def quiet(model: str, **options: Any) -> Node:
    return Node(model, **{"mdns": False, "listen": "127.0.0.1", "engine": "numpy", **options})


async def until(node: Node, is_so: Any) -> NodeSnapshot:
    with trio.fail_after(60):
        async for picture in node.watch(0.02):
            if is_so(picture):
                return picture
    raise AssertionError("it ended")


def covered(picture: NodeSnapshot) -> bool:
    return bool(picture.n_layers) and not picture.missing_layers


# Options


def test_a_program_may_say_of_a_node_what_up_may_be_told() -> None:
    told = set(inspect.signature(Node).parameters) - {"invite"}
    ups = {field.name for field in fields(UpOptions)} - NOT_A_PROGRAM_S
    assert told == ups, "an option of up belongs into Node too, or into NOT_A_PROGRAM_S"


def test_what_is_not_said_is_as_up_has_it() -> None:
    options = up_options({"model": "none", "peer": ("a:1", "b:2"), "mdns": False, "name": None})
    assert (options.layers, options.engine, options.kv_memory) == ("auto", "auto", 512)
    assert (options.peer, options.mdns, options.name) == (("a:1", "b:2"), False, None)


@pytest.mark.parametrize(
    ("option", "value"),
    [("port", 70_000), ("threads", 0), ("engine", "abacus"), ("kv_memory", 10**9), ("layers", 1.5)],
)
async def test_an_impossible_option_is_refused_by_name(
    option: str, value: object, model: str
) -> None:
    with pytest.raises(UsageError, match=option if option != "layers" else "1.5"):
        async with quiet(model, **{option: value}):
            pass


def test_a_code_is_read_at_once() -> None:
    with pytest.raises(UserError, match="not an invite code"):
        Node(invite="hello")


async def test_a_model_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.gguf"):
        async with Node(str(tmp_path / "none.gguf")):
            pass


# Its life


async def test_it_is_up_within_its_block_alone(model: str) -> None:
    node = quiet(model, name="kitchen")
    with pytest.raises(UserError, match="not begun"):
        node.snapshot()
    async with node:
        assert node.snapshot().name == "kitchen"
        state = node.state
        assert state.is_dir()
        with pytest.raises(UserError, match="in a swarm already"):
            node.join("p2p1-abc")
    assert not state.exists()
    with pytest.raises(UserError, match="has ended"):
        node.generate("hi")
    with pytest.raises(UserError, match="begins once"):
        await node.__aenter__()


async def test_a_state_directory_that_is_named_is_kept(model: str, tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        async with quiet(model, state=tmp_path / "state", layers="none") as node:
            keys.append(node.snapshot().node_id)
    assert keys[0] == keys[1]


async def test_two_on_one_state_directory_are_refused(model: str, tmp_path: Path) -> None:
    async with quiet(model, state=tmp_path / "state", layers="none") as node:
        with pytest.raises(UserError, match="already runs"):
            async with quiet(model, state=node.state):
                pass


async def test_the_block_s_own_error_comes_out_as_it_is(model: str) -> None:
    class OddError(Exception):
        pass

    with pytest.raises(OddError):
        async with quiet(model, layers="none"):
            raise OddError
    with pytest.raises(ExceptionGroup, match="mine"):
        async with quiet(model, layers="none"):
            raise ExceptionGroup("mine", [OddError()])


async def test_a_cancelled_block_ends_the_node(model: str) -> None:
    with trio.CancelScope() as scope:
        async with quiet(model, layers="none") as node:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(UserError, match="has ended"):
        node.snapshot()


async def test_a_node_stopped_from_outside_says_that_it_has_ended(model: str) -> None:
    async with quiet(model, layers="none") as node:
        client = Client(node.state)
        await trio.to_thread.run_sync(client.stop)
        with trio.fail_after(30):
            async for _ in node.watch(0.02):
                pass
        with pytest.raises(UserError, match="has ended"):
            node.snapshot()


# Answers


async def test_an_answer_comes_as_events_and_has_a_result(model: str) -> None:
    async with quiet(model) as node:
        async with node.generate("abc", max_tokens=4, ignore_eos=True) as answer:
            with pytest.raises(UserError, match="not over"):
                _ = answer.result
            events = [event async for event in answer]
        kinds = [type(event) for event in events]
        assert kinds.count(p2pnode.Planned) == 1
        assert kinds.count(p2pnode.Token) == len(answer.result.token_ids) == 4
        assert "".join(event.text for event in events) == answer.result.text
        again = await node.generate(answer.result.prompt_ids, max_tokens=4, ignore_eos=True).read()
        assert again.token_ids == answer.result.token_ids
        client = Client(node.state)
        theirs = await trio.to_thread.run_sync(
            lambda: client.generate("abc", max_tokens=4, ignore_eos=True).read()
        )
        assert theirs.token_ids == answer.result.token_ids


async def test_leaving_or_cancelling_an_answer_frees_what_it_held(model: str) -> None:
    async with quiet(model) as node:
        async with node.generate("abc", max_tokens=200, ignore_eos=True) as answer:
            await anext(answer)
        with pytest.raises(UserError, match="closed"):
            await anext(answer)
        with trio.CancelScope() as scope:
            async for event in node.generate("abc", max_tokens=200, ignore_eos=True):
                if isinstance(event, p2pnode.Token):
                    scope.cancel()
        assert scope.cancelled_caught
        picture = await until(node, lambda picture: not picture.stages)
        assert {one.state for one in picture.generations} == {"cancelled"}


async def test_what_cannot_be_asked_is_one_error(model: str) -> None:
    async with quiet(model, layers="none") as node:
        with pytest.raises(UserError, match="empty"):
            node.generate(" ")
        with pytest.raises(TypeError, match="no option"):
            node.generate("hi", tempo=1)  # type: ignore[call-arg]
        with pytest.raises(UserError):
            await node.generate("abc", wait=0.01).read()


# A swarm


async def test_two_meet_by_a_code_and_send_each_other_frames(model: str) -> None:
    async with (
        quiet(model, layers="0:2", name="one") as one,
        quiet(model, layers="2:4", name="two", invite=one.invite()) as two,
    ):
        picture = await until(two, covered)
        vector = Slice(DType.F16, (1, 4), bytes(8))
        said = Ask(
            stream_id=1,
            frame_seq=0,
            space_hash32=picture.space_hash32,
            embedding=(vector,),
            context="who?",
        )
        with one.frames() as frames:
            with pytest.raises(UserError, match="taken already"):
                one.frames()
            two.send_frame("one", said)
            two.send_frame(one.snapshot().node_id, said.to_frame())
            with trio.fail_after(30):
                received = [await anext(frames), await anext(frames)]
            assert [one.name for one in received] == ["two", "two"]
            assert {one.peer for one in received} == {picture.node_id}
            assert [one.message.to_frame() for one in received] == [said.to_frame()] * 2
            assert received[0].frame == said.to_frame()
        assert [peer.name for peer in one.peers()] == ["two"]
        with pytest.raises(UserError, match="nobody here is called 'three'"):
            two.send_frame("three", said)
        ping = sync_frame({"method": "ping", "ts": 1}, stream_id=1, frame_seq=0, space_hash32=0)
        with pytest.raises(UserError, match="the nodes' own"):
            two.send_frame("one", ping)


async def test_whoever_waits_for_frames_is_told_that_the_node_has_ended(model: str) -> None:
    node = quiet(model, layers="none")
    ended = trio.Event()

    async def listen(frames: p2pnode.Frames) -> None:
        async for _ in frames:
            raise AssertionError("nobody sends anything")
        ended.set()

    async with trio.open_nursery() as nursery:
        async with node:
            nursery.start_soon(listen, node.frames())
            await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.fail_after(10):
            await ended.wait()


async def test_a_node_without_embeddings_says_so(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.interfaces.python.node.handlers", lambda node: {})
    async with quiet(model, layers="none") as node:
        with pytest.raises(UserError, match="makes no embeddings"):
            await node.embed(["hi"])


@pytest.mark.parametrize("write", [dict, render], ids=["as objects", "as JSON"])
async def test_embeddings_are_asked_for_as_on_the_socket(
    model: str, monkeypatch: pytest.MonkeyPatch, write: Callable[[dict[str, object]], object]
) -> None:
    asked: list[object] = []

    async def embed(params: object, emit: object) -> object:
        asked.append(params)
        return write({"embeddings": [[0.5]], "tokens": 1, "model": "minilm"})

    monkeypatch.setattr("p2pnode.interfaces.python.node.handlers", lambda node: {"embed": embed})
    async with quiet(model, layers="none") as node:
        made = await node.embed(("hi",), "minilm")
    assert made == p2pnode.Embeddings(((0.5,),), 1, "minilm")
    assert asked == [{"texts": ["hi"], "model": "minilm"}]


async def test_a_program_may_have_several_models_and_ask_each(model: str, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_tiny_gguf(other, seed=1)
    async with Node(
        [model, f"{other}=0:4"], mdns=False, listen="127.0.0.1", engine="numpy"
    ) as node:
        said = [
            (
                await node.generate("hi", raw=True, max_tokens=4, wait=60, model=name).read()
            ).token_ids
            for name in ("", str(other))
        ]
        assert said[0] != said[1]
