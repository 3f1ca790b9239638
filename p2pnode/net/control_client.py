"""A synchronous client of the control socket, for faces without an event loop.

It imports no trio, so a command that only asks and prints starts in half the time.
"""

import socket
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeAlias

from p2pnode.errors import RemoteProtocolError, UserError, error_of
from p2pnode.net.control_door import answers, connect
from p2pnode.net.control_lines import (
    CHUNK,
    LineBuffer,
    encode_request,
    parse_object_untrusted,
)
from p2pnode.net.local_nodes import node_behind

Json: TypeAlias = Any
"""Whatever JSON a method answers with."""


_GLANCE, _GLANCES = 0.02, 15  # seconds, and how often: a process is gone within a few


class ControlClient:
    """A connection to a running node; for one thread at a time."""

    def __init__(self, path: Path, *, timeout: float | None = 10.0) -> None:
        """Connect; ``timeout`` bounds every wait for the node, in seconds, None for no bound.

        Raises:
            UserError: No node is running there.
        """
        self._lines: list[bytes] = []
        self._buffer = LineBuffer()
        self._last_id = 0
        self._has_begun = False
        self._path = path
        self._timeout = timeout
        try:
            self._socket = connect(path, timeout)
        except OSError as error:
            raise UserError("no node is running here", hint="start one: p2pnode up") from error
        self._node = node_behind(path)

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> Json:
        """Ask, hand every event to ``on_event``, and return the result.

        Raises:
            UserError: It is too long to ask; the node refused, stopped, or was silent for too long.
        """
        told = self.stream(method, params)
        while True:
            try:
                event = next(told)
            except StopIteration as end:
                return end.value
            if on_event is not None:
                on_event(event)

    def stream(
        self, method: str, params: Mapping[str, Any] | None = None
    ) -> Generator[dict[str, Any], None, Json]:
        """Ask, yield each event as it comes, and return the result; raises as :meth:`call`."""
        self._last_id += 1
        number = self._last_id
        self._has_begun = False
        self._send(encode_request(number, method, params or {}))
        while True:
            answer = self._answer()
            if answer.get("id") not in (number, None):
                continue  # left over from a call that was given up
            if "event" not in answer:
                return _result(answer)
            self._has_begun = True
            yield answer["event"]

    def close(self) -> None:
        """Hang up; the node cancels whatever this client still had running.

        A call that waits for the node in another thread ends at once, with a UserError.
        """
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # to close alone would wake nobody
        self._socket.close()

    def wait_until_closed(self, limit: float) -> bool:
        """Wait until the node hangs up, for ``limit`` seconds at most; return whether it did."""
        until = time.monotonic() + limit
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if not self._socket.recv(CHUNK):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._stopped() from error

    def _answer(self) -> dict[str, Any]:
        try:
            while not self._lines:
                self._lines = self._buffer.feed_untrusted(self._receive())
            return parse_object_untrusted(self._lines.pop(0))
        except RemoteProtocolError as error:
            raise _foreign() from error

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(CHUNK)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._stopped() from error
        if not data:
            raise self._stopped()
        return data

    def _stopped(self) -> UserError:
        """Say how the node ended; one that ended by itself has taken its note away."""
        when = "in the middle of its answer" if self._has_begun else "before it answered"
        node, again = self._node, "start it again: p2pnode up"
        if node is not None and node_behind(self._path) == node and _is_dead(self._path):
            return UserError(f"the node was killed {when} (process {node.pid})", hint=again)
        log = "the log in its state directory" if node is None else str(node.log)
        return UserError(f"the node stopped {when}", hint=f"{again}; why it stopped is in {log}")

    def _silent(self) -> UserError:
        return UserError(
            f"the node did not answer for {self._timeout:g} s", hint="it may be busy; try again"
        )


def _is_dead(path: Path) -> bool:
    """Whether nobody listens; the system closes a killed process's sockets in no known order."""
    for _ in range(_GLANCES):
        if not answers(path):
            return True
        time.sleep(_GLANCE)
    return False


def _result(answer: dict[str, Any]) -> object:
    if "result" in answer:
        return answer["result"]
    error = answer.get("error")
    if not isinstance(error, dict):
        raise _foreign()
    kind, message, hint = (str(error.get(key, "")) for key in ("kind", "message", "hint"))
    raise error_of(kind, message, hint)


def _foreign() -> UserError:
    return UserError(
        "what listens on the control socket is of another version",
        hint="stop the running node and start it again",
    )
