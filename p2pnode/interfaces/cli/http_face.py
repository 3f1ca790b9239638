"""The HTTP API of a node that runs here: a process beside it, started again when it ends."""

from __future__ import annotations

import logging
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from p2pnode.interfaces.cli.own_command import own_command

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_LIVED: Final = 60.0  # seconds after which an end is no further failure in a row
_GRACE: Final = 3.0
"""Seconds for the process to end: two for the answers under way, and one to spare."""

_MOST_SAID: Final = 4096  # bytes of a line that it says


class HttpFace:
    """Serves the API on a socket that stays, whatever becomes of the process that serves it."""

    def __init__(self, listener: socket.socket, options: Sequence[str]) -> None:
        """``options`` are those of ``p2pnode serve``, but for where it listens."""
        self._listener = listener
        self._options = options
        self.restarts = 0

    async def run(self) -> None:
        """Keep a process serving until cancelled; then have it end."""
        pause = _FIRST_PAUSE
        with self._listener:
            while True:
                began = trio.current_time()
                try:
                    ended = f"ended (status {await self._serve()})"
                except OSError as error:  # the node goes on without, as after any other end
                    ended = f"cannot be started: {error}"
                lived = trio.current_time() - began
                pause = _FIRST_PAUSE if lived > _LIVED else min(2 * pause, _LONGEST_PAUSE)
                self.restarts += 1
                logger.warning("the HTTP API's process %s; another begins in %.1f s", ended, pause)
                await trio.sleep(pause)

    async def _serve(self) -> int:
        number = self._listener.fileno()
        command = [*own_command(), "serve", f"--fd={number}", "--with-parent", *self._options]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(number,),
            start_new_session=True,  # a Ctrl-C at the terminal is the node's to handle
        )
        try:
            if process.stderr is not None:
                await _repeat(process.stderr)
            return await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)


async def _repeat(said: trio.abc.ReceiveStream) -> None:
    """Write to the node's log what the process says of itself."""
    held = b""
    with suppress(trio.BrokenResourceError):
        async for data in said:
            *lines, held = (held + data).split(b"\n")
            held = held[-_MOST_SAID:]
            for line in lines:
                if text := line.decode("utf-8", "replace").strip():
                    logger.warning("HTTP API: %s", text[:_MOST_SAID])


async def _end(process: trio.Process) -> None:
    """Close its standard input, by which it ends; it is killed if it does not."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with trio.move_on_after(_GRACE):
        await process.wait()
    if process.poll() is None:
        process.kill()
        await process.wait()
    if process.stderr is not None:
        await process.stderr.aclose()
