"""p2pnode: V-Frames through the production transport.

A real handshake, every datagram sealed, repair and parity as a node has them by default. Both
sides act within the event that brings a message, as a node does; no task is switched to.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import trio

from p2pnode.interfaces.bench.think.contestant import (
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
from p2pnode.interfaces.bench.think.frames import frame_codec
from p2pnode.net.driver import Driver
from p2pnode.net.udp import UdpSocket, open_udp
from p2pnode.sansio import NodeId
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
    """Endpoint, driver and socket as a node composes them, without the rest of the node."""
    return Contestant("p2pnode", frame_codec, Link(_serve, _caller))


def _serve(ready: Ready) -> None:
    trio.run(_echo_forever, ready)


async def _echo_forever(ready: Ready) -> None:
    codec = frame_codec()
    secret = secrets.token_bytes(_SECRET_BYTES)

    def on_event(event: TransportEvent, now: float) -> None:
        if isinstance(event, MessageReceived):
            answer = codec.encode(codec.decode(event.payload))
            endpoint.send(event.peer, answer, Delivery.LATENCY, now)

    socket = open_udp(HOST)
    endpoint = _endpoint(secret)
    driver = Driver(endpoint, socket, on_event)
    ready({"port": socket.address[1], "secret": secret.hex()})
    await driver.run()


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
        return trio.from_thread.run(self._echo, hidden, count, trio_token=self.up.result())

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
        self._driver = Driver(self._endpoint, socket, self._on_event)
        self._driver.call(lambda now: self._endpoint.connect((HOST, facts["port"]), now))
        await self._driver.run()

    async def _echo(self, hidden: F16Array, count: int) -> Echoes:
        self._hidden, self._seconds, self._left = hidden, [], count
        self._finished = trio.Event()
        try:
            with trio.fail_after(PATIENCE):
                self._driver.call(self._send)
                await self._finished.wait()
        except trio.TooSlowError as error:
            raise OSError("no answer") from error
        return Echoes(self._seconds, self._last)

    def _send(self, now: float) -> None:
        self._began = time.perf_counter()
        payload = self._codec.encode(self._hidden)
        self._endpoint.send(self._peer, payload, Delivery.LATENCY, now)

    def _on_event(self, event: TransportEvent, now: float) -> None:
        if isinstance(event, MessageReceived):
            self._last = self._codec.decode(event.payload)
            self._seconds.append(time.perf_counter() - self._began)
            self._left -= 1
            if self._left:
                self._send(now)
            else:
                self._finished.set()
        elif isinstance(event, PeerConnected):
            self._peer = event.peer
            self.up.set_result(trio.lowlevel.current_trio_token())
        elif isinstance(event, DialFailed | PeerDisconnected):
            raise OSError(event.reason)


def _endpoint(secret: bytes) -> Endpoint:
    identity = Identity(secrets.token_bytes(SEED_SIZE))
    rng = random.SystemRandom()
    return Endpoint(TransportConfig.lan(), identity, secret, rng, trio.current_time())
