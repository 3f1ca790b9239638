"""A swarm as people build it: up, invite, join, peers, generate, top, stop."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from p2pnode.interfaces.cli.look_commands import look
from p2pnode.interfaces.tui.app import TopApp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

REFERENCE = Path(__file__).parent.parent / "reference" / "smollm2-135m.json"
FLOAT32 = ("--engine", "numpy")
"""The reference is of float32; ggml rounds to int8, and the first prompt's top two swap."""


class Machine:
    """One machine of a swarm: a state directory, and perhaps a node."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._node: subprocess.Popen[bytes] | None = None

    def run(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "p2pnode", *words, "--state", str(self.state)]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done.stdout.decode()

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def start(self, *words: str) -> None:
        network = ("--listen", "127.0.0.1", "--port", "0", "--no-mdns")
        command = [sys.executable, "-m", "p2pnode", *words, *network]
        self._node = subprocess.Popen(
            [*command, "--state", str(self.state), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._node.stdout is not None
        assert json.loads(self._node.stdout.readline())["listening"]

    def arguments(self) -> list[str]:
        """Return what every account of a machine can see of the node's process."""
        assert self._node is not None
        return psutil.Process(self._node.pid).cmdline()

    def end(self) -> None:
        if self._node is not None:
            self._node.terminate()
            assert self._node.wait(15) == 0
            assert self._node.stdout is not None
            self._node.stdout.close()


@pytest.fixture(name="pair")
def _pair(tmp_path: Path) -> Iterator[Sequence[Machine]]:
    """Two machines that split the model; the second was invited by the first."""
    machines = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    try:
        machines[0].start("up", "--layers", "0:15", "--name", "one", *FLOAT32)
        code = machines[0].run("invite").strip()
        machines[1].start("join", code, "--layers", "15:30", "--name", "two", *FLOAT32)
        yield machines
    finally:
        for machine in machines:
            machine.end()


def test_an_invited_machine_shares_the_work(pair: Sequence[Machine]) -> None:
    one, two = pair
    assert not any("p2p1" in word for word in two.arguments())
    case = json.loads(REFERENCE.read_text())["cases"][0]
    answer = two.json("generate", case["prompt"], "--max-tokens", "16")
    assert answer["prompt_ids"] == case["prompt_ids"]
    assert answer["token_ids"] == case["greedy_ids"][:16]
    assert [stage["name"] for stage in answer["plan"]["stages"]] == ["one", "two"]
    assert (answer["bit_reproducible"], answer["bit_reproducible_why"]) == (True, "")
    shown = one.json("peers")
    peers = shown["peers"]
    ways = {shown["numerics"], *(stage["numerics"] for stage in answer["plan"]["stages"])}
    assert ways == {peers[0]["numerics"]}
    assert f"all compute as {peers[0]['numerics']}" in answer["plan"]["reasons"]
    assert peers[0]["kv_bytes_per_token_layer"] > 0
    assert [(peer["name"], peer["state"], peer["layers"]) for peer in peers] == [
        ("two", "serving", [15, 30])
    ]


def test_sampling_with_a_seed_is_the_same_wherever_it_is_asked(pair: Sequence[Machine]) -> None:
    options = ("--temperature", "0.8", "--top-p", "0.9", "--seed", "11", "--max-tokens", "12")
    answers = [one.json("generate", "Tell me a joke.", *options)["token_ids"] for one in pair]
    assert answers[0] == answers[1]


def test_answers_follow_a_schema_and_tell_their_logprobs(pair: Sequence[Machine]) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
    options = ("--schema", json.dumps(schema), "--logprobs", "2", "--presence-penalty", "0.5")
    answers = [one.json("generate", "Name a city.", *options) for one in pair]
    assert answers[0]["token_ids"] == answers[1]["token_ids"]
    assert list(json.loads(answers[0]["text"])) == ["city"]
    assert answers[0]["finish"] == "stop"
    told = answers[0]["logprobs"]
    assert [one["token"] for one in told] == answers[0]["token_ids"]
    assert all(one["logprob"] <= 0 and len(one["top"]) == 2 for one in told)
    refused = pair[0].run("generate", "Hi", "--schema", '{"type": "banana"}', code=2)
    assert not refused


def test_the_terminal_ui_shows_the_living_node(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "solo")

    async def watch() -> str:
        app = TopApp(lambda: look(machine.state), interval=None)
        async with app.run_test(size=(120, 40)) as pilot:
            await app.poll()
            await pilot.pause()
            return app.export_screenshot()

    machine.start("up", "--model", "none", "--name", "lonely")
    try:
        assert "lonely" in asyncio.run(watch())
    finally:
        machine.end()


def test_without_a_node_faces_say_how_to_start_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "p2pnode", "peers", "--state", str(tmp_path)]
    with tempfile.TemporaryDirectory() as short:  # apart from other tests: sockets' paths are short
        apart = {**os.environ, "XDG_RUNTIME_DIR": "", "TMPDIR": short}
        done = subprocess.run(command, env=apart, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"p2pnode up" in done.stderr
    assert b"Traceback" not in done.stderr
