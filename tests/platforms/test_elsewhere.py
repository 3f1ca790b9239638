"""Every part imports and starts where nothing is there that POSIX alone has.

What cannot be tested so is the other systems themselves: their sockets, files and signals.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
ELSEWHERE = (sys.executable, str(Path(__file__).with_name("elsewhere.py")))

POSIX_ONLY: Mapping[str, str] = {
    "p2pnode.engine.ggml.lease": "read leases are Linux's; mapping.py asks for them there alone",
}
"""Modules that need what only POSIX has, and why."""

EXTRAS = ("torch", "jax")
"""What some engines need; where it is not installed they cannot be imported anywhere."""


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing of this machine's own nodes is touched."""
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    ours = {"P2PNODE_HOME": str(folder / "state"), "XDG_RUNTIME_DIR": str(folder / "run")}
    return os.environ | ours


def run(folder: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [*ELSEWHERE, *words],
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return done.stdout


def test_every_module_imports_but_those_with_a_reason(tmp_path: Path) -> None:
    failed = json.loads(run(tmp_path, "--import-all"))
    absent = {name for name in EXTRAS if find_spec(name) is None}
    ours = {
        module: why
        for module, why in failed.items()
        if not any(why == f"No module named {name!r}" for name in absent)
    }
    assert set(ours) == set(POSIX_ONLY), ours


def test_what_is_hidden_is_hidden() -> None:
    script = (
        "import runpy; elsewhere = runpy.run_path(__file__ + '/../elsewhere.py'); "
        "elsewhere['hide'](); import p2pnode.node.cpu_limits as limits, p2pnode.system as system, "
        "p2pnode.net.control_door as door, p2pnode.net.wakeup as wakeup; "
        "print(limits.HAS_TIMERS, system.HAS_ACCOUNTS, door.has_unix_sockets(), "
        "hasattr(wakeup.os, 'eventfd'))"
    ).replace("__file__ + '/../", repr(str(Path(__file__).parent) + "/") + " + '")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False"] * 4, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        ("models", "list"),
        ("frame", "decode", "--help"),
        ("simulate", "--help"),
        ("bench", "--help"),
    ],
    ids=" ".join,
)
def test_commands_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(tmp_path, *words)


def test_a_frame_is_made_and_read(tmp_path: Path) -> None:
    vectors = json.loads((ROOT / "docs/protocol/vectors.json").read_text("utf-8"))
    frame = tmp_path / "frame.bin"
    frame.write_bytes(bytes.fromhex(vectors["frames"][0]["frame"]))
    assert "space_hash32" in run(tmp_path, "frame", "decode", str(frame))


def test_a_simulation_runs(tmp_path: Path) -> None:
    short = tmp_path / "short.toml"
    text = (ROOT / "simulations/scenarios/loss-sweep.toml").read_text("utf-8")
    text = re.sub(r"(?m)^tokens = \d+", "tokens = 5", text)
    short.write_text(re.sub(r"(?m)^warm_up = \d+", "warm_up = 2", text))
    assert run(tmp_path, "simulate", str(short), "--seed", "1")


def test_a_doctor_finds_no_bug_of_ours(tmp_path: Path) -> None:
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model)
    said = run(tmp_path, "doctor", "--model", str(model))
    assert "could not be checked" not in said


def test_a_node_runs_answers_and_is_stopped(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("n")  # a control socket's path may have 100 bytes only
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model)
    quiet = ("--no-mdns", "--listen", "127.0.0.1", "--port", "0", "--engine", "numpy")
    command = [*ELSEWHERE, "up", "--json", "--model", str(model), *quiet]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as node:
        try:
            assert node.stdout is not None
            facts = json.loads(node.stdout.readline())
            (socket,) = (tmp_path / "run").rglob("*.sock")
            assert socket.is_file()  # a port and a token: there are no Unix sockets here
            assert socket.stat().st_mode & 0o777 == 0o600
            asked = run(tmp_path, "generate", "abc", "--max-tokens", "3", "--json")
            assert json.loads(asked)["token_ids"]
            assert json.loads(run(tmp_path, "peers", "--json"))["node_id"] == facts["node_id"]
            assert run(tmp_path, "invite").startswith("p2p1-")
            assert "has ended" in run(tmp_path, "stop")
            assert node.wait(30) == 0
        finally:
            node.kill()
    assert not socket.exists()
