"""What clients may take of the server, and what became of those who wanted more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from p2pnode.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of connections, bytes and seconds.

    A body's size and the time for it are the app's: only it knows what it reads. Those here bound
    what comes when it reads no more.

    Attributes:
        connections: That are served at once. A node computes a few answers at a time, so most of
            them wait; whoever comes when all are taken is answered 503.
        refusing: Connections beyond those that are being answered 503 at once. Whoever comes when
            these are taken, too, is dropped without a word.
        head_bytes: Of a request line and its headers. h11's own default; Apache has 8 KiB a line.
        head_seconds: From a connection's begin, or the first byte of a further request, to the end
            of its headers. A guess; Apache's default is 20 at least, nginx's 60.
        body_bytes: Of a body, whatever the app reads of it. Many clients send all before they read
            that it was refused, so well above what the app takes. A guess.
        rest_seconds: For the rest of a body whose request is answered. A guess.
        keep_alive_seconds: That a connection stays open after an answer. Above the 5 s of httpx and
            of Node.js, so that the client hangs up, and no request meets a closing connection.
        stall_seconds: That a client may leave what is sent to it unread. It holds a session of
            the node meanwhile. A guess.
        handshake_seconds: For TLS.
        grace_seconds: That answers have to end when the server stops; then they are cancelled.
    """

    connections: int = 256
    refusing: int = 512
    head_bytes: int = 16384
    head_seconds: float = 10.0
    body_bytes: int = 32 * 2**20
    rest_seconds: float = 10.0
    keep_alive_seconds: int = 20
    stall_seconds: float = 30.0
    handshake_seconds: float = 5.0
    grace_seconds: float = 1.5

    def __post_init__(self) -> None:
        for name in ("connections", "refusing", "head_bytes", "body_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in ("head", "rest", "keep_alive", "stall", "handshake", "grace"):
            if not 0 < getattr(self, f"{name}_seconds") < 86400:
                raise ConfigError(f"{name}_seconds must be above 0, and less than a day")


class Reason(StrEnum):
    """Why a connection or a request was refused or ended by us."""

    OVERLOADED = "all connections were taken"
    DROPPED = "so many were being refused that this one was dropped"
    MALFORMED = "the request was malformed"
    LARGE_HEAD = "its headers were too large"
    SLOW_HEAD = "its headers took too long"
    SILENT = "it asked nothing"
    ENDLESS = "its body did not end"
    AHEAD = "it sent too much before it had its answer"
    STALLED = "it left its answer unread"
    FAILED = "our handler failed"
    STOPPING = "the server stopped meanwhile"
    NO_DESCRIPTORS = "the process had no file descriptor left"


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """What the server did until now.

    Attributes:
        connections: Open now, and served.
        handlers: Requests that are being answered now.
        answered: Requests whose answer is complete.
        refused: How often for each reason, most often first; a reason that never was is left out.
    """

    connections: int
    handlers: int
    answered: int
    refused: Mapping[Reason, int]


class Refusals:
    """Counts refusals, and what the app answered.

    Attributes:
        statuses: How often it answered with each status of HTTP.
    """

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self.statuses: Counter[int] = Counter()

    def add(self, reason: Reason) -> None:
        self._counts[reason] += 1

    def as_mapping(self) -> dict[Reason, int]:
        return dict(self._counts.most_common())
