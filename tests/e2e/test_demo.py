"""The main job, as a newcomer runs it: real processes, the real model, and a real kill."""

import itertools
import json
import subprocess
import sys
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def demo(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "p2pnode", "demo", "--max-tokens", "32", "--json", *options]
    done = subprocess.run(command, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr.decode()
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def alive(facts: dict[str, Any]) -> list[int]:
    return [peer["pid"] for peer in facts["peers"] if psutil.pid_exists(peer["pid"])]


def test_three_processes_answer_as_one_engine_would() -> None:
    facts = demo()
    assert facts["identical"]
    assert facts["tokens"] == len(facts["token_ids"]) == 32
    assert len({peer["node_id"] for peer in facts["peers"]}) == 3
    layers = [stage["layers"] for stage in facts["plan"]["stages"]]
    assert layers[0][0] == 0
    assert layers[-1][1] == 30
    assert all(one[1] == other[0] for one, other in itertools.pairwise(layers))
    assert facts["killed"] is None
    assert not alive(facts)


def test_a_killed_peer_changes_no_token() -> None:
    facts = demo("--kill")
    assert facts["identical"]
    assert facts["killed"]
    assert facts["resumed_ms"] < 10_000
    credited = {row["name"]: row["tokens"] for row in facts["served"]}
    assert credited[facts["killed"]][1] < 32  # what it served, and not what another did after it
    assert [1, 32] in credited.values()
    assert any(first > facts["killed_after"] for first, last in credited.values() if last == 32)
    assert not alive(facts)


def test_an_interrupted_demo_leaves_nobody_behind() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "p2pnode", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # the nodes are up once one of them has a state
        if b"joining" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 3
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert b"Traceback" not in errors
    gone, left = psutil.wait_procs(children, timeout=10)
    assert len(gone) == 3
    assert not left
