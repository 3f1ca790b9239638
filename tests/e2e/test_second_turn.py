"""A chat over real processes: each turn begins where the last ended, and a kill is no matter."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TOKENS = 40
LETTERS = {"type": "string", "pattern": "^[a-z ]{200}$"}  # the tiny model writes no text else
QUESTIONS = ("Somewhere on the sea there was a light. What was it? " * 4, "And then?", "And so?")


@pytest.fixture(name="swarm")
def _swarm(tmp_path: Path) -> Iterator[LocalSwarm]:
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model, context_length=1024)
    held = {"one": "0:1", "two": "1:3", "three": "3:4", "spare": "1:3"}
    with local_swarm() as swarm:
        for name, layers in held.items():
            swarm.start(name, "--model", str(model), "--layers", layers, "--threads", "1")
        for node in swarm.nodes:
            node.wait_until_up()
        swarm.wait_until_serving()
        yield swarm


def chat(node: NodeProcess, victim: NodeProcess | None = None) -> list[dict[str, Any]]:
    """Return the facts of three turns; ``victim`` is killed amid the second."""
    messages: list[dict[str, str]] = []
    told: list[dict[str, Any]] = []
    shown = 0

    def hear(event: dict[str, Any]) -> None:
        nonlocal shown
        shown += event["event"] == "token"
        if victim is not None and shown == TOKENS + 10 and not victim.has_ended():
            victim.kill()

    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        asked = {"messages": messages, "max_tokens": TOKENS, "schema": LETTERS, "prefer": ["two"]}
        with node.client(timeout=60.0) as client:
            facts: dict[str, Any] = client.call("generate", asked, hear)
        told.append(facts)
        messages.append({"role": "assistant", "content": facts["text"]})
    return told


def test_each_turn_begins_where_the_last_ended_and_a_kill_changes_no_token(
    swarm: LocalSwarm,
) -> None:
    asker, victim, *_ = swarm.nodes
    calm = chat(asker)
    assert calm[0]["reused"] == 0
    for before, after in pairwise(calm):
        kept = len(before["prompt_ids"]) + TOKENS - 1
        assert after["reused"] == kept
        own = (*before["prompt_ids"], *before["token_ids"])
        assert tuple(after["prompt_ids"][: after["reused"]]) == own[: after["reused"]]
    assert victim.snapshot().kept_caches == 1
    assert victim.snapshot().kept_bytes > 0

    mended = chat(swarm.nodes[2], victim)
    assert victim.has_ended()
    assert [facts["token_ids"] for facts in mended] == [facts["token_ids"] for facts in calm]
    assert mended[1]["repaired"]
    assert [facts["reused"] for facts in mended[:2]] == [facts["reused"] for facts in calm[:2]]
