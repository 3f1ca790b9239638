"""Serves an ASGI app on a socket that listens, within limits, until it is told to stop.

Of uvicorn this is the HTTP connection, not its server: that one handles signals for the whole
process, writes log lines, and wakes ten times a second. Why uvicorn: docs/decisions/0033.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.config import Config

from p2pnode.interfaces.http.connection import Connection, Shared
from p2pnode.interfaces.http.guard import App, Guard
from p2pnode.interfaces.http.limits import HttpLimits, HttpStatistics, Reason, Refusals

logger = logging.getLogger(__name__)

_AFTER_CANCELLING = 0.3
"""Seconds for handlers to end once they are cancelled."""

_BACKLOG = 1024
_DESCRIPTORS = 4096
_CHUNK = 4096


class HttpServer:
    """One socket, one app.

    The app's lifespan is not run: what it needs is opened around :meth:`serve`.

    Attributes:
        stopping: Set when no further request is taken; a handler that streams may wait for it.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        limits: HttpLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``listener`` is closed at the end, however that comes."""
        self._limits = limits or HttpLimits()
        self._listener = listener
        self._tls = tls
        self.stopping = asyncio.Event()
        self._shared = _shared(app, self._limits)

    def stop(self) -> None:
        """Have :meth:`serve` return, within two seconds; from the loop's thread alone."""
        self.stopping.set()

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until :meth:`stop` or until cancelled.

        ``ready`` is called once connections are taken. At the end idle connections end at once,
        answers have ``grace_seconds``, and then they are cancelled.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_failed)
        self._listener.setblocking(False)
        server = await loop.create_server(
            lambda: Connection(self._shared),
            sock=self._listener,
            backlog=_BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=self._limits.handshake_seconds if self._tls else None,
        )
        try:
            ready()
            await self.stopping.wait()
        finally:
            self.stopping.set()
            server.close()
            try:
                await self._let_end()
            finally:
                self._abort()
                await asyncio.sleep(0)  # in which the sockets are closed

    def statistics(self) -> HttpStatistics:
        state = self._shared.state
        return HttpStatistics(
            connections=len(state.connections),
            handlers=len(state.tasks),
            answered=state.total_requests,
            refused=self._shared.refusals.as_mapping(),
        )

    async def _let_end(self) -> None:
        state = self._shared.state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=self._limits.grace_seconds)
        late = set(state.tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_AFTER_CANCELLING)

    def _abort(self) -> None:
        connections: list[Any] = [*self._shared.state.connections, *self._shared.refused]
        for connection in connections:
            connection.abort()

    def _loop_failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count what asyncio would write to the log with a traceback, once a client."""
        error = context.get("exception")
        if isinstance(error, OSError) and "accept" in str(context.get("message")):
            self._shared.refusals.add(Reason.NO_DESCRIPTORS)
        else:
            self._shared.refusals.add(Reason.FAILED)
            logger.error("%s", context.get("message"), exc_info=error)


def run(
    server: HttpServer, ready: Callable[[], None] = lambda: None, *, with_parent: bool = False
) -> None:
    """Serve in an event loop of its own until SIGTERM or Ctrl-C, and return quietly.

    ``with_parent``: also until standard input closes, since whoever started us has ended.
    """

    def stop_with_parent(loop: asyncio.AbstractEventLoop) -> None:
        with suppress(OSError):
            while os.read(0, _CHUNK):
                pass
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(server.stop)

    async def until_told() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
                loop.add_signal_handler(number, server.stop)
        if with_parent:
            threading.Thread(target=stop_with_parent, args=(loop,), daemon=True).start()
        await server.serve(ready)

    _raise_descriptors()
    gc.freeze()  # what is there stays: passing over it for each large body would take long
    with suppress(KeyboardInterrupt):
        asyncio.run(until_told())


def serve_app(app: App, listener: socket.socket) -> None:
    """Serve ``app`` with the default limits until SIGTERM or Ctrl-C."""
    run(HttpServer(app, listener))


def _raise_descriptors() -> None:
    """Ask the system for as many descriptors as all connections take, and the node's beside each.

    Many systems give a process 1,024 until it asks for more.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(_DESCRIPTORS, most)
        if least != resource.RLIM_INFINITY and least < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _shared(app: App, limits: HttpLimits) -> Shared:
    refusals = Refusals()
    config = Config(
        Guard(app, limits, refusals),
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=1,
        timeout_keep_alive=limits.keep_alive_seconds,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    config.load()
    return Shared(config, limits, refusals)
