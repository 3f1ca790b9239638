"""A real node whose model file is overwritten and put back."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pnode.testing.processes import NodeProcess, local_swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def until(node: NodeProcess, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, node.snapshot().log
        time.sleep(0.1)


def test_a_file_that_is_overwritten_is_left_and_one_put_back_is_served(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    write_tiny_gguf(path)
    right = path.read_bytes()
    with local_swarm() as swarm:
        node = swarm.start("one", "--model", str(path), "--no-mdns")
        node.wait_until_up()

        def serves() -> bool:
            return node.snapshot().layers == (0, 4)

        until(node, serves)
        write_tiny_gguf(path, seed=1)
        until(node, lambda: not serves())
        assert "holds another model" in node.snapshot().reason
        path.write_bytes(right)
        until(node, serves)
        with node.client(timeout=30) as client:
            answer = client.call("generate", {"prompt": "hello", "max_tokens": 4})
        assert len(answer["token_ids"]) <= 4
