"""A toy core and socket for the reactor, and a guard for cores touched without the lock."""

import threading
import time
from collections.abc import Callable
from typing import Any

import trio

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.net.jobs import Failed, Finished, Job
from p2pnode.sansio import Address, Transmit

PEER = ("127.0.0.1", 9)


class ToyCore:
    """Answers every datagram, reports it, and keeps whatever timers it is told to.

    ``bad...`` is malformed, ``bug`` our own fault.
    """

    def __init__(self) -> None:
        self.outbox: list[Transmit[Address]] = []
        self.events: list[str] = []
        self.timers: list[float] = []
        self.fired: list[float] = []
        self.heard: list[str] = []
        self.times: list[float] = []
        self.results: list[object] = []
        self.unwanted: set[str] = set()

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        if data.startswith(b"bad"):
            raise RemoteProtocolError(f"malformed {data[3:].decode()}: {data.hex()}")
        if data == b"bug":
            raise LocalProtocolError("our own fault")
        self.times.append(now)
        self.heard.append(data.decode())
        self.outbox.append(Transmit(source, b"re: " + data))
        self.events.append(data.decode())

    def handle_timeout(self, now: float) -> None:
        self.times.append(now)
        while self.timers and min(self.timers) <= now:
            self.timers.remove(min(self.timers))
            self.fired.append(now)
            self.events.append("timer")

    def next_timeout(self) -> float | None:
        return min(self.timers, default=None)

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken, self.outbox = self.outbox, []
        return taken

    def take_events(self) -> list[str]:
        taken, self.events = self.events, []
        return taken

    def finished(self, result: object) -> None:
        """Take what came of a job, and send it on."""
        self.results.append(result)
        self.outbox.append(Transmit(PEER, b"result"))


class ToySocket:
    """A socket fed by the test, which the engine thread cannot wait at."""

    fileno = -1

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Address]] = []
        self.sent: list[tuple[bytes, Address]] = []
        self.readable = trio.Event()

    async def wait_readable(self) -> None:
        await self.readable.wait()
        self.readable = trio.Event()

    def receive(self) -> tuple[bytes, Address] | None:
        return self.waiting.pop(0) if self.waiting else None

    def send(self, payload: bytes, destination: Address, *, is_probe: bool = False) -> bool:
        self.sent.append((payload, destination))
        return True

    def arrive(self, *payloads: bytes) -> None:
        self.waiting += [(payload, PEER) for payload in payloads]
        self.readable.set()


class Guard:
    """A core that may only be touched by whoever holds the lock."""

    def __init__(self, core: Any) -> None:
        self.__dict__.update(guarded=core, lock=None, faults=[])

    def __getattr__(self, name: str) -> Any:
        self._check(name)
        return getattr(self.guarded, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._check(name)
        setattr(self.guarded, name, value)

    def holds(self, lock: Any) -> None:
        self.__dict__["lock"] = lock

    def _check(self, name: str) -> None:
        if not self.lock._is_owned():
            self.faults.append(f"{name}, in {threading.current_thread().name}")


def job_of(
    event: str, run: Callable[[str], object] = str, units: Callable[[str], float] = lambda _: 0
) -> Job[ToyCore, object] | None:
    """Make a job of an event that begins with ``work``."""
    if not event.startswith("work"):
        return None

    def done(core: ToyCore, outcome: Finished[object] | Failed, now: float) -> None:
        core.finished(outcome.unwrap())

    return Job(lambda: run(event), done, units(event), lambda core: event not in core.unwanted)


def spin(seconds: float) -> None:
    """Hold the interpreter as pure Python does."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
