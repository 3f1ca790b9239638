"""Whole nodes that join: the gap and no more, and the first of a swarm all of it."""

from dataclasses import replace

from p2pnode.membership.records import Record, sign_record
from p2pnode.node.core import NodeCore
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.identity import Identity
from p2pnode.wire.ad import AdState
from tests.node.bundles import only


def test_a_newcomer_with_room_for_all_takes_what_is_missing() -> None:
    swarm = Swarm(5)
    swarm.add("kitchen", range(3))
    swarm.network.run(2)
    late = swarm.add("late")
    swarm.introduce("kitchen", "late")
    swarm.network.run(5)
    assert late.served == range(3, 6)
    assert only(late).holdings.reason == "nobody else holds [3, 6)"
    assert swarm.is_ready()


def test_the_first_of_its_swarm_takes_all() -> None:
    swarm = Swarm(5)
    alone = swarm.add("alone")
    swarm.network.run(5)
    assert alone.served == range(6)


def test_who_took_a_part_takes_the_rest_when_its_holder_is_gone_for_good() -> None:
    swarm = Swarm(5)
    swarm.add("kitchen", range(3))
    late = swarm.add("late")
    swarm.introduce("kitchen", "late")
    swarm.network.run(5)
    swarm.kill("kitchen")
    swarm.network.run(60)
    assert late.served == range(6)


def invent(node: NodeCore, count: int, layers: range, state: AdState, now: float) -> None:
    """Let ``node`` know members that are only told of."""
    for number in range(count):
        identity = Identity(f"{state.name} {number}".encode().ljust(32, b"."))
        ad = replace(
            node.advert.compose(), first_layer=layers.start, layer_count=len(layers), state=state
        )
        record = Record(identity.node_id, 0, 1, (("10.0.1.1", 4000),), ad.encode())
        node.swim._members.accept(sign_record(record, identity, node.origin.swarm_tag), now)


def test_a_newcomer_among_many_that_were_invented_serves_in_time() -> None:
    swarm = Swarm(5, n_layers=30)
    node = swarm.add("late", max_layers=10)
    swarm.call("late", lambda node, now: invent(node, 900, range(10), AdState.JOINING, now))
    swarm.network.run(10)
    assert len(node.served) == 10
    assert only(node).holdings._ticket > 1  # it asked, for so many are not looked at in a moment
    assert node.counters["claim of one never heard left out"]


def test_a_leaving_node_goes_nowhere_whatever_it_had_asked() -> None:
    swarm = Swarm(5, n_layers=30)
    node = swarm.add("late", max_layers=10)
    swarm.call("late", lambda node, now: invent(node, 900, range(10), AdState.JOINING, now))
    assert swarm.network.run_until(lambda: only(node).holdings._is_asking, 10)
    swarm.call("late", lambda node, now: node.leave(now))
    swarm.network.run(10)
    assert not node.served
