"""A node behind a real control socket that says what a test wrote down."""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import trio

from p2pnode.errors import UserError
from p2pnode.net.control import Emit, Handler, serve_control

Body: TypeAlias = dict[str, Any]

NAME = "tiny"
TEACHES_TOOLS = "{{ tools }}<tool_call>{{ messages }}</tool_call>"
PROMPT = [1, 2, 3]


class Hang:
    """Among events: nothing more comes until the client hangs up."""


Step: TypeAlias = Body | UserError | Hang


class FakeNode:
    """Answers ``generate`` with the steps of :attr:`script`, whoever asks what.

    Attributes:
        asked: The parameters of each question, with their method.
        gone: A word for each question that was given up.
        name: That of its first model.
        others: Those of its others.
        broken: That of one whose file is.
        looks: A word for each time that its model was asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.script: Sequence[Step] = ()
        self.asked: queue.Queue[tuple[str, Body]] = queue.Queue()
        self.gone: queue.Queue[str] = queue.Queue()
        self.template = TEACHES_TOOLS
        self.name = NAME
        self.others: Sequence[str] = ()
        self.broken = ""
        self.looks: queue.Queue[str] = queue.Queue()

    def says(self, *steps: Step) -> None:
        """Set what every answer is from now on: events, then facts, an error or a hang."""
        self.script = steps

    def question(self) -> Body:
        """Return the parameters of the next question that was asked."""
        return self.asked.get(timeout=10)[1]

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "models": self._models,
            "generate": self._generate,
            "tokenise": self._tokenise,
            "embed": self._embed,
        }

    async def _models(self, params: Body, emit: Emit) -> object:
        self.looks.put("looked")
        return {"models": [self._model(name) for name in (self.name, *self.others)]}

    def _model(self, name: str) -> Body:
        roots = {self.name: "ab" * 32}
        return {
            "name": name.partition("@")[0],
            "label": name,
            "also": [f"/models/{name}.gguf"],
            "title": "Tiny",
            "architecture": "llama",
            "layers": 2,
            "d_model": 64,
            "context_length": 256,
            "vocabulary": 260,
            "parameters": 134_515_008,
            "quantisation": "Q8_0",
            "licence": "MIT",
            "bytes": 144_811_904,
            "root": roots.get(name, f"{name.partition('@')[2] or 'cd'}" * 32)[:64],
            "space_hash32": 0x1234ABCD,
            "modified": 1_700_000_000.5,
            "template": self.template,
            **({"problem": "the file is broken"} if name == self.broken else {}),
        }

    async def _generate(self, params: Body, emit: Emit) -> object:
        self.asked.put(("generate", params))
        *events, last = self.script
        try:
            for event in events:
                assert isinstance(event, dict)
                await emit(event)
            if isinstance(last, Hang):
                await trio.sleep_forever()
        except trio.Cancelled:
            self.gone.put("gone")
            raise
        if isinstance(last, UserError):
            raise last
        return last

    async def _tokenise(self, params: Body, emit: Emit) -> object:
        self.asked.put(("tokenise", params))
        return {"tokens": 7}

    async def _embed(self, params: Body, emit: Emit) -> object:
        self.asked.put(("embed", params))
        if any(isinstance(step, Hang) for step in self.script):
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.gone.put("gone")
                raise
        texts = params["texts"]
        one: object = "AACAPwAAAAA=" if params["encoding_format"] == "base64" else [1.0, 0.0]
        return {
            "model": params["model"],
            "dimensions": 2,
            "embeddings": [one] * len(texts),
            "tokens": 3 * len(texts),
            "tokens_each": [3] * len(texts),
            "truncated": [False] * len(texts),
        }


@contextmanager
def fake_node(path: Path) -> Iterator[FakeNode]:
    """Run a fake node on a control socket, in a thread of its own."""
    node, is_up, stop = FakeNode(path), threading.Event(), trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        token.append(trio.lowlevel.current_trio_token())
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, path, node.handlers())
            is_up.set()
            await stop.wait()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert is_up.wait(10)
        yield node
    finally:
        token[0].run_sync_soon(stop.set)
        thread.join(10)
        assert not thread.is_alive()


def token(text: str, position: int = 0, **more: Any) -> Body:
    return {"event": "token", "token": 5, "position": position, "text": text, **more}


def rest(text: str = "", *calls: Body) -> Body:
    return {"event": "rest", "text": text, **({"tool_calls": list(calls)} if calls else {})}


def plan(prompt: int = len(PROMPT)) -> Body:
    return {"event": "plan", "plan": {}, "prompt_tokens": prompt}


def call(index: int = 0, name: str = "weather", arguments: str = '{"city": "Wien"}') -> Body:
    return {"index": index, "name": name, "arguments": arguments}


def facts(text: str = "", tokens: int = 2, **more: Any) -> Body:
    """Return what a node says of an answer when it is over."""
    return {
        "prompt_ids": PROMPT,
        "stop_ids": [0],
        "token_ids": [5] * tokens,
        "text": text,
        "tool_calls": [],
        "finish": "eos",
        "stopped_by": None,
        "left_out": 0,
        "queued_ms": 1.0,
        "first_token_ms": 20.0,
        "total_ms": 51.0,
        **more,
    }


HELLO: tuple[Step, ...] = (plan(), token("He"), token("llo"), facts("Hello"))
CALLS: tuple[Step, ...] = (
    plan(),
    token("Let me "),
    token("see."),
    rest("", call(), call(1, "time", "{}")),
    facts("Let me see.", 9, tool_calls=[call(), call(1, "time", "{}")]),
)
