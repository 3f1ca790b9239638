"""mDNS between services of one machine, on its loopback interface alone."""

import os
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from zeroconf import ServiceInfo, Zeroconf

from p2pnode.net import mdns
from p2pnode.net.announcement import SERVICE_TYPE, Announcement
from p2pnode.net.mdns import MAX_SIGHTINGS, MdnsEvent, MdnsService, Sighted, Withdrawn
from p2pnode.sansio import NodeId

pytestmark = pytest.mark.timeout(60)


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
    assert service.counters["a malformed announcement"] >= 1
    assert not [event for event in ear.heard if isinstance(event, Sighted)]


async def test_a_machine_without_multicast_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr(mdns, "Zeroconf", refuse)
    service = MdnsService(announcement(4), Ear())
    await service.run()
    assert "No such device" in service.problem


async def test_strangers_cannot_fill_our_memory() -> None:
    ear = Ear()
    service = MdnsService(announcement(5), ear)
    for number in range(MAX_SIGHTINGS + 10):
        service._sight(f"{number}", announcement(6))
    assert len(ear.heard) == MAX_SIGHTINGS
    assert service.counters["too many announcements"] == 10
    service._withdraw("0")
    service._withdraw("never seen")
    assert ear.heard[-1] == Withdrawn(announcement(6).node_id)
