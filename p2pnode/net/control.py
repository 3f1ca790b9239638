"""The control socket's server: how the CLI and the terminal UI reach a running node.

A stream socket that only its owner can open: :mod:`p2pnode.net.control_door`;
:mod:`p2pnode.net.control_lines` has the language. Requests of one connection run side by side; a
client that hangs up cancels its own.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from p2pnode.errors import RemoteProtocolError, UserError
from p2pnode.net.control_client import ControlClient
from p2pnode.net.control_door import Door, listen
from p2pnode.net.control_lines import (
    CHUNK,
    LineBuffer,
    Request,
    control_path,
    encode_line,
    encode_result,
    find_control_path,
    parse_request_untrusted,
)
from p2pnode.net.local_nodes import node_behind

__all__ = [
    "ControlClient",
    "Emit",
    "Handler",
    "control_path",
    "find_control_path",
    "serve_control",
]

Emit = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[dict[str, Any], Emit], Awaitable[object]]

MAX_REQUESTS = 64
"""Requests in flight on one connection; an honest face has one or two."""

_TOKEN_SECONDS = 5.0  # for a client's first line, where it is asked for

logger = logging.getLogger(__name__)


async def serve_control(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then remove the socket.

    A handler is ``async (params, emit) -> result``; ``await emit(event)`` sends an event first.

    Raises:
        UserError: Another live node serves this path, or it cannot be bound.
    """
    door = _listen(path)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(door.socket))

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            if await _is_admitted(door, stream):
                async with trio.open_nursery() as nursery:
                    await _Connection(stream, handlers, nursery, path).serve()

    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(serve, [listener], handler_nursery=nursery)
    finally:
        _remove(path)


async def _is_admitted(door: Door, stream: trio.SocketStream) -> bool:
    """Whether a client says the token, where one is asked for; others are not told why."""
    line = b""
    with trio.move_on_after(_TOKEN_SECONDS), suppress(trio.BrokenResourceError):
        while len(line) < len(door.token):
            if not (data := await stream.receive_some(len(door.token) - len(line))):
                return False
            line += data
    return door.admits(line)


class _Connection:
    """One client: reads lines, runs handlers, writes whole lines one after the other."""

    def __init__(
        self,
        stream: trio.SocketStream,
        handlers: Mapping[str, Handler],
        nursery: trio.Nursery,
        path: Path,
    ) -> None:
        self._stream = stream
        self._handlers = handlers
        self._nursery = nursery
        self._path = path
        self._writing = trio.Lock()
        self._running = 0

    async def serve(self) -> None:
        buffer = LineBuffer()
        try:
            while data := await self._stream.receive_some(CHUNK):
                for line in buffer.feed_untrusted(data):
                    await self._accept(line)
        except RemoteProtocolError as error:
            await self._refuse(None, str(error))
        except trio.BrokenResourceError:
            pass  # reset instead of closed
        self._nursery.cancel_scope.cancel()

    async def _accept(self, line: bytes) -> None:
        try:
            request = parse_request_untrusted(line)
        except RemoteProtocolError as error:
            await self._refuse(None, str(error))
            return
        handler = self._handlers.get(request.method)
        if handler is None:
            await self._refuse(request.id, f"no such method: {request.method[:64]}")
        elif self._running >= MAX_REQUESTS:
            await self._refuse(request.id, "too many requests at once")
        else:
            self._running += 1
            self._nursery.start_soon(self._run, request, handler)

    async def _run(self, request: Request, handler: Handler) -> None:
        async def emit(event: Mapping[str, Any]) -> None:
            await self._write(encode_line({"id": request.id, "event": event}))

        try:
            line = await _answer(request, handler, emit, self._path)
        finally:
            self._running -= 1
        await self._write(line)

    async def _refuse(self, number: int | None, message: str) -> None:
        await self._write(_error_line(number, message))

    async def _write(self, line: bytes) -> None:
        async with self._writing:
            try:
                await self._stream.send_all(line)
            except trio.BrokenResourceError:
                # Nobody is listening: what runs for this client ends as if cancelled.
                self._nursery.cancel_scope.cancel()
                await trio.lowlevel.checkpoint()


async def _answer(request: Request, handler: Handler, emit: Emit, control: Path) -> bytes:
    """Run a handler and return the line that ends its request.

    Whatever a handler raises ends the request and not the node: a face's odd parameters must not
    take down a node that computes for others.
    """
    try:
        return encode_result(request.id, await handler(request.params, emit))
    except UserError as error:
        return _error_line(request.id, str(error), error.hint, error.kind)
    except Exception as error:
        logger.exception("the control method %r failed", request.method)
        message = f"{request.method} failed inside the node: {type(error).__name__}: {error}"
        node = node_behind(control)
        hint = "p2pnode up -v shows more" if node is None else f"details in {node.log}"
        return _error_line(request.id, message, hint)


def _error_line(number: int | None, message: str, hint: str = "", kind: str = "") -> bytes:
    return encode_line({"id": number, "error": {"message": message, "hint": hint, "kind": kind}})


def _listen(path: Path) -> Door:
    try:
        return listen(path)
    except OSError as error:
        raise UserError(
            f"cannot open the control socket {path}: {error.strerror or error}",
            hint="is the directory writable, and the path shorter than 100 bytes?",
        ) from error


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
