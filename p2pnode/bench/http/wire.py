"""The client: sockets and bytes, so that it can send what no client would."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

HOST = "127.0.0.1"
PATIENCE = 10.0
"""Seconds for an answer that ought to come at once."""

_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        data: All bytes, heads and bodies.
        status: Of the first answer; 0 if there was none.
        is_closed: Whether the server ended the connection.
    """

    data: bytes
    status: int
    is_closed: bool

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]


def ask(port: int, target: str, seconds: float = PATIENCE) -> Reply:
    """GET ``target`` on a connection of its own."""
    with connected(port) as client:
        client.sendall(get(target, b"connection: close\r\n"))
        return reply(client, seconds)


def get(target: str, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (target.encode(), headers)


def post(target: str, headers: bytes, body: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (target.encode(), headers)
    return head + body


def connected(port: int, *, buffer: int = 0) -> socket.socket:
    """Connect; ``buffer`` bytes hold what is not read yet, 0 leaves that to the system."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(PATIENCE)
        client.connect((HOST, port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        client.close()
        raise
    return client


def reset(client: socket.socket) -> None:
    """End a connection by RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def reply(client: socket.socket, seconds: float, *, enough: bytes = b"") -> Reply:
    """Read until the server closes, until ``enough`` came, or for ``seconds``."""
    until, data, is_closed = time.monotonic() + seconds, b"", False
    while (left := until - time.monotonic()) > 0 and not (enough and enough in data):
        client.settimeout(left)
        try:
            more = client.recv(65536)
        except TimeoutError:
            break
        except OSError:  # a reset is an end, too
            more = b""
        if not more:
            is_closed = True
            break
        data += more
    return Reply(data, status_of(data), is_closed)


def status_of(data: bytes) -> int:
    """Return the status of the first answer that is no 1xx; 0 if there is none."""
    while data.startswith(b"HTTP/1."):
        word = data[9:12]
        if not word.isdigit():
            return 0
        if not word.startswith(b"1"):
            return int(word)
        data = data.partition(b"\r\n\r\n")[2]
    return 0


def send_all(client: socket.socket, data: bytes) -> None:
    """Send as much as the server takes: that it hangs up amid it is an answer."""
    with suppress(OSError):
        client.sendall(data)
