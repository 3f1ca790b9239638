"""A server in a process of its own, and what its app tells.

It ends when its standard input closes, which the operating system sees to even if we are killed.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import IO, Any

import psutil

from p2pnode.bench.http.app import make_app
from p2pnode.bench.http.contestant import Contestant
from p2pnode.bench.http.wire import HOST, ask
from p2pnode.errors import UserError

STARTING = 30.0
"""Seconds until a server must have answered. The slowest takes 1 s at 2.4 GHz."""

_GLANCE = 0.02
_ENDING = 3.0


class Child:
    """A server that runs.

    Attributes:
        port: Where it listens.
        start_seconds: From its process's start to its first answer.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self._buffer = b""
        self._began = time.monotonic()
        self.start_seconds = 0.0
        self.port = int(self._told(STARTING)["port"])

    def wait_until_up(self) -> None:
        """Ask until it answers.

        Raises:
            UserError: It ended, or answered nothing for ``STARTING``.
        """
        while time.monotonic() - self._began < STARTING and self.is_alive():
            with suppress(OSError):
                if ask(self.port, "/tiny").status == 200:
                    self.start_seconds = time.monotonic() - self._began
                    return
            time.sleep(_GLANCE)
        raise UserError(f"it did not start: {self.last_line()}")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_for_end(self, seconds: float) -> None:
        """Wait for its end, which may be under way."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def saw(self, number: int, seconds: float) -> dict[str, Any] | None:
        """Wait for what the handler of request ``number`` saw; None if it saw nothing in time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                told = self._told(left)
            except UserError:
                return None
            if told.get("id") == str(number):
                return told
        return None

    def memory(self) -> int:
        """Return the bytes that it holds in memory."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def cpu_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def tracebacks(self) -> int:
        """Return how many tracebacks it wrote to its standard error."""
        self._log.seek(0)
        return self._log.read().count(b"Traceback (most recent call last)")

    def last_line(self) -> str:
        """Return the last line that it wrote to its standard error."""
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        words = [line.strip(" |+-") for line in lines]  # as a group of exceptions is drawn
        return next(filter(None, reversed(words)), "no word")

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _told(self, seconds: float) -> dict[str, Any]:
        """Return the next line of its standard output."""
        stdout = self._process.stdout
        if stdout is None:
            raise UserError("its output is closed")
        until = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            with selectors.DefaultSelector() as selector:
                selector.register(stdout, selectors.EVENT_READ)
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise UserError(f"it said nothing for {seconds:g} s")
            data = os.read(stdout.fileno(), 65536)
            if not data:
                raise UserError(f"it ended: {self.last_line()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def child_of(contestant: Contestant) -> Iterator[Child]:
    """Yield a contestant's server, which answers; it has ended afterwards.

    Raises:
        UserError: It did not start; the message has its last line.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, contestant.serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is the parent's to handle: its end is ours
        )
        child = None
        try:
            child = Child(process, log)
            child.wait_until_up()
            yield child
        finally:
            if child is None:
                process.kill()
                process.wait()
            else:
                child.end()


# In the process itself


def main(where: str) -> None:
    """Serve by ``module:function`` until standard input closes."""
    module, _, function = where.partition(":")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # asyncio turns Nagle's delay off only for sockets whose protocol says TCP; without that an
    # answer in two pieces waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen(1024)
    _tell({"port": listener.getsockname()[1]})
    getattr(import_module(module), function)(make_app(_tell), listener)


def _tell(facts: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(0, 65536):  # not by Python's buffer, whose lock an ending interpreter wants
        pass
    os._exit(0)  # whatever loop the main thread is in


if __name__ == "__main__":
    main(sys.argv[1])
