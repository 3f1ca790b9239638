"""HTTP: a POST for each message, to starlette on uvicorn with uvloop and httptools.

Raw bytes and orjson go by the standard library's client, the quickest of those tried (httpx,
aiohttp, requests); plain JSON as most would write it, with httpx and the standard library's json.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module

import numpy as np

from p2pnode.bench.think.contestant import (
    HOST,
    IDLE_SECONDS,
    PATIENCE,
    CallByCall,
    Caller,
    Codec,
    Contestant,
    F16Array,
    Facts,
    Foreign,
    Link,
    Ready,
    raw_codec,
)

_SERVER = ("uvicorn", "starlette", "uvloop", "httptools")
_PATH = "/think"


def raw_http() -> Contestant:
    """Elements as the body, one connection."""
    answer = partial(_bytes_answer, raw_codec)
    link = Link(partial(_serve, answer), partial(_by_stdlib, raw_codec))
    return Contestant("raw bytes over HTTP", raw_codec, link, _SERVER, "http-raw")


def orjson_http() -> Contestant:
    """A list of numbers, by the quickest JSON that Python has; one connection."""
    answer = partial(_bytes_answer, _orjson_codec)
    link = Link(partial(_serve, answer), partial(_by_stdlib, _orjson_codec))
    name = "JSON (orjson) over HTTP, kept alive"
    return Contestant(name, _orjson_codec, link, (*_SERVER, "orjson"), "http-orjson")


def json_http() -> Contestant:
    """A list of numbers; one httpx client, and so one connection, for all calls."""
    link = Link(partial(_serve, _json_answer), _kept_alive)
    name = "JSON over HTTP, kept alive"
    return Contestant(name, _json_codec, link, (*_SERVER, "httpx"), "http-json")


def json_http_anew() -> Contestant:
    """A list of numbers; ``httpx.post``, which makes a client, TLS context and all, each time."""
    link = Link(partial(_serve, _json_answer), _anew)
    name = "JSON over HTTP, a new client a call"
    return Contestant(name, _json_codec, link, (*_SERVER, "httpx"), "http-json-anew")


# Codecs


def _json_codec() -> Codec:
    """As httpx and starlette call json."""
    dumps = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Codec(
        lambda hidden: dumps(_numbers(hidden)).encode(), lambda data: _hidden_of(json.loads(data))
    )


def _orjson_codec() -> Codec:
    orjson = import_module("orjson")
    dumps, loads, numpy_too = orjson.dumps, orjson.loads, orjson.OPT_SERIALIZE_NUMPY
    return Codec(
        lambda hidden: dumps(hidden[0], option=numpy_too), lambda data: _hidden_of(loads(data))
    )


def _numbers(hidden: F16Array) -> list[float]:
    numbers: list[float] = hidden[0].tolist()
    return numbers


def _hidden_of(numbers: list[float]) -> F16Array:
    return np.array([numbers], np.float16)  # [1, d_model]


# The far side


def _serve(new_answer: Callable[[], Callable[[Foreign], Foreign]], ready: Ready) -> None:
    uvicorn = import_module("uvicorn")
    route = import_module("starlette.routing").Route(_PATH, new_answer(), methods=["POST"])
    app = import_module("starlette.applications").Starlette(routes=[route])
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=IDLE_SECONDS,
    )
    with socket.create_server((HOST, 0)) as listening:
        ready({"port": listening.getsockname()[1]})  # a caller waits in the backlog until it runs
        uvicorn.Server(config).run([listening])


def _bytes_answer(new_codec: Callable[[], Codec]) -> Callable[[Foreign], Foreign]:
    codec, response = new_codec(), import_module("starlette.responses").Response

    async def answer(request: Foreign) -> Foreign:
        return response(codec.encode(codec.decode(await request.body())))

    return answer


def _json_answer() -> Callable[[Foreign], Foreign]:
    response = import_module("starlette.responses").JSONResponse

    async def answer(request: Foreign) -> Foreign:
        return response(_numbers(_hidden_of(await request.json())))

    return answer


# The near side


@contextmanager
def _by_stdlib(new_codec: Callable[[], Codec], facts: Facts) -> Iterator[Caller]:
    codec = new_codec()
    client = http.client.HTTPConnection(HOST, facts["port"], timeout=PATIENCE)

    def call(hidden: F16Array) -> F16Array:
        client.request("POST", _PATH, codec.encode(hidden))
        return codec.decode(client.getresponse().read())

    try:
        yield CallByCall(call)
    finally:
        client.close()


@contextmanager
def _kept_alive(facts: Facts) -> Iterator[Caller]:
    url = _url(facts)
    with _client() as client:
        yield CallByCall(lambda hidden: _hidden_of(client.post(url, json=_numbers(hidden)).json()))


def _client() -> Foreign:
    """Return an httpx client that keeps its connection, as the server does."""
    httpx = import_module("httpx")
    return httpx.Client(timeout=PATIENCE, limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS))


@contextmanager
def _anew(facts: Facts) -> Iterator[Caller]:
    url, post = _url(facts), import_module("httpx").post
    yield CallByCall(
        lambda hidden: _hidden_of(post(url, json=_numbers(hidden), timeout=PATIENCE).json())
    )


def _url(facts: Facts) -> str:
    return f"http://{HOST}:{facts['port']}{_PATH}"
