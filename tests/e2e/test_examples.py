"""The examples of the documentation, run as a reader runs them, with the real model."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2pnode
from p2pnode.node import handlers
from p2pnode.testing.processes import local_swarm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PATIENCE = 60.0  # seconds, on a busy machine


def run(name: str, *words: str, status: int = 0, home: Path | None = None) -> list[str]:
    """Run an example, and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(EXAMPLES / f"{name}.py"), *words],
        env=os.environ | ({} if home is None else {"P2PNODE_HOME": str(home)}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return (done.stdout if status == 0 else done.stderr).splitlines()


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.stem}"' in tests


def test_generate() -> None:
    *answer, facts = run("generate", "What is the capital of France?")
    assert "Paris" in " ".join(answer)
    assert "tokens, " in facts


@pytest.fixture(name="home")
def _home() -> Iterator[Path]:
    with local_swarm() as swarm:
        node = swarm.start("one", "--no-mdns")
        node.wait_until_up()
        yield Path(swarm._directory) / "one"


def test_chat(home: Path) -> None:
    printed = "\n".join(run("chat", "My name is Ada.", "What is my name?", home=home))
    client, messages, answers = p2pnode.Client(home), list[dict[str, str]](), list[str]()
    for line in ("My name is Ada.", "What is my name?"):
        messages.append({"role": "user", "content": line})
        answers.append(client.chat(messages, max_tokens=24).read().text)
        messages.append({"role": "assistant", "content": answers[-1]})
    assert printed == "\n".join(answers)


def test_chat_without_a_node_is_one_clear_error(tmp_path: Path) -> None:
    assert run("chat", home=tmp_path, status=1) == [
        f"no node runs on {tmp_path}",
        f"  try: start one: p2pnode up --state {tmp_path}",
    ]


def test_two_nodes() -> None:
    answer, *_, first, second = run("two_nodes")
    assert "Paris" in answer
    assert [first, second] == ["one: layers 0 to 14", "two: layers 15 to 29"]


def test_watch() -> None:
    *states, cancelled, sessions = run("watch")
    assert states[-1].endswith(" is serving")
    assert (cancelled, sessions) == ("cancelled", "sessions that still hold memory: 0")


def test_frames() -> None:
    assert run("frames") == [
        "two asks: Who draws the tokens?",
        "one answers: {'answer': 'whoever holds the last layers'}",
    ]


def test_embed() -> None:
    if "embed" not in inspect.getsource(handlers):
        said = run("embed", status=1)
        assert said[0] == "this node makes no embeddings: its p2pnode is of a version without them"
        return
    scores = [float(line.split()[0]) for line in run("embed")]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
