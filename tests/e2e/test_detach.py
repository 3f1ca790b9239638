"""``up --detach``: a node that outlives its command, or an end of the command that says why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from p2pnode.net.control_door import answers
from p2pnode.net.control_lines import find_control_path
from p2pnode.node.identity import lock_holder
from p2pnode.node.invite import Invite, encode_invite
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

NODE = ("--no-mdns", "--listen", "127.0.0.1", "--port", "0", "--name", "daemon")
NO_MODEL = (*NODE, "--model", "none")
SLOW_HASH = """
import time
import p2pnode.engine.hash_tree as hashing
really = hashing.tensor_hash
def slowly(tensor, parts):
    time.sleep(1.0)
    return really(tensor, parts)
hashing.tensor_hash = slowly
"""


@pytest.fixture(name="state")
def _state(tmp_path: Path) -> Iterator[Path]:
    state = tmp_path / "state"
    yield state
    if (pid := lock_holder(state)) is not None:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(name="slow")
def _slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Options of a node that takes long to start: a second for each tensor."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_HASH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    write_tiny_gguf(tmp_path / "large.gguf")
    return (*NODE, "--model", str(tmp_path / "large.gguf"))


def p2pnode(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "p2pnode", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_until(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_it_returns_once_the_node_is_up_and_leaves_it_running(state: Path) -> None:
    done = p2pnode("up", "--detach", "--state", str(state), *NO_MODEL)
    assert (done.returncode, done.stdout[:8]) == (0, "daemon (")  # and it has ended: nothing hangs
    pid = lock_holder(state)
    assert pid is not None
    assert answers(find_control_path(state))
    assert f"as process {pid}, and logs to {state / 'log'}" in done.stderr
    assert f"p2pnode stop --state {state} ends it" in done.stderr
    assert os.getsid(pid) == pid
    streams = {str(Path(f"/proc/{pid}/fd/{stream}").readlink()) for stream in range(3)}
    assert streams == {os.devnull}

    os.kill(pid, signal.SIGHUP)  # as to a daemon that rotates its log
    again = p2pnode("up", "--detach", "--state", str(state), *NO_MODEL)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"another node (process {pid}) already runs on {state}" in again.stderr
    assert p2pnode("stop", "--state", str(state)).returncode == 0
    assert "left the swarm" in (state / "log").read_text()


def test_with_json_its_facts_are_one_document(state: Path) -> None:
    done = p2pnode("up", "-d", "--json", "--state", str(state), *NO_MODEL)
    facts = json.loads(done.stdout)
    assert (facts["pid"], facts["log"]) == (lock_holder(state), str(state / "log"))
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        (("--listen", "192.0.2.1"), 1, "192.0.2.1 is not an address of this machine"),
        (("--layers", "9:3"), 2, "not a run of layers"),
        (("--prot", "1"), 2, "No such option '--prot'"),
    ],
    ids=["address", "layers", "option"],
)
def test_it_ends_as_the_node_does(
    state: Path, options: tuple[str, ...], status: int, why: str
) -> None:
    here = p2pnode("up", "--state", str(state), *NO_MODEL, *options)
    done = p2pnode("up", "--detach", "--state", str(state), *NO_MODEL, *options)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", here.stderr)
    assert why in done.stderr


def test_ctrl_c_while_it_starts_ends_it(state: Path, slow: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", WITH_CTRL_C, sys.executable, "-m", "p2pnode"]
    starter = subprocess.Popen(
        [*command, "up", "-d", "--state", str(state), *slow], stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: lock_holder(state) is not None)
        node = psutil.Process(lock_holder(state))
        assert starter.stderr is not None
        assert b"hashes the model's file" in starter.stderr.readline()
        starter.send_signal(signal.SIGINT)
        assert starter.wait(20) == 130
        wait_until(lambda: not node.is_running())
    finally:
        starter.kill()
        _, said = starter.communicate()
    assert b"Traceback" not in said


WITH_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Runs a command that hears Ctrl-C, though this test may run in a background job."""


def test_a_node_whose_starter_is_killed_does_not_start(state: Path, slow: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "p2pnode", "up", "-d", "--state", str(state), *slow]
    starter = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: lock_holder(state) is not None)
        node = psutil.Process(lock_holder(state))
    finally:
        starter.kill()
        starter.wait()
    wait_until(lambda: not node.is_running())


def test_a_node_that_is_killed_while_it_starts_is_told_of(
    state: Path, slow: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "p2pnode", "up", "-d", "--state", str(state), *slow]
    starter = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: lock_holder(state) is not None)
        with suppress(ProcessLookupError):
            os.kill(lock_holder(state) or 0, signal.SIGKILL)
        assert starter.wait(20) == 1
    finally:
        starter.kill()
        _, said = starter.communicate()
    assert b"the node ended by signal 9 while it started" in said


@pytest.mark.parametrize("way", ["argument", "standard input"])
def test_join_detaches_too_and_its_code_stands_in_no_arguments(state: Path, way: str) -> None:
    code = encode_invite(Invite(bytes(range(32)), (("127.0.0.1", 9),)))
    words, stdin = ((code,), "") if way == "argument" else (("-",), code + "\n")
    done = p2pnode("join", "--detach", *words, "--state", str(state), *NO_MODEL, stdin=stdin)
    assert done.returncode == 0, done.stderr
    pid = lock_holder(state)
    assert pid is not None
    assert code not in " ".join(psutil.Process(pid).cmdline())
    assert (state / "swarm.secret").read_text().strip() == bytes(range(32)).hex()
