"""A machine that is lent: its owner comes back in mid-answer, and the node steps back at once."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from p2pnode.node.peer_snapshot import PeerView
from p2pnode.testing.processes import NodeProcess, local_swarm

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TOKENS = 40
ASK = {"prompt": "The sky is", "max_tokens": TOKENS, "ignore_eos": True, "prefer": ["giver"]}
BURN = "input()\nwhile True: pass"

SOON = 2.0
"""Seconds: one that is promised, and one for a machine on which other tests run."""


@contextmanager
def burner(chosen: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a program of the owner's that computes once it is told to."""
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE) as program:
        chosen.write_text(str(program.pid))
        try:
            yield program
        finally:
            program.kill()


def tell(program: subprocess.Popen[bytes]) -> float:
    assert program.stdin is not None
    program.stdin.write(b"\n")
    program.stdin.flush()
    return time.monotonic()


def ask(node: NodeProcess, hear: Callable[[dict[str, Any]], None]) -> Any:
    with node.client(timeout=None) as client:
        return client.call("generate", ASK, hear)


def until(happened: Callable[[], bool], seconds: float) -> float:
    """Wait for it, and return when it was so."""
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit
    return time.monotonic()


def seen(node: NodeProcess, name: str) -> PeerView:
    return next(peer for peer in node.snapshot().peers if peer.name == name)


def test_the_owner_comes_back_in_mid_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    chosen = tmp_path / "owner"
    chosen.write_text("")
    with local_swarm() as swarm, burner(chosen) as program:
        one_thread = ("--threads", "1", "--engine", "numpy")
        asker = swarm.start("asker", "--layers", "0:15", *one_thread)
        asker.wait_until_up()
        upper = ("--layers", "15:30", "--peer", asker.address, *one_thread)
        lent = ("lent_node", str(chosen), "up", "--json", "--with-parent")
        giver = swarm.start("giver", *upper, "--when", "idle", "--nice", "5", program=lent)
        spare = swarm.start("spare", *upper)
        for node in (giver, spare):
            node.wait_until_up()
        swarm.wait_until_serving()
        undisturbed = ask(asker, lambda event: None)

        moments, kinds = dict[str, float](), list[str]()

        def hear(event: dict[str, Any]) -> None:
            kinds.append(event["event"])
            moments.setdefault(event["event"], time.monotonic())
            if kinds.count("token") == 5 and event["event"] == "token":
                assert any(one.requester == "asker" for one in giver.snapshot().stages)
                moments["burning"] = tell(program)

        disturbed = ask(asker, hear)
        assert disturbed["token_ids"] == undisturbed["token_ids"]
        took = moments["broken"] - moments["burning"]
        logger.info("stepped back after %.2f s", took)
        assert took < SOON
        assert moments["repaired"] - moments["broken"] < SOON

        picture = giver.snapshot()
        assert (picture.state, picture.layers) == ("resting", (15, 30))
        assert "the owner uses" in picture.reason
        assert not picture.stages
        assert picture.counters["node: stepped back: its owner uses the CPU"] == 1
        assert picture.counters["inference: session moved on: this node rests"] == 1
        assert picture.limits == ("threads 1", "nice 5", "when idle")
        until(lambda: seen(asker, "giver").state == "resting", 5)
        assert seen(asker, "giver").reason == "its owner uses the CPU"

        program.kill()
        until(lambda: giver.snapshot().state == "serving", 10)
        until(lambda: seen(asker, "giver").state == "serving", 5)
