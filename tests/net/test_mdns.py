"""mDNS between services of one machine, on its loopback interface alone."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import trio
import trio.testing
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from p2pnode.net import mdns
from p2pnode.net.announcement import SERVICE_TYPE, Announcement
from p2pnode.net.mdns import (
    BATCH,
    MAX_PENDING,
    MAX_SIGHTINGS,
    Impaired,
    MdnsEvent,
    MdnsService,
    Sighted,
    Withdrawn,
    unheard,
)
from p2pnode.sansio import NodeId

pytestmark = pytest.mark.timeout(60)

MALFORMED = "a malformed announcement"


def announcement(number: int, name: str = "kitchen") -> Announcement:
    # Other runs of this suite may share the loopback interface, so names are this process's own.
    node_id = NodeId(os.getpid().to_bytes(8, "big") + bytes([number]) * 24)
    return Announcement(node_id, b"swarmtag", name, (("127.0.0.1", 4000 + number),))


@dataclass
class Ear:
    """Collects events and lets a test wait for one."""

    heard: list[MdnsEvent] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    def __call__(self, event: MdnsEvent) -> None:
        self.heard.append(event)
        self.news.set()

    async def hear(self, event: MdnsEvent) -> None:
        while event not in self.heard:
            await self.news.wait()
            self.news = trio.Event()


async def test_two_nodes_see_each_other_and_part() -> None:
    ours, theirs = announcement(1), announcement(2, "cellar")
    our_ear, their_ear = Ear(), Ear()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            us = MdnsService(ours, our_ear)
            nursery.start_soon(us.run)
            async with trio.open_nursery() as visit:
                visit.start_soon(MdnsService(theirs, their_ear).run)
                await our_ear.hear(Sighted(theirs))
                await their_ear.hear(Sighted(ours))
                visit.cancel_scope.cancel()
            await our_ear.hear(Withdrawn(theirs.node_id))
            assert us.problem == ""
            nursery.cancel_scope.cancel()
    assert not [event for event in our_ear.heard if event == Sighted(ours)]


async def test_a_stranger_s_nonsense_is_counted() -> None:
    counted = trio.Event()

    class Noticing(MdnsService):
        def _disbelieve(self, reason: str) -> None:
            super()._disbelieve(reason)
            if reason == MALFORMED:  # others on this machine announce themselves too
                counted.set()

    stranger = await trio.to_thread.run_sync(lambda: Zeroconf(interfaces=["127.0.0.1"]))
    info = ServiceInfo(
        SERVICE_TYPE,
        f"stranger-{os.getpid()}.{SERVICE_TYPE}",
        port=1,
        properties={"v": "1", "id": "\0" * 100},
        parsed_addresses=["127.0.0.1"],
    )
    ear = Ear()
    service = Noticing(announcement(3), ear)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            await trio.to_thread.run_sync(
                lambda: stranger.register_service(info, cooperating_responders=True)
            )
            await counted.wait()
            nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(stranger.close)
    seen = [event.announcement for event in ear.heard if isinstance(event, Sighted)]
    assert not [one for one in seen if ("127.0.0.1", 1) in one.addresses]


async def test_a_machine_without_multicast_is_told_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    tries: list[float] = []

    def refuse(**_: object) -> None:
        tries.append(trio.current_time())
        raise OSError(19, "No such device")

    async def here(work: Callable[[], object]) -> object:
        await trio.lowlevel.checkpoint()
        return work()

    monkeypatch.setattr(trio.to_thread, "run_sync", here)  # the clock waits for no thread
    monkeypatch.setattr(mdns, "Zeroconf", refuse)
    ear = Ear()
    service = MdnsService(announcement(4), ear)
    with trio.move_on_after(150):
        await service.run()
    assert "No such device" in service.problem
    assert ear.heard == [Impaired(service.problem)]  # said once
    assert tries == [0, 60, 120]  # and tried again each minute: a network may come later


async def test_where_ipv6_fails_ipv4_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_six(**how: object) -> Zeroconf:
        if how["ip_version"] is IPVersion.All:
            raise OSError(97, "Address family not supported by protocol")
        return Zeroconf(interfaces=["127.0.0.1"])

    monkeypatch.setattr(mdns, "Zeroconf", refuse_six)
    monkeypatch.setattr(mdns, "unheard", lambda places: {})
    ear = Ear()
    service = MdnsService(announcement(4), ear, ("127.0.0.1", 1))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            await ear.news.wait()
            nursery.cancel_scope.cancel()
    [event] = [event for event in ear.heard if isinstance(event, Impaired)]
    assert "IPv4 alone" in event.problem


def test_an_interface_that_cannot_join_is_named() -> None:
    assert unheard(("127.0.0.1",)) == {}
    assert set(unheard(("192.0.2.77", 99_999))) == {"192.0.2.77", 99_999}


async def test_what_we_say_can_change_while_we_run() -> None:
    ear = Ear()
    before, after = announcement(7), announcement(7, "attic")
    moved = replace(after, addresses=(("127.0.0.1", 4077),))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(MdnsService(announcement(8), ear).run)
            speaker = MdnsService(before, Ear())
            nursery.start_soon(speaker.run)
            await ear.hear(Sighted(before))
            speaker.update(moved, ("127.0.0.1",))
            await ear.hear(Withdrawn(before.node_id))
            await ear.hear(Sighted(moved))
            nursery.cancel_scope.cancel()


async def test_the_same_in_another_order_is_not_said_again() -> None:
    service = MdnsService(announcement(9), Ear(), ("127.0.0.1", "10.0.0.1"))
    service.update(announcement(9), ("10.0.0.1", "127.0.0.1"))
    assert not service._changed.is_set()


@pytest.mark.parametrize("name", ["\x1b[2Jevil\x07", "", "a" * 70, ".", "\udc80", "x._tcp.local."])
async def test_an_impossible_name_is_counted_and_no_more(name: str) -> None:
    service = MdnsService(announcement(5), Ear())
    listener = await trio.to_thread.run_sync(lambda: Zeroconf(interfaces=["127.0.0.1"]))
    try:
        [news] = await trio.to_thread.run_sync(
            service._resolve, listener, [f"{name}.{SERVICE_TYPE}"]
        )
    finally:
        await trio.to_thread.run_sync(listener.close)
    news()
    assert service.counters.total() == 1


async def test_strangers_cannot_fill_our_memory() -> None:
    ear = Ear()
    service = MdnsService(announcement(5), ear)
    for number in range(MAX_SIGHTINGS + 10):
        service._sight(f"{number}", announcement(6))
    assert service.counters["an announcement forgotten: too many"] == 10
    assert len(service._sighted) == MAX_SIGHTINGS
    heard = len(ear.heard)
    service._withdraw("0")  # forgotten
    service._withdraw("never seen")
    assert len(ear.heard) == heard
    service._withdraw("10")
    assert ear.heard[-1] == Withdrawn(announcement(6).node_id)


async def test_a_flood_of_names_is_looked_at_in_batches_the_latest_first() -> None:
    service = MdnsService(announcement(5), Ear())
    woken = [service._pend(f"{number}") for number in range(1000)]
    assert woken == [True, *[False] * 999]  # the loop is woken once
    assert service._take_pending() == [f"{number}" for number in range(999, 999 - BATCH, -1)]
    assert service.counters["an announcement not looked at: too many"] == 1000 - MAX_PENDING
    taken = BATCH
    while names := service._take_pending():
        taken += len(names)
    assert taken == MAX_PENDING
    assert service._pend("a newcomer")
