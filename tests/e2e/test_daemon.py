"""A node as a daemon: nothing that happens to its terminal or its streams ends it by mistake."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

UP = (
    *(sys.executable, "-m", "p2pnode", "up", "--model", "none", "--no-mdns"),
    *("--listen", "127.0.0.1", "--port", "0", "--name", "daemon"),
)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of our own, so that no other node of this machine is known."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):
            monkeypatch.setenv(variable, folder)
        yield Path(folder)


@contextmanager
def running(state: Path, *under: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node until it answers, and end it afterwards."""
    node = subprocess.Popen([*under, *UP, "--state", str(state)], **how)
    try:
        wait_until_it_answers(node, state)
        yield node
    finally:
        node.kill()
        node.communicate()


def wait_until_it_answers(node: subprocess.Popen[bytes], state: Path) -> None:
    until = time.monotonic() + 30
    while not answers(state):
        assert time.monotonic() < until
        with suppress(subprocess.TimeoutExpired):
            node.wait(0.1)
        assert node.returncode is None


def answers(state: Path) -> bool:
    try:
        with ControlClient(find_control_path(state)) as client:
            return bool(client.call("snapshot")["name"] == "daemon")
    except UserError:
        return False


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import p2pnode.engine.hash_tree as hashing
really = hashing.tensor_hash
def slowly(tensor, parts):
    time.sleep(1.0)
    return really(tensor, parts)
hashing.tensor_hash = slowly
from p2pnode.interfaces.cli.main import main
main()
"""


def test_an_interrupt_ends_a_start_that_hashes_a_large_file(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "large.gguf")
    words = ("up", "--model", str(tmp_path / "large.gguf"), "--state", str(tmp_path / "state"))
    environment = {**os.environ, "P2PNODE_CACHE": str(tmp_path / "cache")}
    node = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words, "--no-mdns", "--listen", "127.0.0.1", "--port", "0"],
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert node.stderr is not None
    try:
        assert b"hashes the model's file" in node.stderr.readline()
        node.send_signal(signal.SIGINT)
        assert node.wait(10) == 130
    finally:
        node.kill()
        node.communicate()


@pytest.mark.parametrize("shell", [">/dev/full", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_node_outlives_its_streams(tmp_path: Path, shell: str) -> None:
    words = " ".join((*UP, "--state", str(tmp_path)))
    node = subprocess.Popen(["sh", "-c", f"exec {words} {shell}"], stderr=subprocess.PIPE)
    try:
        wait_until_it_answers(node, tmp_path)
        node.send_signal(signal.SIGINT)
        _, said = node.communicate(timeout=20)
        assert node.returncode == 0
        assert b"Traceback" not in said
        assert b"rror" not in said
    finally:
        node.kill()
        node.communicate()


def test_a_node_outlives_the_reader_of_its_greeting(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with running(tmp_path, stdout=writing, stderr=subprocess.PIPE) as node:
        os.close(writing)
        assert answers(tmp_path)
        node.send_signal(signal.SIGTERM)
        _, said = node.communicate(timeout=20)
        assert node.returncode == 0
        assert b"rror" not in said
    assert "Broken pipe" in (tmp_path / "log").read_text()


def test_a_node_that_runs_out_of_descriptors_says_so_in_a_line(tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    with running(tmp_path, *limited, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as node:
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(150)]
        for one in crowd:
            one.setblocking(False)
            with suppress(OSError):  # the queue is full
                one.connect(str(find_control_path(tmp_path)))
        until = time.monotonic() + 30
        while (tmp_path / "log").read_text().count("trio.serve_listeners") < 5:
            assert time.monotonic() < until
            time.sleep(0.1)
        for one in crowd:
            one.close()
        wait_until_it_answers(node, tmp_path)
        node.send_signal(signal.SIGTERM)
        _, said = node.communicate(timeout=20)
        assert node.returncode == 0
    assert b"Traceback" not in said
    assert said.count(b"trio.serve_listeners") == 1
    assert "Too many open files" in (tmp_path / "log").read_text()


def test_a_closed_terminal_ends_a_node_and_under_nohup_it_does_not(tmp_path: Path) -> None:
    with running(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        node.send_signal(signal.SIGHUP)
        assert node.wait(20) == 0

    with running(tmp_path, "nohup", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        node.send_signal(signal.SIGHUP)
        assert answers(tmp_path)
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0


def command(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "p2pnode", *words, "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_stop_returns_when_the_node_has_ended_and_says_which(tmp_path: Path) -> None:
    with running(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as node:
        done = command(tmp_path, "stop")
        assert node.poll() == 0
        assert (done.returncode, done.stdout) == (0, f"daemon (process {node.pid}) has ended\n")
    again = command(tmp_path, "stop")
    assert again.returncode == 1
    assert f"no node runs on {tmp_path}" in again.stderr


def test_a_command_for_another_directory_names_the_nodes_that_run(
    tmp_path: Path, runtime: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "the re"
    with running(there, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        for words in ("peers", "invite", "stop"):
            done = command(here, words)
            assert done.returncode == 1
            assert f"no node runs on {here}" in done.stderr
            assert f"{there} (daemon, process {node.pid})" in done.stderr
            proposes = f"p2pnode {words} --state '" in done.stderr
            assert proposes == (words != "stop")  # another node must not end for this one
        listed = command(there, "peers").stdout.splitlines()
        assert str(node.pid) in listed[1].split()
        assert '"pid": ' + str(node.pid) in command(there, "peers", "--json").stdout


def test_top_refuses_what_it_cannot_draw_on_in_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, "top")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "p2pnode: top draws on a terminal, and this is none"
    assert "p2pnode peers" in done.stderr


WITH_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Runs a command that hears Ctrl-C, though this test may run in a background job."""


@pytest.mark.parametrize("after", [0.1, 0.6, 0.9, 2.0])
def test_two_ctrl_c_end_a_node_cleanly_at_any_moment(tmp_path: Path, after: float) -> None:
    node = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, *UP, "--state", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        for pause in (after, 0.05):
            with suppress(subprocess.TimeoutExpired):
                node.wait(pause)
            node.send_signal(signal.SIGINT)
        said, _ = node.communicate(timeout=20)
        python_starts = after < 0.3  # then it may end by the signal, or with a traceback
        assert node.returncode in {0, 130} or python_starts, said
        assert python_starts or b"Traceback" not in said
    finally:
        node.kill()
        node.communicate()


def test_a_terminal_that_is_stopped_holds_up_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(65536))  # full: nobody reads
    os.set_blocking(writing, True)
    with running(tmp_path, stdout=writing, stderr=writing) as node:
        os.close(writing)
        assert command(tmp_path, "stop").returncode == 0
        assert node.wait(20) == 0
    os.close(reading)
