"""Two models on the same two nodes: real processes, asked at once over the API, one unloaded."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from p2pnode.engine.registry import check_engine
from p2pnode.errors import EngineError, UserError
from p2pnode.node.model_cache import pull
from p2pnode.testing.processes import LocalSwarm, local_swarm

SMALL, OTHER = "smollm2-135m", "gemma-3-270m"
PROMPTS = {SMALL: "Once upon a time", OTHER: "Monday, Tuesday, Wednesday,"}
TOKENS = 16

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalSwarm]:
    """Two nodes, each with half of the layers of both models."""
    try:
        check_engine(pull("gemma3-270m"))
    except EngineError as error:
        pytest.skip(str(error))  # a platform that ggml has no wheel for
    with local_swarm() as swarm:
        options = ("--threads", "1", "--no-mdns")
        halves = ("--model", f"{SMALL}=0:15", "--model", "gemma3-270m=0:9")
        low = swarm.start("low", *halves, "--http", "0", *options)
        low.wait_until_up()
        halves = ("--model", f"{SMALL}=15:30", "--model", "gemma3-270m=9:18")
        high = swarm.start("high", *halves, "--peer", low.address, *options)
        high.wait_until_up()
        swarm.wait_until_serving()
        until(lambda: health(swarm) == {"status": "ok"})
        yield swarm


def until(is_so: Callable[[], bool], seconds: float = 90) -> None:
    ended = threading.Event()
    for _ in range(round(seconds / 0.1)):
        if is_so():
            return
        ended.wait(0.1)
    raise AssertionError("it did not come to pass")


def health(swarm: LocalSwarm) -> Any:
    return httpx.get(f"{swarm.nodes[0].http}/health", timeout=10).json()


def complete(swarm: LocalSwarm, model: str) -> str:
    asked = {
        "model": model,
        "prompt": PROMPTS[model],
        "max_tokens": TOKENS,
        "temperature": 0,
        "wait": 60,
    }
    url = f"{swarm.nodes[0].http}/v1/completions"
    told = httpx.post(url, json=asked, timeout=120).raise_for_status().json()
    assert told["model"] == model
    return str(told["choices"][0]["text"])


class Asking(threading.Thread):
    """One long answer, as its tokens come."""

    def __init__(self, swarm: LocalSwarm, model: str) -> None:
        super().__init__(daemon=True)
        self._client = swarm.nodes[0].client(timeout=120)
        self._model = model
        self.begun = threading.Event()
        self.error: UserError | None = None
        self.tokens: list[int] = []

    def run(self) -> None:
        asked = {"prompt": PROMPTS[self._model], "raw": True, "model": self._model}
        more = {"max_tokens": 120, "ignore_eos": True, "wait": 60}
        try:
            with self._client as client:
                client.call("generate", asked | more, self._hear)
        except UserError as error:
            self.error = error

    def _hear(self, event: Any) -> None:
        if event["event"] == "token":
            self.tokens.append(event["token"])
            self.begun.set()


def test_both_answer_at_once_as_each_does_alone(pair: LocalSwarm) -> None:
    listed = httpx.get(f"{pair.nodes[0].http}/v1/models", timeout=10).json()["data"]
    assert [one["id"] for one in listed][:2] == [SMALL, OTHER]
    alone = {model: complete(pair, model) for model in PROMPTS}
    together: dict[str, str] = {}

    def ask(model: str) -> None:
        together[model] = complete(pair, model)

    threads = [threading.Thread(target=ask, args=(model,)) for model in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert alone[OTHER].startswith(" Thursday")


def test_one_is_unloaded_while_it_answers_and_the_other_goes_on(pair: LocalSwarm) -> None:
    expected = Asking(pair, SMALL)
    expected.run()
    assert expected.error is None
    before = complete(pair, OTHER)
    stays, goes = Asking(pair, SMALL), Asking(pair, OTHER)
    for one in (stays, goes):
        one.start()
        assert one.begun.wait(60)
    with pair.nodes[0].client(timeout=60) as client:
        gone = client.call("unload", {"model": OTHER, "at_once": True})
        assert gone["name"] == OTHER
        goes.join(30)
        assert f"{OTHER} was unloaded" in str(goes.error)
        stays.join(60)
        assert (stays.error, stays.tokens) == (None, expected.tokens)
        assert [one.name for one in pair.nodes[0].snapshot().models] == [SMALL]
        heard: list[Any] = []
        asked = {"path": str(pull("gemma3-270m")), "called": "gemma3-270m", "layers": [0, 9]}
        loaded = client.call("load", asked, heard.append)
    assert (loaded["name"], loaded["layers"], loaded["state"]) == (OTHER, [0, 9], "serving")
    assert [one["state"] for one in heard if one["event"] == "state"][-1] == "serving"
    assert complete(pair, OTHER) == before
    assert json.dumps(health(pair)) == '{"status": "ok"}'
