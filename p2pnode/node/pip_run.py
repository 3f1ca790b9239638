"""One run of ``pip``: what it says is kept, and nothing of it is left behind."""

import os
import selectors
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, Self

_POLL_SECONDS: Final = 0.1
_MOST_KEPT: Final = 2**16
"""Bytes of what pip says: its errors come last, and a progress display of someone's may be long."""

_FOUND: Final = (b"Collecting ", b"Processing ", b"Obtaining ", b"Downloading ", b"Using cached ")
"""How pip's lines begin once the index has answered."""


class PipRun:
    """A running pip, ended at the latest where its ``with`` block is left.

    What it says goes through a pipe, not into a file: the disk may be what is full.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._said = bytearray()
        self.has_found_it = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        if self._process.stdout is None:
            raise OSError("no pipe to pip")
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.returncode

    @property
    def output(self) -> str:
        """The last of what it said, both streams as they came."""
        return self._said.decode("utf-8", "replace")

    def is_running(self) -> bool:
        """Wait a moment for what it says; tell whether more may come."""
        if self._selector.select(_POLL_SECONDS) and self._hear():
            return True  # there may be more at once
        try:
            self._process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return True
        while self._hear():
            pass
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no pip behind, whatever interrupted us."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._selector.close()
        self._pipe.close()

    def _hear(self) -> bool:
        """Read once; tell whether anything came."""
        heard = self._pipe.read(_MOST_KEPT)
        if not heard:
            return False
        self._said += heard
        if any(line.strip().startswith(_FOUND) for line in self._said.splitlines()):
            self.has_found_it = True
        del self._said[:-_MOST_KEPT]
        return True
