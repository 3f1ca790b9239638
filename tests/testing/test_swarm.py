"""Whole nodes on the virtual network: where they are, who they are, and what they say they cost."""

import ipaddress

from p2pnode.engine.base import StageCost
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import ComputeRequested
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Release, WorkFailed
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.ad import CapabilityAd

LAN = Link(latency=(0.0002, 0.0008))


def test_the_first_places_stay_and_there_are_many() -> None:
    swarm = Swarm(1)
    assert swarm.address("first") == ("10.0.0.1", 4747)
    places = [swarm.address(f"n{number}") for number in range(2000)]
    assert len(set(places)) == 2000
    assert all(ipaddress.ip_address(host) for host, _ in places)
    assert swarm.address("first") == ("10.0.0.1", 4747)


def test_a_machine_may_come_back_as_somebody_else_at_its_place() -> None:
    swarm = Swarm(1, LAN)
    swarm.add("a", range(3))
    first = swarm.add("b", range(3, 6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 10)
    place = swarm.address("b")
    second = swarm.add("b", range(3, 6), key="stranger")
    swarm.introduce("a", "b")
    swarm.network.run(5)
    assert second.node_id != first.node_id
    assert second.config.name == "stranger"
    assert swarm.address("b") == place
    assert swarm.nodes["a"].endpoint.is_connected(second.node_id)


def test_a_node_may_say_another_cost_than_its_own() -> None:
    swarm = Swarm(1, LAN, layer_seconds=0.002)
    swarm.add("honest", range(3))
    swarm.add("liar", range(3, 6), cost=StageCost(1, 1, 1, 1))
    swarm.network.run(2)
    costs = {
        name: CapabilityAd.decode_untrusted(node.swim.record.ad).decode_layer_us
        for name, node in swarm.nodes.items()
    }
    assert costs == {"honest": 2000, "liar": 1}


def test_work_may_be_taken_from_the_engine() -> None:
    taken: list[ComputeRequested] = []
    swarm = Swarm(1, LAN)

    def refuse(request: ComputeRequested) -> None:
        taken.append(request)
        if isinstance(request.work, Release):
            swarm.compute("a", request)
        else:
            swarm.finish("a", request, WorkFailed("out of order"))

    swarm.add("a", range(6), computer=refuse)
    assert swarm.network.run_until(swarm.is_ready, 10)
    swarm.generate("a", GenerationRequest((3, 4, 5), 2, Sampling(), frozenset(), wait=1.0))
    swarm.network.run(1)
    assert taken
    assert not swarm.tokens("a", 1)
