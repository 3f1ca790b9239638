"""What the HTTP API costs above ``generate``, and what it bears: many streams, vanished clients.

Three real nodes with a third of the layers each; the API is a process beside the first.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from p2pnode.bench.chain import start_three
from p2pnode.bench.figures import spread
from p2pnode.testing.processes import NodeProcess, local_swarm

if TYPE_CHECKING:
    from p2pnode.net.control_client import ControlClient

_PROMPT = "Tell me a story about a lighthouse."
_GLANCE = 0.01
_PATIENCE = 10.0  # seconds for memory to be freed
_STREAM_LIMIT = 900.0
_FIRST_ALONE = 3  # answers of one token a round: the first token's time varies most
_LATENESS_EVERY = 20.0  # seconds; the figure covers a minute, and each look costs the loop


@dataclass(slots=True)
class _Times:
    """Seconds to the first token, and from each token to the next."""

    first: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    def take(self, began: float, came: list[float]) -> None:
        self.first.append(came[0] - began)
        self.steps += [after - before for before, after in itertools.pairwise(came)]


def measure(
    path: Path,
    *,
    rounds: int,
    tokens: int,
    streams: int,
    stream_tokens: int,
    vanish: int,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    """Measure all of it.

    Args:
        path: The model.
        rounds: Of ``generate`` and the API in turns.
        tokens: Of each answer in them.
        streams: Answers at once; 0 leaves that out.
        stream_tokens: Of each of them.
        vanish: Clients that hang up in mid-answer.
        tell: Hears which part is done.
    """
    with local_swarm() as swarm:
        node = start_three(swarm, path, first_options=("--http", "0"))
        lengths = [tokens] * (rounds + 1) + [1] * (_FIRST_ALONE * rounds)
        parts = len(lengths) + vanish + 1

        def part(number: int) -> None:
            tell(number / parts)

        control, http = _in_turns(node, lengths, part)
        freed = [_vanish(node, tokens) for _ in range(vanish)]
        part(len(lengths) + vanish)
        crowd = _crowd(node, streams, stream_tokens) if streams else {}
        tell(1)
    return {
        "rounds": rounds,
        "tokens": tokens,
        "first_token_ms": {
            "generate": spread([1e3 * one for one in control.first]),
            "http": spread([1e3 * one for one in http.first]),
            "added_p50": round(1e3 * (median(http.first) - median(control.first)), 3),
        },
        "step_ms": {
            "generate": spread([1e3 * one for one in control.steps]),
            "http": spread([1e3 * one for one in http.steps]),
            "added_p50": round(1e3 * (median(http.steps) - median(control.steps)), 3),
        },
        **({"memory_freed_ms": spread([1e3 * one for one in freed])} if freed else {}),
        **crowd,
    }


def _in_turns(
    node: NodeProcess, lengths: Sequence[int], part: Callable[[int], None]
) -> tuple[_Times, _Times]:
    """Ask for answers of these lengths by both ways, in turns; the first of each is not counted."""
    control, http = _Times(), _Times()
    with node.client(timeout=None) as client:
        model = client.call("model")["name"]
        ways: list[tuple[Callable[[int], list[float]], _Times]] = [
            (partial(_by_control, client), control),
            (partial(_by_http, node, model), http),
        ]
        for number, length in enumerate(lengths):
            for ask, times in ways if number % 2 else reversed(ways):
                began = time.monotonic()
                came = ask(length)
                if number:
                    times.take(began, came)
            part(number)
    return control, http


def _by_control(client: ControlClient, tokens: int) -> list[float]:
    """Return when each token came."""
    came: list[float] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "token":
            came.append(time.monotonic())

    asked = {"messages": _messages(), "max_tokens": tokens, "ignore_eos": True, "details": True}
    client.call("generate", asked, hear)
    return came


def _by_http(node: NodeProcess, model: str, tokens: int) -> list[float]:
    with _stream(node, model, tokens) as response:
        return [time.monotonic() for _ in _pieces(response)]


@contextmanager
def _stream(
    node: NodeProcess, model: str, tokens: int, prompt: str = _PROMPT
) -> Iterator[HTTPResponse]:
    """Begin a stream of chat completions, in a connection of its own."""
    address = urlsplit(node.http)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=_STREAM_LIMIT)
    with closing(connection):
        asked = {
            "model": model,
            "messages": _messages(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
        body = json.dumps(asked).encode()
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        yield connection.getresponse()


def _pieces(response: HTTPResponse) -> Iterator[str]:
    """Yield what each chunk of a stream says.

    Raises:
        ValueError: The stream ends with an error, or without its end.
    """
    if response.status != 200:
        raise ValueError(f"status {response.status}: {response.read(300).decode()}")
    for line in response:
        if line.startswith(b"data: [DONE]"):
            return
        if line.startswith(b"data: "):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise ValueError(chunk["error"]["message"])
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    yield text
    raise ValueError("the stream has no end")


def _messages(prompt: str = _PROMPT) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _vanish(node: NodeProcess, tokens: int) -> float:
    """Hang up in mid-answer; return the seconds until no stage holds memory for it."""
    with node.client() as client:
        model = client.call("model")["name"]
    with _stream(node, model, max(tokens, 256)) as response:
        for number, _ in enumerate(_pieces(response)):
            if number == 4:
                break
    gone = time.monotonic()  # to leave the stream hangs up
    while time.monotonic() - gone < _PATIENCE:
        if not node.snapshot().stages:
            return time.monotonic() - gone
        time.sleep(_GLANCE)
    raise TimeoutError(f"memory was held for more than {_PATIENCE:.0f} s")


def _crowd(node: NodeProcess, streams: int, tokens: int) -> dict[str, Any]:
    """Ask for many answers at once; return what became of them, and of the node's timers."""
    with node.client() as client:
        model = client.call("model")["name"]
    before = node.snapshot().loop_late_ms[1]
    outcomes: Counter[str] = Counter()
    firsts, counts = list[float](), list[int]()

    def one(number: int) -> None:
        began, first, count = time.monotonic(), None, 0
        try:
            prompt = f"{_PROMPT} It has the number {number}."
            with _stream(node, model, tokens, prompt) as response:
                for _ in _pieces(response):
                    first = time.monotonic() - began if first is None else first
                    count += 1
        except (OSError, ValueError, HTTPException) as error:
            outcomes[f"{type(error).__name__}: {error}"] += 1
            return
        outcomes["complete"] += 1
        firsts.append(first or 0.0)
        counts.append(count)

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    late, looked = 0.0, began
    while any(thread.is_alive() for thread in threads):
        time.sleep(_GLANCE)
        if time.monotonic() > looked + _LATENESS_EVERY:
            late, looked = max(late, node.snapshot().loop_late_ms[1]), time.monotonic()
    seconds = time.monotonic() - began
    late = max(late, node.snapshot().loop_late_ms[1])
    return {
        "streams": streams,
        "streams_outcomes": dict(outcomes),
        "streams_seconds": round(seconds, 1),
        "streams_tokens_per_s": round(sum(counts) / seconds, 1),
        "streams_first_token_s": spread(firsts) if firsts else {},
        "loop_late_p99_ms": {"before": round(before, 2), "meanwhile": round(late, 2)},
    }
