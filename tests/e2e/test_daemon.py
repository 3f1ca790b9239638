"""A node as a daemon: nothing that happens to its terminal or its streams ends it by mistake."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_lines import find_control_path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

UP = (
    *(sys.executable, "-m", "p2pnode", "up", "--model", "none", "--no-mdns"),
    *("--listen", "127.0.0.1", "--port", "0", "--name", "daemon"),
)


@contextmanager
def running(state: Path, *under: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node until it answers, and end it afterwards."""
    node = subprocess.Popen([*under, *UP, "--state", str(state)], **how)
    try:
        until = time.monotonic() + 30
        while not answers(state):
            assert time.monotonic() < until
            assert node.poll() is None
        yield node
    finally:
        node.kill()
        node.communicate()


def answers(state: Path) -> bool:
    try:
        with ControlClient(find_control_path(state)) as client:
            return bool(client.call("snapshot")["name"] == "daemon")
    except UserError:
        return False


@pytest.mark.parametrize("shell", [">&-", ">/dev/full", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_node_outlives_its_streams(tmp_path: Path, shell: str) -> None:
    words = " ".join((*UP, "--state", str(tmp_path)))
    node = subprocess.Popen(["sh", "-c", f"exec {words} {shell}"], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 30
        while not answers(tmp_path):
            assert time.monotonic() < until
            assert node.poll() is None
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


def test_a_closed_terminal_ends_a_node_and_under_nohup_it_does_not(tmp_path: Path) -> None:
    with running(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        node.send_signal(signal.SIGHUP)
        assert node.wait(20) == 0

    with running(tmp_path, "nohup", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        node.send_signal(signal.SIGHUP)
        assert answers(tmp_path)
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0


WITH_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Runs a command that hears Ctrl-C, though this test may run in a background job."""


@pytest.mark.parametrize("after", [0.1, 0.5, 0.65, 0.8, 1.2, 2.0])
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
