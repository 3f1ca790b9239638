"""The API beside a node: real processes, and what becomes of one when the other ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MODEL = "smollm2-135m"
SAID: list[Any] = [{"role": "user", "content": "Tell me a long story."}]
NETWORK = ("--listen", "127.0.0.1", "--port", "0", "--no-mdns")


class Up:
    """A node with an API."""

    def __init__(self, process: "subprocess.Popen[bytes]", state: Path, facts: Any) -> None:
        self.process = process
        self.state = state
        self.url = facts["http"]

    def faces(self) -> list[psutil.Process]:
        """Return the processes that serve the API: one, or none between two."""
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE and "serve" in child.cmdline()
        ]

    def stages(self) -> Sequence[Any]:
        with ControlClient(find_control_path(self.state)) as client:
            stages: Sequence[Any] = client.call("snapshot")["stages"]
            return stages


@contextmanager
def up(state: Path, *options: str) -> Iterator[Up]:
    command = [sys.executable, "-m", "p2pnode", "up", "--json", "--model", MODEL]
    command += [*NETWORK, "--http", "0", "--state", str(state), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        node = Up(process, state, json.loads(process.stdout.readline()))
        wait_until(lambda: is_well(node.url))
        yield node
    finally:
        process.terminate()
        process.communicate(timeout=30)


def is_well(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/health", timeout=5).json()["status"] == "ok")
    except httpx.HTTPError:
        return False


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for it, and return how long it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def test_answers_clients_that_vanish_and_processes_that_end(tmp_path: Path) -> None:
    with up(tmp_path / "node") as node:
        client = openai.OpenAI(base_url=f"{node.url}/v1", api_key="none", max_retries=0)
        with client:
            asked: Any = {"model": MODEL, "messages": SAID, "temperature": 0, "max_tokens": 8}
            whole = client.chat.completions.create(**asked)
            chunks = client.chat.completions.create(**asked, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert text == whole.choices[0].message.content != ""

            stream = client.chat.completions.create(**{**asked, "max_tokens": 2000}, stream=True)
            for _ in range(4):
                next(stream)
            assert node.stages()
            stream.close()
            assert wait_until(lambda: not node.stages()) < 1

            (face,) = node.faces()
            face.kill()
            wait_until(lambda: any(one != face for one in node.faces()) and is_well(node.url))
            assert node.process.poll() is None

        (last,) = node.faces()
        node.process.kill()
        node.process.wait()
        last.wait(10)


def test_who_serves_beside_a_node_that_dies_says_so_and_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    state = tmp_path / "node"
    with up(state) as node:
        command = [sys.executable, "-m", "p2pnode", "serve", "--http", "0", "--json"]
        with subprocess.Popen([*command, "--state", str(state)], stdout=subprocess.PIPE) as served:
            assert served.stdout is not None
            url = json.loads(served.stdout.readline())["url"]
            assert is_well(url)
            os.kill(node.process.pid, signal.SIGKILL)
            node.process.wait()
            gone = httpx.get(f"{url}/v1/models")
            assert gone.status_code == 503
            assert gone.json()["error"]["code"] == "node_unavailable"
            with up(state):
                wait_until(lambda: is_well(url))
            served.send_signal(signal.SIGINT)
            assert served.wait(10) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--http", "{taken}"), "is taken"),
        (("--http", "0.0.0.0:0"), "a key is needed"),
        (("--http", "nonsense"), "no port in 'nonsense'"),
        (("--http", "0", "--tls-cert", "x.pem"), "--tls-cert and --tls-key go together"),
        (("--http", "0", "--key-file", "."), "key"),
    ],
)
@pytest.mark.parametrize("command", ["up", "serve"])
def test_what_cannot_be_is_said_before_anything_starts(
    tmp_path: Path, command: str, options: Sequence[str], words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = [option.format(taken=port) for option in options]
        done = subprocess.run(
            [sys.executable, "-m", "p2pnode", command, "--state", str(tmp_path / "n"), *said],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
