"""The server of the API against raw sockets: who is served, who is refused, and how it ends."""

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from p2pnode.bench.http.child import child_of
from p2pnode.bench.http.contestant import Contestant
from p2pnode.bench.http.hostile import attack, is_bounded, left_over
from p2pnode.bench.http.vanish import WAYS, hold_back, vanish
from p2pnode.bench.http.wire import Reply, ask, connected, get, post, reply, send_all
from p2pnode.errors import ConfigError
from p2pnode.interfaces.http import refusal
from p2pnode.interfaces.http.guard import Message, Receive, Send
from p2pnode.interfaces.http.limits import HttpLimits, HttpStatistics, Reason
from p2pnode.interfaces.http.listening import listen
from p2pnode.interfaces.http.server import HttpServer

Serving = Callable[..., AbstractContextManager[Any]]
OURS = Contestant("ours", "ours", "p2pnode.interfaces.http.server:serve_app")
PATIENCE = 10.0


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await answer(send, body)


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Watching:
    """An app that begins as it is told, then waits for the client's end and tells of it."""

    def __init__(self, begin: Callable[[Send], Awaitable[None]]) -> None:
        self._begin = begin
        self.seen: queue.Queue[str] = queue.Queue()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()  # the empty body
        self.seen.put("began")
        await self._begin(send)
        self.seen.put((await receive())["type"])

    def next(self) -> str:
        return self.seen.get(timeout=PATIENCE)


async def nothing(send: Send) -> None:
    pass


async def one_token(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})


async def streaming(scope: Message, receive: Receive, send: Send) -> None:
    """An app whose answer goes on for as long as the client is there, whatever that says."""
    await one_token(send)
    while (await receive())["type"] != "http.disconnect":
        pass


async def flood(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(4096):
        await send({"type": "http.response.body", "body": b"x" * 16384, "more_body": True})


def test_an_answer_says_when_and_not_by_what(serving: Serving) -> None:
    with serving(hello) as served:
        found = ask(served.port, "/")
        head, _, body = found.data.partition(b"\r\n\r\n")
        assert body == b"hello"
        assert b"\r\ndate: " in head
        assert b"server" not in head.lower()
        assert served.server.statistics().answered == 1


def test_a_head_that_comes_slowly_is_cut_and_told_why(serving: Serving) -> None:
    with serving(hello, HttpLimits(head_seconds=0.2)) as served:
        with connected(served.port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost")
            found = reply(client, PATIENCE)
        assert (found.status, found.is_closed) == (408, True)
        assert json.loads(found.body)["error"]["code"] == "slow_request"
        with connected(served.port) as client:  # so does the head of a second request
            client.sendall(get("/"))
            assert reply(client, PATIENCE, enough=b"hello").status == 200
            client.sendall(b"G")
            assert reply(client, PATIENCE).status == 408
        with connected(served.port) as client:
            assert reply(client, PATIENCE) == Reply(b"", 0, True)
        assert served.server.statistics().refused == {Reason.SLOW_HEAD: 2, Reason.SILENT: 1}


def test_a_body_has_more_time_than_a_head(serving: Serving) -> None:
    with serving(echo, HttpLimits(head_seconds=0.2)) as served, connected(served.port) as client:
        client.sendall(post("/", b"content-length: 2\r\n", b"a"))
        with connected(served.port) as silent:  # by when this one is cut, the time is over
            assert reply(silent, PATIENCE).is_closed
        client.sendall(b"b")
        assert reply(client, PATIENCE, enough=b"ab").body == b"ab"


def test_a_connection_stays_open_for_a_while(serving: Serving) -> None:
    with serving(hello, HttpLimits(keep_alive_seconds=1)) as served:
        with connected(served.port) as client:
            for _ in range(3):
                client.sendall(get("/"))
                assert not reply(client, PATIENCE, enough=b"hello").is_closed
            began = time.monotonic()
            assert reply(client, PATIENCE).is_closed
            assert 0.5 < time.monotonic() - began < 5
        assert served.server.statistics().refused == {}


def test_whoever_is_too_many_is_told_so_in_full(serving: Serving) -> None:
    with serving(hello, HttpLimits(connections=2)) as served, ExitStack() as stack:
        first = [stack.enter_context(connected(served.port)) for _ in range(2)]
        for client in first:
            client.sendall(get("/"))
            assert reply(client, PATIENCE, enough=b"hello").status == 200
        with connected(served.port) as third:
            send_all(third, post("/", b"content-length: 500000\r\n", b"x" * 500_000))
            found = reply(third, PATIENCE)
        assert (found.status, found.is_closed) == (503, True)
        head = found.data.partition(b"\r\n\r\n")[0].lower()
        assert b"retry-after: 2" in head
        assert b"connection: close" in head
        error = json.loads(found.body)["error"]
        assert error["type"] == "server_error"
        assert error["code"] == "overloaded"
        assert error["message"]
        first[0].close()
        _until(lambda: served.server.statistics().connections == 1)
        assert ask(served.port, "/").status == 200
        assert served.server.statistics().refused == {Reason.OVERLOADED: 1}


def test_five_hundred_beyond_the_limit_are_refused_politely() -> None:
    with child_of(OURS) as child, ExitStack() as stack:
        for _ in range(HttpLimits().connections):
            stack.enter_context(connected(child.port))
        began = time.monotonic()
        beyond = [stack.enter_context(connected(child.port)) for _ in range(500)]
        for client in beyond:
            client.sendall(get("/tiny"))
        found = [reply(client, PATIENCE) for client in beyond]
        assert {(one.status, one.is_closed) for one in found} == {(503, True)}
        assert all(json.loads(one.body)["error"]["code"] == "overloaded" for one in found)
        assert time.monotonic() - began < 8


def test_beyond_those_that_are_being_refused_nobody_is_answered(serving: Serving) -> None:
    with serving(hello, HttpLimits(connections=1, refusing=1)) as served, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(served.port))
        _until(lambda: served.server.statistics().refused.get(Reason.OVERLOADED) == 1)
        with connected(served.port) as client:
            assert reply(client, PATIENCE) == Reply(b"", 0, True)
        assert served.server.statistics().refused[Reason.DROPPED] == 1


def test_who_reads_nothing_is_cut_and_its_handler_told(serving: Serving) -> None:
    app = Watching(flood)
    with serving(app, HttpLimits(stall_seconds=0.3)) as served:
        with connected(served.port, buffer=16384) as client:
            client.sendall(get("/"))
            assert [app.next(), app.next()] == ["began", "http.disconnect"]
        assert served.server.statistics().refused == {Reason.STALLED: 1}


def test_who_asks_again_and_vanishes_is_missed(serving: Serving) -> None:
    app = Watching(nothing)
    with serving(app) as served:
        with connected(served.port) as client:
            client.sendall(get("/"))
            assert app.next() == "began"
            for _ in range(3):
                client.sendall(get("/"))
        assert app.next() == "http.disconnect"


def test_a_stream_of_starlette_ends_with_its_client(serving: Serving) -> None:
    ended = threading.Event()

    async def tokens() -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(tokens(), media_type="text/event-stream")

    with serving(Starlette(routes=[Route("/", stream)])) as served:
        with connected(served.port) as client:
            client.sendall(get("/"))
            reply(client, PATIENCE, enough=b"data: 1\n")
            assert not ended.is_set()
        assert ended.wait(PATIENCE)
        _until(lambda: served.server.statistics().connections == 0)
        assert served.server.statistics().refused == {}


def test_who_sends_much_before_its_answer_is_cut(serving: Serving) -> None:
    app = Watching(one_token)
    with serving(app) as served:
        with connected(served.port) as client:
            client.sendall(get("/"))
            assert app.next() == "began"
            send_all(client, get("/") * 20_000)
            assert reply(client, PATIENCE).is_closed
        assert app.next() == "http.disconnect"
        assert served.server.statistics().refused == {Reason.AHEAD: 1}


def test_a_body_that_goes_on_after_the_answer_is_cut(serving: Serving) -> None:
    with serving(hello, HttpLimits(rest_seconds=0.2)) as served, connected(served.port) as client:
        client.sendall(post("/", b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n"))
        assert reply(client, PATIENCE, enough=b"hello").status == 200

        def is_cut() -> bool:  # a byte now and then held the connection for ever
            with suppress(OSError):
                client.sendall(b"1\r\nx\r\n")
            return bool(served.server.statistics().connections == 0)

        _until(is_cut)
        assert served.server.statistics().refused == {Reason.ENDLESS: 1}


def test_a_body_may_end_after_the_answer(serving: Serving) -> None:
    with serving(hello) as served, connected(served.port) as client:
        for _ in range(2):
            client.sendall(post("/", b"content-length: 3000\r\n", b"x" * 1000))
            assert reply(client, PATIENCE, enough=b"hello").status == 200
            client.sendall(b"x" * 2000)
        assert served.server.statistics().refused == {}


@pytest.mark.parametrize("app", [hello, streaming])
def test_a_body_of_any_size_is_cut(serving: Serving, app: Any) -> None:
    with serving(app, HttpLimits(body_bytes=100_000)) as served, connected(served.port) as client:
        client.sendall(post("/", b"transfer-encoding: chunked\r\n"))
        with suppress(OSError):
            for _ in range(1000):
                client.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        _until(lambda: served.server.statistics().refused == {Reason.ENDLESS: 1})
        _until(lambda: served.server.statistics().connections == 0)


def test_answers_are_counted_and_the_app_can_tell(serving: Serving) -> None:
    async def tell(scope: Message, receive: Receive, send: Send) -> None:
        await answer(send, repr(dict(scope["state"]["refusals"].statuses)).encode())

    with serving(tell) as served:
        assert ask(served.port, "/").body == b"{}"
        with connected(served.port) as client:
            client.sendall(get("/").replace(b"HTTP/1.1", b"HTTP/1.2"))
            assert reply(client, PATIENCE).status == 505
        assert ask(served.port, "/").body == b"{200: 1, 505: 1}"


def test_a_large_head_is_refused_and_the_answer_arrives(serving: Serving) -> None:
    with serving(hello) as served:
        for size in (20_000, 900_000):
            with connected(served.port) as client:
                send_all(client, get("/", b"x-name: " + b"x" * size + b"\r\n"))
                assert reply(client, PATIENCE).status == 431
        assert served.server.statistics().refused == {Reason.LARGE_HEAD: 2}
        fits = b"x-name: " + b"x" * 12_000 + b"\r\n"
        with connected(served.port) as client:
            client.sendall(get("/", fits))
            assert reply(client, PATIENCE, enough=b"hello").status == 200


def test_a_handler_that_fails_is_an_error_without_its_words(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(scope: Message, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret of another user")

    with serving(fail) as served:
        found = ask(served.port, "/")
        assert found.status == 500
        assert json.loads(found.body)["error"]["code"] == "internal_error"
        assert b"secret" not in found.data
        assert served.server.statistics().refused == {Reason.FAILED: 1}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_who_is_told_that_there_is_no_room_may_say_the_rest(serving: Serving) -> None:
    with (
        serving(hello, HttpLimits(connections=1)) as served,
        connected(served.port),
        connected(served.port) as second,
    ):
        second.sendall(post("/", b"content-length: 3000\r\n"))
        assert reply(second, PATIENCE, enough=b"overloaded").status == 503
        for _ in range(3):  # were the connection closed, the second would fail
            second.sendall(b"x" * 1000)


def test_a_body_that_breaks_is_told_to_both_ends(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal, "_LINGER_SECONDS", 1000.0)
    seen: queue.Queue[str] = queue.Queue()

    async def watch(scope: Message, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.put(message["body"].decode())
        seen.put("gone")

    with serving(watch) as served, connected(served.port) as client:
        client.sendall(post("/", b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n"))
        assert seen.get(timeout=PATIENCE) == "x"
        client.sendall(b"no chunk\r\n")
        assert seen.get(timeout=PATIENCE) == "gone"
        assert reply(client, PATIENCE, enough=b"malformed_request").status == 400


def test_who_hangs_up_amid_a_body_is_no_failure_of_ours(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async def read(scope: Message, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()

    with serving(read) as served:
        with connected(served.port) as client:
            client.sendall(post("/", b"content-length: 3\r\nexpect: 100-continue\r\n", b"x"))
            assert client.recv(100).startswith(b"HTTP/1.1 100")  # so the handler reads
        _until(lambda: served.server.statistics().handlers == 0)
        assert served.server.statistics().refused == {}
    assert not caplog.records


def test_no_second_answer_stands_amid_the_first(serving: Serving) -> None:
    async def early(scope: Message, receive: Receive, send: Send) -> None:
        await one_token(send)
        while (await receive())["type"] != "http.disconnect":
            pass

    with serving(early) as served, connected(served.port) as client:
        client.sendall(post("/", b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n"))
        reply(client, PATIENCE, enough=b"data: 1\n")
        client.sendall(b"no chunk\r\n")
        rest = reply(client, PATIENCE)
        assert rest.is_closed
        assert b"HTTP" not in rest.data


def test_at_the_end_the_idle_are_let_go_and_streams_cut(serving: Serving) -> None:
    app = Watching(one_token)
    with serving(app, HttpLimits(grace_seconds=0.3)) as served, ExitStack() as stack:
        idle, asking = (stack.enter_context(connected(served.port)) for _ in range(2))
        asking.sendall(get("/"))
        assert b"data: 1" in reply(asking, PATIENCE, enough=b"data: 1\n").data
        began = time.monotonic()
        served.stop()
        assert time.monotonic() - began < 2
        assert reply(idle, PATIENCE).is_closed
        rest = reply(asking, PATIENCE)
        assert rest.is_closed
        assert not rest.data.endswith(b"0\r\n\r\n")
        statistics = served.server.statistics()
        assert statistics == HttpStatistics(0, 0, 0, {Reason.STOPPING: 1})
        with pytest.raises(OSError, match=r"refused|reset"):
            connected(served.port)


def test_who_has_no_answer_yet_is_told_of_the_end(serving: Serving) -> None:
    app = Watching(nothing)
    with serving(app, HttpLimits(grace_seconds=0.2)) as served, connected(served.port) as client:
        client.sendall(get("/"))
        assert app.next() == "began"
        served.stop()
        found = reply(client, PATIENCE)
        assert found.status == 503
        assert json.loads(found.body)["error"]["code"] == "stopping"


def test_an_answer_that_is_about_to_end_ends(serving: Serving) -> None:
    stopping: list[asyncio.Event] = []

    async def last_words(scope: Message, receive: Receive, send: Send) -> None:
        await one_token(send)
        await stopping[0].wait()
        await send({"type": "http.response.body", "body": b"data: done\n\n"})

    with serving(last_words) as served, connected(served.port) as client:
        stopping.append(served.server.stopping)
        client.sendall(get("/"))
        reply(client, PATIENCE, enough=b"data: 1\n")
        served.stop()
        assert reply(client, PATIENCE).data.endswith(b"data: done\n\n\r\n0\r\n\r\n")


def test_the_idle_do_not_wait_for_others_to_end(serving: Serving) -> None:
    may_end = threading.Event()

    async def slow(scope: Message, receive: Receive, send: Send) -> None:
        await one_token(send)
        await asyncio.to_thread(may_end.wait, PATIENCE)

    limits = HttpLimits(grace_seconds=PATIENCE)
    with serving(slow, limits) as served, ExitStack() as stack:
        idle, asking = (stack.enter_context(connected(served.port)) for _ in range(2))
        asking.sendall(get("/"))
        reply(asking, PATIENCE, enough=b"data: 1\n")
        served.begin_to_stop()
        assert reply(idle, PATIENCE / 2).is_closed
        assert served.server.statistics().handlers == 1
        may_end.set()


def test_a_handler_that_will_not_end_does_not_hold_up_the_end() -> None:
    """``serve`` returns with all sockets closed: its caller's loop may go on."""

    async def stubborn(scope: Message, receive: Receive, send: Send) -> None:
        await one_token(send)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await may_end.wait()

    async def main() -> Reply:
        serving = asyncio.create_task(server.serve())
        client = await asyncio.to_thread(connected, listener.getsockname()[1])
        with client:
            client.sendall(get("/"))
            await asyncio.to_thread(reply, client, PATIENCE, enough=b"data: 1\n")
            server.stop()
            await asyncio.wait_for(serving, PATIENCE)
            found = await asyncio.to_thread(reply, client, PATIENCE)
        may_end.set()
        return found

    may_end = asyncio.Event()
    listener = listen("127.0.0.1", 0)
    server = HttpServer(stubborn, listener, HttpLimits(grace_seconds=0.1))
    assert asyncio.run(main()).is_closed


def test_nonsense_is_refused_and_whoever_vanishes_is_missed() -> None:
    with child_of(OURS) as child:
        found = attack(child)
        assert found["unsound"] == []
        assert found["traced"] == []
        assert is_bounded(child)
        ways = {way.name: vanish(child, way)["ms"] for way in WAYS}
        assert {name: ms for name, ms in ways.items() if ms is None or ms > 1000} == {}
        held = hold_back(child)
        assert held["sent_mib"] < 16
        assert held["grown_mib"] < 4
        assert left_over(child) == 0


PROGRAM = """
import sys
from p2pnode.interfaces.http.listening import listen
from p2pnode.interfaces.http.server import HttpServer, run

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    message = {"type": ""}
    while message["type"] != "http.disconnect":
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        message = await receive()

listener = listen("127.0.0.1", 0)
run(HttpServer(app, listener), lambda: print(listener.getsockname()[1], flush=True))
"""


@pytest.fixture(name="process")
def _process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals to another process are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(process: subprocess.Popen[bytes], number: int) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    port = int(process.stdout.readline())
    with connected(port) as client, connected(port):
        client.sendall(get("/"))
        reply(client, PATIENCE, enough=b"x\r\n")
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 3
        assert reply(client, PATIENCE).is_closed
    assert process.stderr.read() == b""


def test_nothing_hostile_makes_it_write_a_word(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    port = int(process.stdout.readline())
    for data in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/9.9\r\nhost: a\r\n\r\n", b"\x00" * 100_000):
        with connected(port) as client:
            send_all(client, data)
            assert reply(client, PATIENCE).status >= 400
    with connected(port) as client:
        client.sendall(post("/", b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n"))
        reply(client, PATIENCE, enough=b"x\r\n")
        client.sendall(b"no chunk\r\n")
        assert reply(client, PATIENCE).is_closed
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"head_bytes": -1},
        {"stall_seconds": 0.0},
        {"head_seconds": 1e9},
        {"body_bytes": 0},
    ],
)
def test_impossible_limits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HttpLimits(**wrong)


def _until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        with socket.socket() as idle:  # a turn for the other thread
            idle.settimeout(0.01)
