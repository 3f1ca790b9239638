"""Two machines with one key: everybody names both, and what to do; answers go on."""

from random import Random

from p2pnode.engine.base import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.config import NodeConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.origin import Origin
from p2pnode.node.picture import World, snapshot
from p2pnode.testing.swarm import PORT, SECRET, Swarm
from p2pnode.transport.config import TransportConfig

CLONE = ("10.0.0.77", PORT)
REQUEST = GenerationRequest((3, 1, 4, 1, 5), 12, Sampling(), frozenset(), wait=20.0)


def test_a_copied_key_is_named_on_every_node_and_flaps_nowhere() -> None:
    swarm = Swarm(3)
    for name, layers in (("a", range(2)), ("b", range(2, 4)), ("c", range(4, 6))):
        swarm.add(name, layers)
    swarm.introduce("a", "b", "c")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(5)
    original = swarm.nodes["b"]
    clone = NodeCore(
        NodeConfig("clone", transport=TransportConfig.simulation()),
        Origin(original.origin.identity, SECRET, 99, (CLONE,)),
        Random(9),
        swarm.network.now,
    )
    swarm.network.attach(CLONE, clone)
    swarm.network.call(CLONE, lambda now: clone.connect(swarm.address("a"), now))
    swarm.network.call(CLONE, lambda now: clone.connect(swarm.address("c"), now))
    swarm.network.run(20)

    for name in ("a", "c"):
        said = swarm.nodes[name].shared_keys[original.node_id]
        assert "10.0.0.77" in said
        assert "10.0.0.2" in said
        assert "identity.key" in said
        shown = snapshot(swarm.nodes[name], World(), swarm.network.now)
        (peer,) = [one for one in shown.peers if one.node_id == original.node_id.hex()]
        assert "two machines use one key" in peer.reason
        assert swarm.nodes[name].endpoint.address_of(original.node_id) == swarm.address("b")
    assert "identity.key" in snapshot(original, World(), swarm.network.now).reason

    before = {name: node.counters["one key on two machines"] for name, node in swarm.nodes.items()}
    number = swarm.generate("a", REQUEST)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert len(swarm.tokens("a", number)) == 12
    swarm.network.run(60)
    for name, node in swarm.nodes.items():
        assert node.counters["one key on two machines"] - before[name] <= 3
