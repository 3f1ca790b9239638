"""The far side: one contestant's server in a process of its own, and how it is started.

It ends when its standard input closes, which the operating system sees to even if we are killed.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from p2pnode.bench.think.contestant import Facts
from p2pnode.bench.think.placement import keep_on
from p2pnode.bench.think.roster import choose
from p2pnode.errors import UserError

STARTING = 30.0
"""Seconds until a server must have said where it listens. The slowest takes 1 s at 2.4 GHz."""

_ENDING = 2.0
"""Seconds in which a server ends of itself; it has nothing to tidy up, and is killed afterwards."""


@contextmanager
def server_process(name: str, core: int | None = None) -> Iterator[Facts]:
    """Yield what the server of contestant ``name`` tells its callers; it has ended afterwards.

    ``core`` is the one to keep it on; None leaves that to the system.

    Raises:
        UserError: It ended, or said nothing for ``STARTING``; the message has its last line.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is the parent's to handle: its end is ours
        )
        try:
            keep_on(process.pid, core)
            yield _facts(process, name, log)
        finally:
            _end(process)


def _facts(process: subprocess.Popen[bytes], name: str, log: IO[bytes]) -> Facts:
    if process.stdout is None or not _has_spoken(process.stdout):
        raise UserError(f"the server of {name} said nothing for {STARTING:g} s: {_last_line(log)}")
    line = process.stdout.readline()
    if not line:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING)
        raise UserError(f"the server of {name} did not start: {_last_line(log)}")
    facts: Facts = json.loads(line)
    return facts


def _has_spoken(stdout: IO[bytes]) -> bool:
    """Wait for a server's first bytes, which are its whole line, or its end."""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        return bool(selector.select(STARTING))


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    words = log.read().decode("utf-8", "replace").strip().splitlines()
    return words[-1] if words else "no word"


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# In the process itself


def main(name: str) -> None:
    """Serve until standard input closes."""
    link = choose((name,))[0].link
    if link is None:
        raise UserError(f"{name} has no server")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    link.serve(_tell)


def _tell(facts: Facts) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # whatever loop the main thread is in


if __name__ == "__main__":
    main(sys.argv[1])
