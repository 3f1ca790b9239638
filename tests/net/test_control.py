"""The control socket: a real server on trio, a real synchronous client in a thread."""

import json
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError, UserError
from p2pnode.net.control import ControlClient, Emit, serve_control
from p2pnode.net.control_lines import (
    CHUNK,
    MAX_LINE,
    MAX_SOCKET_PATH,
    LineBuffer,
    control_path,
    encode_line,
    encode_request,
    encode_result,
    find_control_path,
    parse_request_untrusted,
    render,
)

T = TypeVar("T")


class Methods:
    """What the node under test serves."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.cancelled = trio.Event()

    async def add(self, params: dict[str, Any], emit: Emit) -> object:
        return params["a"] + params["b"]

    async def count(self, params: dict[str, Any], emit: Emit) -> object:
        for number in range(params["to"]):
            await emit({"number": number})
        return "done"

    async def refuse(self, params: dict[str, Any], emit: Emit) -> object:
        raise UserError("no model is loaded", hint="p2pnode models pull")

    async def unwritable(self, params: dict[str, Any], emit: Emit) -> object:
        return {1, 2}

    async def hang(self, params: dict[str, Any], emit: Emit) -> object:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def chatter(self, params: dict[str, Any], emit: Emit) -> object:
        self.started.set()
        try:
            while True:
                await emit({"noise": "x" * 10_000})
        finally:
            self.cancelled.set()

    def table(self) -> dict[str, Any]:
        names = ("add", "count", "refuse", "unwritable", "hang", "chatter")
        return {name: getattr(self, name) for name in names}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Methods]:
    methods = Methods()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, methods.table())
        yield methods
        nursery.cancel_scope.cancel()


async def asked(path: Path, question: Callable[[ControlClient], T]) -> T:
    """Put a question from a thread, as a face does."""

    def ask() -> T:
        with ControlClient(path, timeout=5) as client:
            return question(client)

    return await trio.to_thread.run_sync(ask)


async def sent_raw(path: Path, data: bytes, answers: int = 1) -> list[Any]:
    """Write raw bytes and return the first answers."""
    async with await trio.open_unix_socket(str(path)) as stream:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                buffer, lines = LineBuffer(), list[bytes]()
                while len(lines) < answers and (chunk := await stream.receive_some(CHUNK)):
                    lines += buffer.feed_untrusted(chunk)
                nursery.cancel_scope.cancel()
    return [json.loads(line) for line in lines]


def is_socket(path: Path) -> bool:
    return path.is_socket()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.sock"


async def test_a_call_returns_its_result(path: Path) -> None:
    async with serving(path):
        assert await asked(path, lambda client: client.call("add", {"a": 1, "b": 2})) == 3


async def test_events_come_in_order_before_the_result(path: Path) -> None:
    seen: list[int] = []

    def question(client: ControlClient) -> object:
        return client.call("count", {"to": 100}, lambda event: seen.append(event["number"]))

    async with serving(path):
        assert await asked(path, question) == "done"
    assert seen == list(range(100))


async def test_a_refusal_keeps_its_hint(path: Path) -> None:
    async with serving(path):
        with pytest.raises(UserError, match="no model is loaded") as caught:
            await asked(path, lambda client: client.call("refuse"))
    assert caught.value.hint == "p2pnode models pull"


@pytest.mark.parametrize(("method", "params"), [("add", {"a": 1}), ("unwritable", {})])
async def test_a_handler_that_fails_ends_its_request_alone(
    path: Path, method: str, params: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(path):
        with caplog.at_level(logging.CRITICAL), pytest.raises(UserError, match="failed inside"):
            await asked(path, lambda client: client.call(method, params))
        assert await asked(path, lambda client: client.call("add", {"a": 1, "b": 2})) == 3


async def test_an_unknown_method_is_an_error(path: Path) -> None:
    async with serving(path):
        with pytest.raises(UserError, match="no such method: dance"):
            await asked(path, lambda client: client.call("dance"))


@pytest.mark.parametrize("method", ["hang", "chatter"])
async def test_a_client_that_hangs_up_cancels_its_requests(path: Path, method: str) -> None:
    async with serving(path) as methods:
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(encode_line({"id": 1, "method": method}))
        with trio.fail_after(5):
            await methods.started.wait()
            await stream.aclose()
            await methods.cancelled.wait()


async def test_a_node_that_stops_is_a_clear_error(path: Path) -> None:
    async with trio.open_nursery() as nursery, serving(path) as methods:

        async def ask() -> None:
            with pytest.raises(UserError, match="stopped"):
                await asked(path, lambda client: client.call("hang"))

        nursery.start_soon(ask)
        await methods.started.wait()
    assert not is_socket(path)


async def test_a_silent_node_is_a_clear_error(path: Path) -> None:
    def ask() -> None:
        with ControlClient(path, timeout=0.01) as client:
            client.call("hang")

    async with serving(path):
        with pytest.raises(UserError, match="did not answer"):
            await trio.to_thread.run_sync(ask)


def test_no_node_is_a_clear_error(path: Path) -> None:
    with pytest.raises(UserError, match="no node is running") as caught:
        ControlClient(path)
    assert "p2pnode up" in caught.value.hint


async def test_the_socket_is_for_its_owner_alone(path: Path) -> None:
    async with serving(path):
        assert mode(path) == 0o600


async def test_a_dead_node_s_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path):
        assert await asked(path, lambda client: client.call("add", {"a": 1, "b": 1})) == 2


async def test_a_live_node_s_socket_is_not_replaced(path: Path) -> None:
    async with serving(path):
        with pytest.raises(UserError, match="another node"):
            await serve_control(path, {})
        assert await asked(path, lambda client: client.call("add", {"a": 1, "b": 1})) == 2


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(UserError):
        trio.run(serve_control, path, {})
    assert path.read_text() == "precious"


async def test_a_path_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the control socket"):
        await serve_control(tmp_path / ("x" * 200), {})


# Hostile lines


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"null",
        b"{}",
        b'{"id":true,"method":"add"}',
        b'{"id":1e3,"method":"add"}',
        b'{"id":99999999999999999999,"method":"add"}',
        b'{"id":' + b"9" * 5000 + b',"method":"add"}',
        b'{"id":1,"method":5}',
        b'{"id":1,"method":"add","params":[]}',
    ],
)
async def test_a_hostile_line_is_answered_and_the_connection_lives(path: Path, line: bytes) -> None:
    good = encode_line({"id": 7, "method": "add", "params": {"a": 2, "b": 2}})
    async with serving(path):
        first, second = await sent_raw(path, line + b"\n" + good, answers=2)
    assert first["id"] is None
    assert first["error"]["message"]
    assert second == {"id": 7, "result": 4}


async def test_a_line_without_end_closes_the_connection(path: Path) -> None:
    async with serving(path):
        answers = await sent_raw(path, b"x" * (MAX_LINE + 2 * CHUNK))
        assert [answer["error"]["message"] for answer in answers] == ["a line is too long"]


def test_a_request_that_no_node_reads_is_refused_before_it_is_sent() -> None:
    most = MAX_LINE - len(encode_request(1, "add", {"a": ""}))
    assert len(encode_request(1, "add", {"a": "x" * most})) == MAX_LINE
    with pytest.raises(UserError, match=r"takes 4\.0 MiB") as caught:
        encode_request(1, "add", {"a": "x" * (most + 1)})
    assert caught.value.hint


async def test_a_surrogate_comes_back_as_it_went(path: Path) -> None:
    body = b'{"id":1,"method":"add","params":{"a":"\\ud800","b":"!"}}\n'
    async with serving(path):
        (answer,) = await sent_raw(path, body)
    assert answer == {"id": 1, "result": "\ud800!"}


async def test_requests_at_once_are_bounded(path: Path) -> None:
    lines = [encode_line({"id": number, "method": "hang"}) for number in range(70)]
    async with serving(path):
        answers = await sent_raw(path, b"".join(lines), answers=6)
    assert {answer["error"]["message"] for answer in answers} == {"too many requests at once"}


@given(st.binary() | st.text().map(str.encode))
def test_any_line_parses_or_is_the_client_s_fault(line: bytes) -> None:
    with suppress(RemoteProtocolError):
        parse_request_untrusted(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["id", "method", "params", "x"]), json_values))
def test_any_object_parses_or_is_the_client_s_fault(body: dict[str, Any]) -> None:
    try:
        request = parse_request_untrusted(encode_line(body))
    except RemoteProtocolError:
        return
    assert request.id == body["id"]
    assert request.method == body["method"]


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.integers(1, 7))
def test_lines_survive_being_cut_anywhere(lines: list[bytes], size: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer, found = LineBuffer(), list[bytes]()
    for start in range(0, len(stream), size):
        found += buffer.feed_untrusted(stream[start : start + size])
    assert found == lines


# Where the socket lies


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of a short path, as real ones have: a socket's must stay below 100."""
    with tempfile.TemporaryDirectory(prefix="p2p-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def test_the_runtime_directory_is_private(runtime: Path, tmp_path: Path) -> None:
    path = control_path(tmp_path / "state")
    assert path.parent == runtime / "p2pnode"
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_each_state_directory_has_a_path_of_its_own(runtime: Path, tmp_path: Path) -> None:
    assert control_path(tmp_path / "a") != control_path(tmp_path / "b")
    assert control_path(tmp_path / "a") == control_path(tmp_path / "b" / ".." / "a")


def test_a_long_runtime_directory_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert len(os.fsencode(control_path(tmp_path / "state"))) <= MAX_SOCKET_PATH


def test_a_directory_that_others_can_enter_is_refused(runtime: Path, tmp_path: Path) -> None:
    (runtime / "p2pnode").mkdir(mode=0o755)
    with pytest.raises(UserError, match="not yours alone"):
        control_path(tmp_path / "state")


def test_a_link_in_the_place_of_the_directory_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (runtime / "p2pnode").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not yours alone"):
        control_path(tmp_path / "state")


def test_a_client_looks_wherever_the_node_may_be(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(runtime))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    path = control_path(tmp_path / "state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(path))
        assert find_control_path(tmp_path / "state") == path


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_a_rendered_result_makes_the_same_line(result: object) -> None:
    assert encode_result(7, render(result)) == encode_result(7, result)
    assert json.loads(encode_result(7, render(result))) == {"id": 7, "result": result}
