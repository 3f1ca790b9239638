"""Which addresses others are told, from made-up tables of interfaces."""

import ipaddress
import sys
from collections.abc import Iterable

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from p2pnode.net.interface_watch import NetlinkChanges, PolledChanges, look_after_each
from p2pnode.net.interfaces import (
    MAX_REACHABLE,
    Interface,
    InterfaceTable,
    is_software,
    reachable_addresses,
    read_interfaces,
    source_host,
)

ANY, ANY4 = ("::", 4747), ("0.0.0.0", 4747)


def face(name: str, *addresses: str, index: int = 2, software: bool = False) -> Interface:
    found = tuple(ipaddress.ip_interface(one) for one in addresses)
    is_loopback = any(one.ip.is_loopback for one in found)
    return Interface(name, index, found, is_loopback, software)


LO = face("lo", "127.0.0.1/8", "::1/128", index=1)
LAN = face("eth0", "192.168.1.20/24", "fd00::20/64", "fe80::20/64", index=9)
BRIDGES = tuple(
    face(f"br-{number}", f"172.{number}.0.1/16", index=number, software=True)
    for number in range(17, 27)
)

LAN_HOST = "192.168.1.20"
EVERYWHERE = [LAN_HOST, "fd00::20", *(f"172.{number}.0.1" for number in range(17, 27))]


def hosts(table: InterfaceTable, proven: Iterable[str] = ()) -> list[str]:
    return [host for host, _ in table.reachable(ANY, frozenset(proven))]


def test_ten_bridges_never_crowd_out_the_lan() -> None:
    found = hosts(InterfaceTable((LO, *BRIDGES, LAN)))
    assert found[:2] == ["192.168.1.20", "fd00::20"]
    assert len(found) == MAX_REACHABLE


def test_the_default_route_comes_before_other_interfaces_and_proof_before_both() -> None:
    wifi = face("wlan0", "192.168.7.5/24", index=3)
    other = face("eth1", "10.1.1.1/24", index=2)
    table = InterfaceTable((LO, other, wifi, LAN, *BRIDGES[:1]), frozenset({"192.168.7.5"}))
    assert hosts(table)[:3] == ["192.168.7.5", "10.1.1.1", "192.168.1.20"]
    assert hosts(table, ["192.168.1.20"])[:2] == ["192.168.1.20", "192.168.7.5"]
    assert hosts(table)[-1] == "172.17.0.1"


@pytest.mark.parametrize("default", [frozenset({"192.168.1.20"}), frozenset[str]()])
def test_containers_that_prove_every_bridge_do_not_crowd_out_the_lan(
    default: frozenset[str],
) -> None:
    bridges = [f"172.{number}.0.1" for number in range(17, 25)]
    found = hosts(InterfaceTable((LO, *BRIDGES, LAN), default), bridges)
    assert found[:2] == ["172.17.0.1", "192.168.1.20"]
    assert found[3:] == bridges[1:6]
    assert hosts(InterfaceTable((LO, *BRIDGES, LAN)), [*bridges, "192.168.1.20"])[0] == LAN_HOST


@given(st.data())
def test_the_default_route_is_always_among_the_first_two(data: st.DataObject) -> None:
    table = InterfaceTable((LO, LAN, *BRIDGES), frozenset({data.draw(st.sampled_from(EVERYWHERE))}))
    proven = data.draw(st.frozensets(st.sampled_from(EVERYWHERE)))
    found = hosts(table, proven)
    assert set(found[:2]) & table.default_hosts
    if proven:
        assert found[0] in proven


def test_what_leads_away_is_neither_a_bridge_nor_the_end_of_one() -> None:
    veth = face("veth12", "fe80::1/64", index=40, software=True)
    vpn = face("wg0", "10.8.0.2/24", index=41, software=True)
    bridge = face("vmbr0", "192.168.9.2/24", index=42, software=True)
    table = InterfaceTable((LO, LAN, *BRIDGES, veth, vpn, bridge), frozenset({"192.168.9.2"}))
    assert table.outward().interfaces == (LO, LAN, vpn, bridge)


def test_a_bridge_with_the_default_route_is_a_lan() -> None:
    bridge = face("vmbr0", "192.168.1.2/24", software=True)
    table = InterfaceTable((LO, bridge, face("eth1", "10.0.0.1/24")), frozenset({"192.168.1.2"}))
    assert hosts(table)[0] == "192.168.1.2"


def test_loopback_is_told_only_where_there_is_nothing_else() -> None:
    assert hosts(InterfaceTable((LO,))) == ["127.0.0.1", "::1"]
    assert hosts(InterfaceTable((LO, LAN))) == ["192.168.1.20", "fd00::20"]
    assert hosts(InterfaceTable(())) == ["127.0.0.1"]  # a container whose loopback is down
    only_scoped = face("eth0", "fe80::20/64")
    assert hosts(InterfaceTable((LO, only_scoped))) == ["127.0.0.1", "::1"]


def test_a_bare_cable_comes_after_a_real_address() -> None:
    cable = face("eth1", "169.254.3.4/16", index=1)
    assert hosts(InterfaceTable((LO, cable, LAN)))[-1] == "169.254.3.4"


def test_a_socket_reaches_only_its_own_family_and_address() -> None:
    table = InterfaceTable((LO, LAN))
    assert table.reachable(ANY4) == (("192.168.1.20", 4747),)
    assert table.reachable(("10.9.9.9", 1)) == (("10.9.9.9", 1),)


def test_what_is_on_our_link() -> None:
    def near(table: InterfaceTable, bound: tuple[str, int], host: str) -> bool:
        ip = ipaddress.ip_address(host)
        return any(ip.version == one.version and ip in one for one in table.networks(bound))

    table = InterfaceTable((LO, LAN))
    assert near(table, ANY, "192.168.1.77")
    assert not near(table, ANY, "127.0.0.9")
    assert not near(table, ANY, "8.8.8.8")
    assert near(table, ("127.0.0.1", 1), "127.0.0.9")
    assert near(table, ("127.0.0.1", 1), "192.168.1.20")  # another node of this machine
    assert not near(table, ("127.0.0.1", 1), "192.168.1.77")
    assert near(InterfaceTable((LO,)), ANY, "127.0.0.9")


def test_mdns_is_spoken_on_the_lan_over_both_families_and_on_loopback() -> None:
    veth = face("veth12", "fe80::1/64", index=40, software=True)
    table = InterfaceTable((LO, veth, LAN))
    assert table.announcing(ANY) == ("127.0.0.1", "192.168.1.20", 9)
    assert table.announcing(ANY4) == ("127.0.0.1", "192.168.1.20")
    assert table.announcing(("127.0.0.1", 1)) == ("127.0.0.1",)


@pytest.mark.parametrize("name", ["docker0", "br-1a2b", "virbr0", "veth9f", "tun0", "wg0", "utun3"])
def test_names_that_software_gives(name: str) -> None:
    assert is_software(name)


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "en0", "no-such-interface"])
def test_names_of_what_one_can_touch(name: str) -> None:
    assert not is_software(name)


def test_this_machine_can_be_read() -> None:
    table = read_interfaces()
    assert "127.0.0.1" in table.hosts()
    assert reachable_addresses(("127.0.0.1", 9)) == (("127.0.0.1", 9),)
    assert reachable_addresses(ANY)
    assert source_host(("127.0.0.1", 9)) == "127.0.0.1"
    assert source_host(("not an address", 9)) is None


async def test_a_table_is_read_again_at_each_change(autojump_clock: trio.testing.MockClock) -> None:
    looked: list[float] = []

    async def look() -> None:
        looked.append(trio.current_time())

    with trio.move_on_after(9):
        await look_after_each(PolledChanges(), look)
    assert looked == [2.0, 4.0, 6.0, 8.0]  # a change is seen within 5 s


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
async def test_netlink_can_be_heard(autojump_clock: trio.testing.MockClock) -> None:
    try:
        changes = NetlinkChanges()
    except OSError as error:
        pytest.skip(f"netlink is denied here: {error}")
    try:
        await changes.wait()  # at the latest when nothing was told for long
    finally:
        changes.close()
