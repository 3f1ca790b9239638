"""p2pnode: V-Frames through the production transport.

A real handshake, every datagram sealed, repair and parity as a node has them by default. Reactor,
socket and the engine thread that waits at it are those of a node; a core in a node's place acts on
a message as it comes, and leaves the rest to the loop.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import trio

from p2pnode.bench.think.contestant import (
    HOST,
    PATIENCE,
    Caller,
    Contestant,
    Echoes,
    F16Array,
    Facts,
    Link,
    Ready,
)
from p2pnode.bench.think.frames import frame_codec
from p2pnode.net.reactor import Reactor
from p2pnode.net.udp import UdpSocket, open_udp
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import (
    Delivery,
    DialFailed,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    TransportEvent,
)
from p2pnode.transport.identity import SEED_SIZE, Identity

_SECRET_BYTES = 32


def p2pnode() -> Contestant:
    """Endpoint, reactor and socket as a node composes them, without the rest of the node."""
    return Contestant("p2pnode", frame_codec, Link(_serve, _caller), short="p2pnode")


class _Reader:
    """A core that hands messages to ``on_message`` as they come, as a node's core does."""

    def __init__(
        self, endpoint: Endpoint, on_message: Callable[[MessageReceived, float], None]
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._events: list[TransportEvent] = []
        self.datagrams_to_send = endpoint.datagrams_to_send
        self.next_timeout = endpoint.next_timeout

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self._endpoint.receive_datagram(data, source, now)
        self._hear(now)

    def handle_timeout(self, now: float) -> None:
        self._endpoint.handle_timeout(now)
        self._hear(now)

    def take_events(self) -> list[TransportEvent]:
        taken, self._events = self._events, []
        return taken

    def _hear(self, now: float) -> None:
        for event in self._endpoint.take_events():
            if isinstance(event, MessageReceived):
                self._on_message(event, now)
            else:
                self._events.append(event)


def _no_job(event: TransportEvent) -> None:
    """Leave it to the loop: the engine thread is there to wait at the socket."""


def _serve(ready: Ready) -> None:
    trio.run(_echo_forever, ready)


async def _echo_forever(ready: Ready) -> None:
    codec = frame_codec()
    secret = secrets.token_bytes(_SECRET_BYTES)

    def on_message(message: MessageReceived, now: float) -> None:
        answer = codec.encode(codec.decode(message.payload))
        endpoint.send(message.peer, answer, Delivery.LATENCY, now)

    socket = open_udp(HOST)
    endpoint = _endpoint(secret)
    reactor = Reactor(
        _Reader(endpoint, on_message), socket, lambda event, now: None, job_of=_no_job
    )
    ready({"port": socket.address[1], "secret": secret.hex()})
    await reactor.run()


@contextmanager
def _caller(facts: Facts) -> Iterator[Caller]:
    """Run a loop in a thread of its own: it must live on between two rounds."""
    caller = _Caller()
    with ThreadPoolExecutor(1, "think") as threads:
        ended = threads.submit(trio.run, caller.run, facts)
        ended.add_done_callback(caller.fail_if_not_up)
        token = caller.up.result(PATIENCE)
        try:
            yield caller
        finally:
            if not ended.done():
                token.run_sync_soon(caller.stop)
        ended.result()


class _Caller:
    """The near side; all but :meth:`echo` runs in the loop's thread.

    Attributes:
        up: Resolved once the far side is connected.
    """

    def __init__(self) -> None:
        self.up: Future[trio.lowlevel.TrioToken] = Future()
        self._codec = frame_codec()
        self._scope = trio.CancelScope()
        self._peer = NodeId(b"")
        self._seconds: list[float] = []
        self._left = 0

    def echo(self, hidden: F16Array, count: int) -> Echoes:
        try:
            return trio.from_thread.run(self._echo, hidden, count, trio_token=self.up.result())
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise OSError("the loop has ended: the far side was lost") from error

    def stop(self) -> None:
        self._scope.cancel()

    def fail_if_not_up(self, ended: Future[None]) -> None:
        """Tell whoever waits for us to be up why we never will be."""
        error = ended.exception()
        if error is not None and not self.up.done():
            self.up.set_exception(error)

    async def run(self, facts: Facts) -> None:
        """Connect, and serve :meth:`echo` until stopped."""
        with self._scope:
            socket = open_udp(HOST)
            try:
                await self._run(socket, facts)
            finally:
                socket.close()

    async def _run(self, socket: UdpSocket, facts: Facts) -> None:
        self._endpoint = _endpoint(bytes.fromhex(facts["secret"]))
        core = _Reader(self._endpoint, self._on_message)
        self._reactor = Reactor(core, socket, self._on_event, job_of=_no_job)
        self._reactor.call(lambda _, now: self._endpoint.connect((HOST, facts["port"]), now))
        await self._reactor.run()

    async def _echo(self, hidden: F16Array, count: int) -> Echoes:
        self._hidden, self._seconds, self._left = hidden, [], count
        self._finished = trio.Event()
        try:
            with trio.fail_after(PATIENCE):
                self._reactor.call(lambda _, now: self._send(now))
                await self._finished.wait()
        except trio.TooSlowError as error:
            raise OSError("no answer") from error
        return Echoes(self._seconds, self._last)

    def _send(self, now: float) -> None:
        self._began = time.perf_counter()
        payload = self._codec.encode(self._hidden)
        self._endpoint.send(self._peer, payload, Delivery.LATENCY, now)

    def _on_message(self, message: MessageReceived, now: float) -> None:
        """Runs in the engine thread, or in the loop's, never in both at once."""
        self._last = self._codec.decode(message.payload)
        self._seconds.append(time.perf_counter() - self._began)
        self._left -= 1
        if self._left:
            self._send(now)
        else:
            self._token.run_sync_soon(self._finished.set)

    def _on_event(self, event: TransportEvent, now: float) -> None:
        if isinstance(event, PeerConnected):
            self._peer = event.peer
            self._token = trio.lowlevel.current_trio_token()
            self.up.set_result(self._token)
        elif isinstance(event, DialFailed | PeerDisconnected):
            raise OSError(event.reason)


def _endpoint(secret: bytes) -> Endpoint:
    identity = Identity(secrets.token_bytes(SEED_SIZE))
    rng = random.SystemRandom()
    return Endpoint(TransportConfig.lan(), identity, secret, rng, trio.current_time())
