"""A second model of another architecture, Gemma 3 270M: two processes go on with a text as one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pnode.engine.registry import EngineOptions, check_engine, load_engine
from p2pnode.engine.solo import answer_alone
from p2pnode.errors import EngineError, UserError
from p2pnode.node.model_cache import cache_dir, pull
from p2pnode.node.models import open_model
from p2pnode.testing.processes import LocalSwarm, local_swarm

MODEL = "gemma3-270m"
PROMPT = "Monday, Tuesday, Wednesday,"
TOKENS = 12

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def path() -> Path:
    found = pull(MODEL)
    try:
        check_engine(found)
    except EngineError as error:
        pytest.skip(str(error))  # a platform that ggml has no wheel for
    return found


@pytest.fixture(scope="module")
def pair(path: Path) -> Iterator[LocalSwarm]:
    """Two nodes, each with half of the layers, and with both kinds of layer in its half."""
    with local_swarm() as swarm:
        options = ("--model", MODEL, "--threads", "1", "--no-mdns")
        low = swarm.start("low", "--layers", "0:9", *options)
        low.wait_until_up()
        high = swarm.start("high", "--layers", "9:18", "--peer", low.address, *options)
        high.wait_until_up()
        swarm.wait_until_serving()
        yield swarm


def ask(swarm: LocalSwarm, **params: Any) -> dict[str, Any]:
    with swarm.nodes[0].client(timeout=60) as client:
        answer: dict[str, Any] = client.call("generate", {"max_tokens": TOKENS, **params})
    return answer


def alone(path: Path, prompt_ids: list[int]) -> list[int]:
    known = open_model(path)
    options = EngineOptions(threads=1, cache=cache_dir())
    engine = load_engine(path, range(known.info.n_layers), options, tree=known.tree)
    try:
        return list(answer_alone(engine, prompt_ids, TOKENS).token_ids)
    finally:
        engine.shut()


def test_two_halves_go_on_with_a_text_as_one_engine_does(pair: LocalSwarm, path: Path) -> None:
    answer = ask(pair, prompt=PROMPT, raw=True)
    assert [stage["name"] for stage in answer["plan"]["stages"]] == ["low", "high"]
    assert answer["text"].startswith(" Thursday, Friday, Saturday, Sunday")
    assert answer["token_ids"] == alone(path, answer["prompt_ids"])


def test_each_says_what_it_computes_with(pair: LocalSwarm) -> None:
    for node, layers in zip(pair.nodes, ("[0, 9)", "[9, 18)"), strict=True):
        (line,) = [one for one in node.snapshot().log if one.startswith("serves layers")]
        assert line.startswith(f"serves layers {layers} of gemma-3-270m with ggml ")
        assert " on cpu x1 " in line


def test_a_model_that_was_not_trained_to_chat_says_so(pair: LocalSwarm) -> None:
    with pytest.raises(UserError, match="this model has no chat template") as caught:
        ask(pair, prompt="Hello")
    assert "p2pnode generate --raw" in caught.value.hint
