"""An asynchronous client of the control socket, for faces with an asyncio loop."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

from p2pnode.errors import RemoteProtocolError, UserError, error_of
from p2pnode.net.control_door import BETWEEN_TRIES, connect, has_unix_sockets, try_connect
from p2pnode.net.control_lines import (
    CHUNK,
    LineBuffer,
    Rendered,
    encode_request,
    parse_object_untrusted,
)

Body: TypeAlias = dict[str, Any]

_PATIENCE = 10.0  # seconds to be let in


class NodeGoneError(UserError):
    """Nobody listens on the control socket, or whoever did has ended."""

    kind = "gone"


class ControlStream:
    """A connection to a running node, for one question.

    Attributes:
        result: What the method returned, once its events are over.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.result: Any = None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Connect; to leave hangs up, and the node cancels what is still under way.

        Raises:
            NodeGoneError: No node runs there.
        """
        try:
            # What waits for a slow reader stays in the node, which ends an answer nobody reads.
            async with asyncio.timeout(_PATIENCE):
                made = await _connected(path)
                reader, writer = await asyncio.open_connection(sock=made, limit=CHUNK)
        except OSError as error:  # of which a timeout is one
            raise NodeGoneError(
                "the node is not running", hint="start it again: p2pnode up"
            ) from error
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def events(
        self, method: str, params: Mapping[str, Any] | Rendered
    ) -> AsyncGenerator[Body]:
        """Ask, and yield each event as it comes; then there is a :attr:`result`.

        Raises:
            UserError: It is too long to ask, or the node refused.
            NodeGoneError: It ended before it had answered.
        """
        try:
            self._writer.write(encode_request(1, method, params))
            await self._writer.drain()
            buffer = LineBuffer()
            while data := await self._reader.read(CHUNK):
                for line in buffer.feed_untrusted(data):
                    answer = parse_object_untrusted(line)
                    if "event" not in answer:
                        self.result = _result(answer)
                        return
                    yield answer["event"]
        except (OSError, RemoteProtocolError) as error:
            raise _gone() from error
        raise _gone()

    async def call(self, method: str, params: Mapping[str, Any] | Rendered | None = None) -> Any:  # noqa: ANN401 -- whatever JSON a method answers with
        """Ask and return the result, whatever events came before.

        Raises:
            UserError: It is too long to ask, or the node refused.
            NodeGoneError: It ended before it had answered.
        """
        async with aclosing(self.events(method, params or {})) as events:
            async for _ in events:
                pass
        return self.result


async def _connected(path: Path) -> socket.socket:
    """Connect; where too many wait at the node's socket, wait as well.

    Raises:
        OSError: Nobody listens there.
    """
    if not has_unix_sockets():
        return await asyncio.to_thread(connect, path, _PATIENCE)
    while (made := try_connect(path)) is None:  # noqa: ASYNC110 -- no event tells of room
        await asyncio.sleep(BETWEEN_TRIES)
    return made


def _result(answer: Body) -> object:
    if "result" in answer:
        return answer["result"]
    error = answer.get("error")
    if not isinstance(error, dict):
        raise _gone()
    kind, message, hint = (str(error.get(key, "")) for key in ("kind", "message", "hint"))
    raise error_of(kind, message, hint)


def _gone() -> NodeGoneError:
    return NodeGoneError(
        "the node stopped before it had answered", hint="ask again when it runs again: p2pnode up"
    )
