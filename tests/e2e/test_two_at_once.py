"""Two answers at once, and a stage of both that is killed: real processes, and a real kill."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TOKENS = 160
KILL_AT = 20  # tokens of the first answer
PROMPTS = ("The sky is", "Somewhere on the sea there was a light, and")


@pytest.fixture(name="swarm")
def _swarm(tmp_path: Path) -> Iterator[LocalSwarm]:
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model, context_length=512)
    held = {"one": "0:1", "two": "1:3", "three": "3:4", "spare": "1:3"}
    with local_swarm() as swarm:
        for name, layers in held.items():
            swarm.start(name, "--model", str(model), "--layers", layers, "--threads", "1")
        for node in swarm.nodes:
            node.wait_until_up()
        swarm.wait_until_serving()
        yield swarm


def ask(node: NodeProcess, prompt: str, victim: NodeProcess | None = None) -> dict[str, Any]:
    shown = 0

    def hear(event: dict[str, Any]) -> None:
        nonlocal shown
        shown += event["event"] == "token"
        if victim is not None and shown == KILL_AT and not victim.has_ended():
            victim.kill()

    asked = {"prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "prefer": ["two"]}
    with node.client(timeout=60.0) as client:
        facts: dict[str, Any] = client.call("generate", asked, hear)
    return facts


def test_a_kill_changes_no_token_of_two_that_are_answered_at_once(swarm: LocalSwarm) -> None:
    asker, victim, *_ = swarm.nodes
    alone = [ask(asker, prompt)["token_ids"] for prompt in PROMPTS]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(ask, [asker] * 2, PROMPTS, [victim, None]))
    assert victim.has_ended()
    assert [facts["token_ids"] for facts in answers] == alone
    assert all(facts["repaired"] for facts in answers)
    assert [stage["name"] for stage in answers[0]["repaired"][-1]["instead"]] == ["spare"]
