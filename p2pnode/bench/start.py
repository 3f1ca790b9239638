"""What a command costs before it does anything: a whole process, from its start to its end.

A node's is over when it is up: when its control socket answers, which it tells as to systemd.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil

from p2pnode.bench.figures import spread
from p2pnode.errors import UserError
from p2pnode.node.places import without_settings

COMMANDS: Final = (("--help",), ("models", "list"))
"""Commands that people wait for, and that need next to nothing."""

UP: Final = ("up", "--no-mdns", "--listen", "127.0.0.1", "--port", "0")

_PATIENCE = 60.0  # seconds for one; a machine that takes so long has other troubles
_GLANCE = 1.0  # seconds until it is looked whether a node has ended instead


def measure(*, rounds: int, model: str, tell: Callable[[float], None]) -> dict[str, Any]:
    """Run each of :data:`COMMANDS` and a node of ``model`` ``rounds`` times, in turns; in seconds.

    One round before them brings the files into memory. The commands find no node and an empty
    state directory, and the user's own models.

    Raises:
        UserError: A command failed.
    """
    up = (*UP, "--model", model)
    taken: dict[str, list[float]] = {" ".join(words): [] for words in (*COMMANDS, up)}
    computed: list[float] = []
    with TemporaryDirectory(prefix="p2pnode-") as home:
        environment = {**without_settings(os.environ), "P2PNODE_HOME": home}
        for done in range(rounds + 1):
            for words in COMMANDS:
                seconds = _run(words, environment)
                if done:
                    taken[" ".join(words)].append(seconds)
            seconds, processor = _until_up(up, environment, home)
            if done:
                taken[" ".join(up)].append(seconds)
                computed.append(processor)
            tell((done + 1) / (rounds + 1))
    return {
        "rounds": rounds,
        "seconds": {f"p2pnode {words}": spread(times) for words, times in taken.items()},
        "processor_seconds": {f"p2pnode {' '.join(up)}": spread(computed)},
    }


def _run(words: tuple[str, ...], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "p2pnode", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=_PATIENCE,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise UserError(f"p2pnode {' '.join(words)} failed: {said or done.returncode}")
    return seconds


def _until_up(
    words: tuple[str, ...], environment: dict[str, str], folder: str
) -> tuple[float, float]:
    """Start a node and end it; return the seconds until it is up, its processor's after those."""
    path = Path(folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(_GLANCE)
        began = time.perf_counter()
        node = subprocess.Popen(
            [sys.executable, "-m", "p2pnode", *words],
            env={**environment, "NOTIFY_SOCKET": str(path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not _is_told(told):
                if node.poll() is not None or time.perf_counter() - began > _PATIENCE:
                    raise UserError(f"p2pnode {' '.join(words)} did not come up")
            seconds = time.perf_counter() - began
            spent = psutil.Process(node.pid).cpu_times()
            return seconds, spent.user + spent.system
        finally:
            node.terminate()
            node.wait()
            path.unlink()


def _is_told(listener: socket.socket) -> bool:
    with suppress(TimeoutError):
        return bool(listener.recv(4096))
    return False
