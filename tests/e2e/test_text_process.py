"""The process that makes prompts, beside a real node: it harms nobody, and outlives nothing."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from p2pnode.errors import UserError
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# The end of a turn is a token that the file's metadata does not name.
TURNS = (
    "{% for m in messages %}<|user|>{{ m.content }}<|system|>{% endfor %}"
    "{% if messages[0].content == 'endless' %}{% for a in range(99999) %}"
    "{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
)


@pytest.fixture
def swarm() -> Iterator[LocalSwarm]:
    with local_swarm() as started:
        yield started


@pytest.fixture
def node(swarm: LocalSwarm, tmp_path: Path) -> NodeProcess:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, template=TURNS)
    started = swarm.start("one", "--model", str(path), "--layers", "0:4", "--no-mdns")
    started.wait_until_up()
    swarm.wait_until_serving()
    return started


def ask(node: NodeProcess, **params: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    with node.client(timeout=60) as client:
        return client.call("generate", {"max_tokens": 12, **params}, events.append), events


def children(node: NodeProcess) -> list[psutil.Process]:
    return psutil.Process(node.pid).children()


def test_an_answer_is_streamed_as_it_is_and_ends_where_the_template_ends_turns(
    node: NodeProcess,
) -> None:
    result, events = ask(node, prompt="hello<|user|><|end|>", temperature=1.5, seed=3)
    assert [token for token in result["prompt_ids"] if token > 256] == [258, 260]
    assert result["stop_ids"] == [257, 260]
    assert "".join(event.get("text", "") for event in events) == result["text"]
    assert result["token_ids"].count(260) <= 1
    same, _ = ask(node, prompt_ids=result["prompt_ids"], temperature=1.5, seed=3)
    assert (same["stop_ids"], same["token_ids"]) == ([257, 260], result["token_ids"])
    free, _ = ask(node, prompt_ids=result["prompt_ids"], ignore_eos=True)
    assert free["stop_ids"] == []
    assert len(free["token_ids"]) == 12


def test_the_oldest_turns_leave_and_it_is_told(node: NodeProcess) -> None:
    turns = [
        {"role": role, "content": f"{role} {number}" * 4}
        for number in range(9)
        for role in ("user", "assistant")
    ]
    result, events = ask(node, messages=[*turns, {"role": "user", "content": "last"}])
    assert result["left_out"] > 0
    assert {"event": "history", "left_out": result["left_out"]} in events
    assert len(result["prompt_ids"]) <= 256 - 12


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"prompt": "x" * 20_000}, "at least"),
        ({"prompt": " "}, "empty"),
        ({"messages": [{"role": "user"}]}, "message 1"),
        ({"messages": []}, "give a prompt"),
        ({"prompt": "x", "tools": "y"}, "tools"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_answered_is_told_in_words(
    swarm: LocalSwarm, node: NodeProcess, params: dict[str, Any], what: str
) -> None:
    with pytest.raises(UserError, match=what):
        ask(node, **params)


def test_an_endless_template_holds_up_nobody(node: NodeProcess) -> None:
    problems: list[UserError] = []

    def go() -> None:
        with pytest.raises(UserError) as caught:
            ask(node, prompt="endless")
        problems.append(caught.value)

    asking = threading.Thread(target=go)
    asking.start()
    while not children(node):
        assert asking.is_alive()
    assert node.snapshot().state == "serving"
    asking.join(60)
    assert "CPU time" in str(problems[0])
    assert "--raw" in problems[0].hint
    assert not children(node)
    assert ask(node, prompt="hello")[0]["text"] is not None


def test_the_process_ends_with_its_node_even_at_work(node: NodeProcess) -> None:
    def go() -> None:
        with pytest.raises(UserError):
            ask(node, prompt="endless")

    asking = threading.Thread(target=go)
    asking.start()
    while not (left := children(node)):
        assert asking.is_alive()
    node.kill()
    asking.join(30)
    assert psutil.wait_procs(left, timeout=20)[0] == left


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_with_its_node(node: NodeProcess, how: signal.Signals) -> None:
    ask(node, prompt="hello")
    left = children(node)
    assert len(left) == 1
    psutil.Process(node.pid).send_signal(how)
    gone, alive = psutil.wait_procs(left, timeout=10)
    assert (gone, alive) == (left, [])
