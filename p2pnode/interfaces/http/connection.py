"""A connection: uvicorn's, by h11, with the bounds that it has not.

uvicorn gives a request's headers no time, lets h11 take heads of any size that come at once,
reads on for ever where a body does not end, though its request is answered, and stops reading from
a client that asks again before it has its answer: when that one vanishes, nobody knows. The names
overridden here are not documented; the tests beside show whether another version still has them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from email.utils import formatdate

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from p2pnode.interfaces.http.limits import HttpLimits, Reason, Refusals
from p2pnode.interfaces.http.refusal import Farewell, RefusedConnection, whole_answer

_SILENT = logging.getLogger(f"{__name__}.uvicorn")
_SILENT.setLevel(logging.CRITICAL + 1)  # what goes wrong is counted, and handlers' errors are ours
_LARGE = 431
_UNTIL_PROBED, _BETWEEN_PROBES, _PROBES = 15, 5, 3
"""Seconds and times: a client whose machine died is found out after half a minute."""


class Shared:
    """What all connections of a server have in common."""

    def __init__(self, config: Config, limits: HttpLimits, refusals: Refusals) -> None:
        self.config = config
        self.limits = limits
        self.state = ServerState()
        self.refusals = refusals
        self.refused: set[RefusedConnection] = set()
        self._second = 0

    def note_time(self, now: float) -> None:
        """Have the answers of this second carry its date."""
        if int(now) != self._second:
            self._second = int(now)
            self.state.default_headers = [(b"date", formatdate(now, usegmt=True).encode())]


class Connection(H11Protocol):
    """One client.

    ``_farewell`` is set with the last word that is not the app's; from then on nothing that
    comes is parsed, and the app hears that the client is gone.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.config, shared.state, {})
        self.logger = _SILENT
        self._shared = shared
        self._limits = shared.limits
        self._farewell: Farewell | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._heard = 0  # bytes of a body that is not complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._limits.connections:
            self._turn_away(transport)
            return
        super().connection_made(transport)
        _keep_honest(transport.get_extra_info("socket"))
        self._time_head()

    def data_received(self, data: bytes) -> None:
        if self._farewell is not None:
            self._farewell.hear(len(data))
            return
        self._shared.note_time(time.time())
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._untime_head()
            self._read_on()
        elif self._head_timer is None:
            self._time_head()
        self._bound_body(len(data))

    def send_400_response(self, msg: str) -> None:
        """Refuse what h11 could not parse; ``msg`` is uvicorn's and says nothing."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        reason = Reason.LARGE_HEAD if status == _LARGE else Reason.MALFORMED
        self._refuse(status, reason, "malformed_request")

    def connection_lost(self, exc: Exception | None) -> None:
        self._untime_head()
        self._untime_stall()
        self._untime_rest()
        if self._farewell is not None:
            self._farewell.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def pause_writing(self) -> None:
        super().pause_writing()
        loop = asyncio.get_running_loop()
        self._stall_timer = loop.call_later(self._limits.stall_seconds, self._stalled)

    def resume_writing(self) -> None:
        self._untime_stall()
        super().resume_writing()

    def shutdown(self) -> None:
        """Have no further request; an idle connection ends at once."""
        if (cycle := self._unanswered()) is None:
            self.transport.close()
        else:
            cycle.keep_alive = False

    def abort(self) -> None:
        self.transport.abort()

    def _turn_away(self, transport: asyncio.Transport) -> None:
        shared = self._shared
        if len(shared.refused) >= self._limits.refusing:
            shared.refusals.add(Reason.DROPPED)
            transport.set_protocol(asyncio.Protocol())
            transport.abort()
            return
        shared.refusals.add(Reason.OVERLOADED)
        refused = RefusedConnection(shared.refused.discard)
        shared.refused.add(refused)
        transport.set_protocol(refused)
        refused.connection_made(transport)

    def _read_on(self) -> None:
        """Go on reading where uvicorn stopped, since only who reads learns of a client's end."""
        cycle = self._unanswered()
        if cycle is None or cycle.more_body or not self.flow.read_paused:
            return
        if len(self.conn.trailing_data[0]) > self._limits.head_bytes:
            self._shared.refusals.add(Reason.AHEAD)
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _bound_body(self, size: int) -> None:
        """Hear out a body for some time once its request is answered, and no body for ever."""
        if self.conn.their_state is not h11.SEND_BODY or self._farewell is not None:
            self._heard = 0
            self._untime_rest()
            return
        self._heard += size
        if self._heard > self._limits.body_bytes:
            self._end_body()
        elif self._unanswered() is None and self._rest_timer is None:
            loop = asyncio.get_running_loop()
            self._rest_timer = loop.call_later(self._limits.rest_seconds, self._end_body)

    def _end_body(self) -> None:
        self._untime_rest()
        if self._unanswered() is None:
            self._shared.refusals.add(Reason.ENDLESS)
            self.transport.abort()
        else:
            self._refuse(413, Reason.ENDLESS, "request_too_large")

    def _refuse(self, status: int, reason: Reason, code: str) -> None:
        """Answer instead of the app, if it has said nothing yet, and end the connection."""
        self._shared.refusals.add(reason)
        self._untime_head()
        self._unset_keepalive_if_required()
        cycle = self._unanswered()
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if cycle is not None and cycle.response_started:
            self.transport.abort()
        else:
            self._farewell = Farewell(self.transport, whole_answer(status, str(reason), code))

    def _unanswered(self) -> RequestResponseCycle | None:
        """Return the request whose answer is not complete, unless the app no longer gives it."""
        cycle: RequestResponseCycle | None = self.cycle
        if self._farewell is not None or cycle is None or cycle.response_complete:
            return None
        return cycle

    def _time_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._head_timer = loop.call_later(self._limits.head_seconds, self._head_overdue)

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self.conn.trailing_data[0]:
            self._refuse(408, Reason.SLOW_HEAD, "slow_request")
        else:
            self._shared.refusals.add(Reason.SILENT)
            self.transport.close()

    def _stalled(self) -> None:
        self._stall_timer = None
        self._shared.refusals.add(Reason.STALLED)
        self.transport.abort()

    def _untime_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _untime_rest(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _untime_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def _keep_honest(sock: socket.socket | None) -> None:
    """Send at once, and ask the kernel to find out about clients that died without a word."""
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in (
        ("TCP_KEEPIDLE", _UNTIL_PROBED),
        ("TCP_KEEPINTVL", _BETWEEN_PROBES),
        ("TCP_KEEPCNT", _PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)
