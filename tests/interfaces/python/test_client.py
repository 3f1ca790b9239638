"""The client of programs without a loop, against a control socket that says what it is told to."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pnode import Client, Token
from p2pnode.errors import BusyError, GenerationError, LengthError, ModelError, UserError
from p2pnode.net.control import Emit, Handler, control_path, serve_control

FACTS = {"text": "hi", "finish": "stop", "token_ids": [7], "prompt_ids": [1, 2]}


class Served:
    """What a node would serve.

    Attributes:
        asked: Every question's parameters.
        cancelled: Set when a question was cancelled.
        begun: Set when one has begun that never ends.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.cancelled = threading.Event()
        self.begun = threading.Event()

    async def generate(self, params: dict[str, Any], emit: Emit) -> object:
        self.asked.append(params)
        match params.get("prompt"):
            case "length":
                raise LengthError("too long", hint="shorten it")
            case "busy":
                raise BusyError("too many")
            case "break":
                await emit({"event": "token", "token": 7, "text": "h"})
                raise GenerationError("nobody is left")
            case "endless":
                return await self._never_end(emit)
        await emit({"event": "of a later version"})
        await emit({"event": "token", "token": 7, "position": 2, "text": "hi"})
        return FACTS

    async def _never_end(self, emit: Emit) -> object:
        await emit({"event": "token", "token": 7, "text": "h"})
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def invite(self, params: dict[str, Any], emit: Emit) -> object:
        return {"code": "p2p1-abc", "addresses": []}

    async def connect(self, params: dict[str, Any], emit: Emit) -> object:
        return {"calling": [params["address"]]}

    async def embed(self, params: dict[str, Any], emit: Emit) -> object:
        self.asked.append(params)
        return {"embeddings": [[1.0, 0.0] for _ in params["texts"]], "tokens": 4}

    def table(self) -> Mapping[str, Handler]:
        names = ("generate", "invite", "connect", "embed")
        return {name: getattr(self, name) for name in names}


@contextmanager
def serving(state: Path, table: Mapping[str, Handler]) -> Iterator[None]:
    """Serve in a thread of its own, as a node is another process to its client."""
    up, token = threading.Event(), list[trio.lowlevel.TrioToken]()
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_control, control_path(state), table)
                token.append(trio.lowlevel.current_trio_token())
                up.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert up.wait(10)
    try:
        yield
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(name="state")
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "state"


@pytest.fixture(name="served")
def _served(state: Path) -> Iterator[Served]:
    served = Served()
    with serving(state, served.table()):
        yield served


def test_events_come_typed_and_the_result_at_the_end(state: Path, served: Served) -> None:
    answer = Client(state).generate("hi", seed=5)
    with pytest.raises(UserError, match="not over"):
        _ = answer.result
    assert list(answer) == [Token(text="hi", token=7, position=2)]
    assert (answer.result.text, answer.result.finish) == ("hi", "stop")
    assert list(answer) == []
    assert served.asked == [{"prompt": "hi", "seed": 5}]


def test_read_returns_the_result(state: Path, served: Served) -> None:
    message = {"role": "user", "content": "hi"}
    assert Client(state).chat([message], max_tokens=3).read().token_ids == (7,)
    assert served.asked == [{"messages": [message], "max_tokens": 3}]


@pytest.mark.parametrize(
    ("prompt", "kind", "words"),
    [
        ("length", LengthError, "too long"),
        ("busy", BusyError, "too many"),
        ("break", GenerationError, "nobody is left"),
    ],
)
def test_an_error_is_of_the_class_that_the_node_raised(
    state: Path, served: Served, prompt: str, kind: type[UserError], words: str
) -> None:
    answer = Client(state).generate(prompt)
    with pytest.raises(kind, match=words):
        answer.read()
    with pytest.raises(UserError, match="failed already"):
        answer.read()
    with pytest.raises(UserError, match="not over"):
        _ = answer.result


def test_leaving_the_block_cancels_the_answer(state: Path, served: Served) -> None:
    with Client(state).generate("endless") as answer:
        assert next(answer).text == "h"
    assert served.cancelled.wait(10)
    with pytest.raises(UserError, match="closed before its end"):
        next(answer)


def test_dropping_an_answer_cancels_it(state: Path, served: Served) -> None:
    for event in Client(state).generate("endless"):
        assert event.text == "h"
        break
    assert served.cancelled.wait(10)


def test_closing_the_client_cancels_its_answers_and_wakes_their_readers(
    state: Path, served: Served
) -> None:
    client, problems = Client(state), list[Exception]()

    def read(answer: Callable[[], object]) -> None:
        try:
            answer()
        except UserError as error:
            problems.append(error)

    with client:
        answer = client.generate("endless")
        thread = threading.Thread(target=read, args=(answer.read,))
        thread.start()
        assert served.begun.wait(10)
    thread.join(10)
    assert [str(problem) for problem in problems] == ["the answer was closed before its end"]
    assert served.cancelled.wait(10)


def test_threads_may_share_a_client(state: Path, served: Served) -> None:
    client, texts = Client(state), list[str]()
    threads = [
        threading.Thread(target=lambda: texts.append(client.generate("hi").read().text))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert texts == ["hi"] * 8


def test_what_a_node_says_of_itself_and_its_swarm(state: Path, served: Served) -> None:
    client = Client(str(state))
    assert client.invite() == "p2p1-abc"
    assert client.connect("10.0.0.1:5") == ("10.0.0.1:5",)
    assert client.embed(["a", "b"]).vectors == ((1.0, 0.0), (1.0, 0.0))
    client.embed(("a",), "minilm")
    assert served.asked == [{"texts": ["a", "b"]}, {"texts": ["a"], "model": "minilm"}]


def test_a_node_without_embeddings_is_said_to_be_of_an_older_version(state: Path) -> None:
    with serving(state, {}), pytest.raises(UserError, match="makes no embeddings"):
        Client(state).embed(["a"])


def test_where_no_node_runs_it_says_where_it_looked(state: Path) -> None:
    with pytest.raises(UserError, match=f"no node runs on {state}") as caught:
        Client(state).generate("hi")
    assert caught.value.hint == f"start one: p2pnode up --state {state}"


def test_the_errors_that_a_program_may_catch_are_of_one_tree() -> None:
    assert all(issubclass(kind, UserError) for kind in (LengthError, BusyError, ModelError))
