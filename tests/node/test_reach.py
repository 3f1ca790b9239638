"""A node's place on the network: what is near, what is its own."""

import ipaddress

from p2pnode.node.reach import Reach

LAN = ipaddress.ip_network("192.168.50.0/24")
DOCKER = ipaddress.ip_network("172.17.0.0/16")
HERE = Reach(
    (("192.168.50.1", 4747), ("172.17.0.1", 4747)),
    (LAN, DOCKER),
    frozenset({"192.168.50.1", "172.17.0.1", "127.0.0.1"}),
)


def test_the_other_s_docker_bridge_is_our_own() -> None:
    theirs = (("172.17.0.1", 4747), ("10.8.0.2", 4747), ("192.168.50.2", 4747))
    assert HERE.order(theirs) == (("192.168.50.2", 4747), ("10.8.0.2", 4747))


def test_another_node_of_this_machine_is_not_our_own() -> None:
    assert not HERE.is_ours(("192.168.50.1", 5000))
    assert HERE.is_ours(("127.0.0.1", 4747))


def test_what_is_not_known_is_near() -> None:
    assert Reach((("10.0.0.1", 1),)).is_near(("203.0.113.9", 1))
    assert not HERE.is_near(("203.0.113.9", 1))
    assert not HERE.is_near(("kitchen", 1))
    assert not HERE.is_near(("fd00::1", 1))


def test_nobody_is_called_where_nobody_can_be() -> None:
    reach = Reach((("192.168.1.5", 4747),))
    told = ("224.0.0.1", "ff02::1", "::", "0.0.0.0", "255.255.255.255", "127.0.0.1", "::1", "x")
    there = ("192.168.1.9", 4747)
    assert reach.order((*((host, 22) for host in told), there)) == (there,)


def test_loopback_is_called_while_we_have_nothing_else() -> None:
    assert Reach((("127.0.0.1", 1),)).order((("127.0.0.1", 2),)) == (("127.0.0.1", 2),)


def test_a_bridge_moves_the_machine_nowhere_and_a_new_network_does() -> None:
    address = (("192.168.50.1", 4747),)
    lan = Reach(address, (LAN,), frozenset({"192.168.50.1"}), Reach(address, (LAN,)))
    docker = Reach(HERE.addresses, HERE.networks, HERE.hosts, lan.outward)
    away = Reach(address, (DOCKER,), lan.hosts, Reach(address, (DOCKER,)))
    assert not docker.has_moved_from(lan)
    assert not lan.has_moved_from(docker)
    assert away.has_moved_from(lan)
    turned = Reach(HERE.addresses[::-1], HERE.networks, HERE.hosts)
    assert not turned.has_moved_from(HERE)
    assert HERE.has_moved_from(Reach(HERE.addresses))
