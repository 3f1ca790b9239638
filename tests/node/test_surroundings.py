"""The network around a node changes: addresses, names, and the peers that are written down."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NoReturn, TypeVar

import pytest
import trio
import trio.testing

from p2pnode import CORES
from p2pnode.errors import UserError
from p2pnode.net.interfaces import Interface, InterfaceTable
from p2pnode.net.jobs import Failed, Finished, outcome_of
from p2pnode.node import surroundings
from p2pnode.node.config import NodeConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.identity import StateDirectory
from p2pnode.node.origin import Origin
from p2pnode.node.picture import World, snapshot
from p2pnode.node.remembered import FORGOTTEN_SECONDS, PROVEN_SECONDS, RememberedPeer
from p2pnode.node.surroundings import (
    HUNG_WRITE_SECONDS,
    LAST_WRITE_SECONDS,
    WRITE_SECONDS,
    Surroundings,
)
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.identity import Identity

T = TypeVar("T")
BOUND = ("::", 4747)
KITCHEN = ("kitchen.lan", 4747)


def table(*hosts: str) -> InterfaceTable:
    lo = Interface("lo", 1, (ipaddress.ip_interface("127.0.0.1/8"),), is_loopback=True)
    eth = Interface("eth0", 2, tuple(ipaddress.ip_interface(f"{host}/24") for host in hosts))
    return InterfaceTable((lo, eth))


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets the machine's addresses; it begins without any."""
    tables = [table()]
    monkeypatch.setattr(surroundings, "read_interfaces", lambda: tables[-1])
    return lambda *hosts: tables.append(table(*hosts))


class Diary(StateDirectory):
    """A state directory that notes when it is written, and can be full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[Sequence[RememberedPeer]] = []
        self.is_full = False

    def remember_peers(self, peers: Sequence[RememberedPeer]) -> None:
        if self.is_full:
            raise UserError("cannot use peers.json: No space left on device")
        self.written.append(tuple(peers))


TRUE_RUN_SYNC = trio.to_thread.run_sync


class Threads:
    """What goes to a thread takes half a virtual second, or until the disk answers again."""

    def __init__(self) -> None:
        self.disk = trio.Event()
        self.disk.set()
        self.writing = 0

    async def run_sync(
        self,
        work: Callable[[], T],
        *,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """As trio's own: a task that is cancelled leaves the thread behind, and it goes on."""
        is_write = isinstance(work, partial) and work.func.__name__ == "remember_peers"
        thread, outcomes, ended = object(), list[Finished[T] | Failed](), trio.Event()
        if limiter is not None:
            await limiter.acquire_on_behalf_of(thread)

        async def run() -> None:
            self.writing += is_write
            assert self.writing <= 1, "two writers at once"
            await trio.sleep(0.5)
            if is_write:
                await self.disk.wait()
            outcomes.append(outcome_of(work))
            self.writing -= is_write
            if limiter is not None:
                limiter.release_on_behalf_of(thread)
            ended.set()

        trio.lowlevel.spawn_system_task(run)
        with trio.CancelScope(shield=not abandon_on_cancel):
            await ended.wait()
        return outcomes[0].unwrap()


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    threads = Threads()
    monkeypatch.setattr(trio.to_thread, "run_sync", threads.run_sync)
    return threads


class Place:
    """A node's core with its surroundings, on a clock that jumps."""

    def __init__(self, path: Path, *peers: Address) -> None:
        origin = Origin(Identity(bytes(32)), bytes(32), 1, (("127.0.0.1", 4747),))
        now = trio.current_time()
        self.core = NodeCore(NodeConfig("here"), origin, Random(1), now)
        self.state = Diary(path)
        config = self.core.config
        self.around = Surroundings(origin, config, self.call, self.state, BOUND, peers, mdns=False)

    def call(self, command: Callable[[NodeCore, float], T], /) -> T:
        result = command(self.core, trio.current_time())
        while (due := self.core.next_timeout()) is not None and due <= trio.current_time():
            self.core.handle_timeout(trio.current_time())
        return result

    def called(self) -> dict[str, str]:
        picture = snapshot(self.core, World(), trio.current_time())
        return {one.address: one.reason for one in picture.called}


class Names(trio.abc.HostnameResolver):
    """A resolver that knows the names it was told."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (self.known[name], port))]

    async def getnameinfo(self, *_: object) -> NoReturn:
        raise NotImplementedError


@contextmanager
def names() -> Iterator[Names]:
    resolver = Names()
    before = trio.socket.set_custom_hostname_resolver(resolver)
    try:
        yield resolver
    finally:
        trio.socket.set_custom_hostname_resolver(before)


async def test_a_new_address_is_told_and_loopback_is_told_no_more(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    place = Place(tmp_path)
    assert place.core.reach.addresses == (("127.0.0.1", 4747),)
    for host in ("192.168.50.1", "192.168.50.77"):
        interfaces(host)
        await place.around._look_at_interfaces()
        assert place.core.reach.addresses == ((host, 4747),)
        await trio.sleep(2)
        place.call(NodeCore.handle_timeout)
        assert place.core.swim.record.addresses == ((host, 4747),)
    assert place.core.reach.is_near(("192.168.50.9", 1))
    assert not place.core.reach.is_near(("127.0.0.9", 1))


async def test_an_interface_that_vanishes_while_it_is_read_ends_nothing(
    tmp_path: Path,
    interfaces: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    interfaces("10.0.0.1")
    place = Place(tmp_path)

    def vanish() -> NoReturn:
        raise OSError(19, "No such device")

    monkeypatch.setattr(surroundings, "read_interfaces", vanish)
    await place.around._look_at_interfaces()
    assert place.core.reach.addresses == (("10.0.0.1", 4747),)


async def test_nothing_new_is_no_news(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    interfaces("10.0.0.1")
    place = Place(tmp_path)
    said = list(place.core.log)
    for _ in range(5):
        await place.around._look_at_interfaces()
        await trio.sleep(2)
        place.call(NodeCore.handle_timeout)
    assert list(place.core.log) == said


async def test_a_container_that_starts_is_told_of_and_moves_nobody(
    tmp_path: Path,
    interfaces: Callable[..., None],
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interfaces("10.0.0.1")
    place = Place(tmp_path)
    before = place.core.reach
    faces = table("10.0.0.1").interfaces
    veth = Interface("veth7", 8, (ipaddress.ip_interface("fe80::7/64"),), is_software=True)
    bridge = Interface("br-1", 7, (ipaddress.ip_interface("172.18.0.1/16"),), is_software=True)
    for software in ((veth,), (veth, bridge)):
        monkeypatch.setattr(
            surroundings, "read_interfaces", partial(InterfaceTable, (*faces, *software))
        )
        await place.around._look_at_interfaces()
        assert not place.core.reach.has_moved_from(before)
    assert place.core.reach.addresses == (("10.0.0.1", 4747), ("172.18.0.1", 4747))
    assert place.core.reach.is_near(("172.18.0.9", 1))
    monkeypatch.setattr(surroundings, "read_interfaces", lambda: table("10.0.0.2"))
    await place.around._look_at_interfaces()
    assert place.core.reach.has_moved_from(before)


async def test_a_name_that_leads_nowhere_yet_is_shown_and_followed_later(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    with names() as resolver:
        place = Place(tmp_path, KITCHEN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.around.run)
            await trio.sleep(20)
            assert "unknown host" in place.called()["kitchen.lan:4747"]
            assert sum("kitchen" in line for line in place.core.log) == 1  # said once
            resolver.known["kitchen.lan"] = "10.0.0.2"
            await trio.sleep(4)
            assert list(place.core.dialer.fixed) == [("10.0.0.2", 4747)]
            assert list(place.called()) == ["10.0.0.2:4747"]
            resolver.known["kitchen.lan"] = "10.0.0.3"
            await trio.sleep(4)
            assert list(place.core.dialer.fixed) == [("10.0.0.3", 4747)]
            nursery.cancel_scope.cancel()


async def test_however_many_are_met_there_is_one_write_in_five_seconds_and_one_at_the_end(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    place = Place(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.around.run)
        await trio.sleep(0.1)
        for number in range(43 * 20):
            place.around.met(NodeId(number.to_bytes(32, "big")), ("10.0.0.9", 4747))
            await trio.sleep(1 / 43)
        assert 2 <= len(place.state.written) <= 20 / WRITE_SECONDS + 1
        place.around.met(NodeId(bytes([9]) * 32), ("10.0.0.9", 4747))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert place.state.written[-1][0].node_id == bytes([9]) * 32


async def test_a_full_disk_is_said_once_and_tried_again(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    place = Place(tmp_path)
    place.state.is_full = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.around.run)
        place.around.met(NodeId(bytes([9]) * 32), ("10.0.0.9", 4747))
        await trio.sleep(200)
        assert sum("No space" in line for line in place.core.log) == 1
        assert place.core.counters["remembered peers not written"] >= 3
        place.state.is_full = False
        await trio.sleep(70)
        assert len(place.state.written) == 1
        nursery.cancel_scope.cancel()


async def test_a_disk_that_hangs_holds_up_neither_the_node_nor_its_end(
    tmp_path: Path,
    interfaces: Callable[..., None],
    autojump_clock: trio.testing.MockClock,
    threads: Threads,
) -> None:
    place = Place(tmp_path)
    threads.disk = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.around.run)
        place.around.met(NodeId(bytes([9]) * 32), ("10.0.0.9", 4747))
        await trio.sleep(HUNG_WRITE_SECONDS + 1)
        assert sum("disk does not answer" in line for line in place.core.log) == 1
        await trio.sleep(300)
        assert sum("disk does not answer" in line for line in place.core.log) == 1
        assert place.core.counters["remembered peers not written"] >= 3
        assert threads.writing == 1
        asked = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - asked == pytest.approx(LAST_WRITE_SECONDS)
    assert place.state.written == []


async def test_a_write_under_way_at_the_end_is_followed_by_the_last_and_not_the_reverse(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    place = Place(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.around.run)
        place.around.met(NodeId(bytes([8]) * 32), ("10.0.0.8", 4747))
        await trio.sleep(0.2)  # into the first write
        place.around.met(NodeId(bytes([9]) * 32), ("10.0.0.9", 4747))
        nursery.cancel_scope.cancel()
    assert [len(peers) for peers in place.state.written] == [1, 2]


async def test_a_thread_that_was_left_behind_keeps_the_next_writer_out(
    tmp_path: Path,
    interfaces: Callable[..., None],
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With true threads: that trio gives the place free when the thread ends, and not before."""

    def write(peers: Sequence[RememberedPeer]) -> None:
        writers.append(len(peers))
        trio.from_thread.run_sync(began.set)
        assert disk.wait(60)

    monkeypatch.setattr(trio.to_thread, "run_sync", TRUE_RUN_SYNC)
    place = Place(tmp_path)
    monkeypatch.setattr(place.state, "remember_peers", write)
    writers: list[int] = []
    began, disk = trio.Event(), threading.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.around._keep_peers)
            place.around.met(NodeId(bytes([9]) * 32), ("10.0.0.9", 4747))
            await began.wait()
            nursery.cancel_scope.cancel()
        assert writers == [1]
    finally:
        disk.set()


async def test_a_broken_file_of_peers_is_said_and_stops_nothing(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    (tmp_path / "peers.json").write_text("{")
    place = Place(tmp_path)
    with trio.move_on_after(1):
        await place.around.run()
    assert any("peers.json.broken" in line for line in place.core.log)


async def test_remembered_peers_are_called(
    tmp_path: Path, interfaces: Callable[..., None], autojump_clock: trio.testing.MockClock
) -> None:
    peer = RememberedPeer(NodeId(bytes([9]) * 32), (("10.0.0.9", 4747),), 100)
    StateDirectory(tmp_path).remember_peers([peer])
    place = Place(tmp_path)
    with trio.move_on_after(1):
        await place.around.run()
    sent = place.core.datagrams_to_send()
    assert {one.destination for one in sent} == {("10.0.0.9", 4747)}


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
async def test_those_proven_at_an_earlier_start_are_no_strangers(
    tmp_path: Path,
    interfaces: Callable[..., None],
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    friend, passer_by = (
        RememberedPeer(NodeId(bytes([number]) * 32), (("10.0.0.9", 4747),), seconds)
        for number, seconds in ((8, PROVEN_SECONDS), (9, PROVEN_SECONDS - 1))
    )
    StateDirectory(tmp_path).remember_peers([friend, passer_by])
    place = Place(tmp_path)
    vouched: list[NodeId] = []
    monkeypatch.setattr(place.core.endpoint, "vouch", vouched.append)
    with trio.move_on_after(1):
        await place.around.run()
    assert vouched == [friend.node_id]


async def test_who_is_gone_for_too_long_is_called_no_more(
    tmp_path: Path,
    interfaces: Callable[..., None],
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = RememberedPeer(
        NodeId(bytes([9]) * 32), (("10.0.0.9", 4747),), 100, FORGOTTEN_SECONDS - 9
    )
    StateDirectory(tmp_path).remember_peers([gone])
    place = Place(tmp_path)
    friend = (NodeId(bytes([8]) * 32), ("10.0.0.8", 4747))
    monkeypatch.setattr(surroundings, "_sessions", lambda core, now: [friend])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.around.run)
        await trio.sleep(2)
        assert list(place.core.dialer.remembered) == [gone.node_id]
        await trio.sleep(20)
        assert not place.core.dialer.remembered
        nursery.cancel_scope.cancel()
    assert [peer.node_id for peer in place.state.written[-1]] == [friend[0]]
