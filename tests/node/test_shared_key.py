"""Two machines with one key: everybody names both, and what to do; answers go on."""

from random import Random

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.config import NodeConfig
from p2pnode.node.core import NodeCore
from p2pnode.node.origin import Origin
from p2pnode.node.picture import World, snapshot
from p2pnode.node.shared_keys import SharedKeys
from p2pnode.sansio import NodeId
from p2pnode.testing.swarm import PORT, SECRET, Swarm
from p2pnode.transport.config import TransportConfig
from p2pnode.wire.capability import KEY_SHARED
from p2pnode.wire.messages import SyncError, sync_frame

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
        said = swarm.nodes[name].shared_keys.seen(original.node_id, swarm.network.now)
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


def told(swarm: Swarm, node: NodeCore) -> str:
    return snapshot(node, World(), swarm.network.now).reason


def send(swarm: Swarm, name: str, to: NodeCore, code: str, message: str) -> None:
    frame = sync_frame(SyncError(code, message).to_body(), stream_id=0, frame_seq=0, space_hash32=0)
    swarm.call(name, lambda node, now: node.outbox.send_frame(to.node_id, frame, now))
    swarm.network.run(1)


def two() -> tuple[Swarm, NodeCore, NodeCore]:
    swarm = Swarm(1)
    a, b = swarm.add("a", range(6)), swarm.add("b", range(6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 20)
    return swarm, a, b


def test_what_a_member_says_of_our_key_is_its_word_and_fades() -> None:
    swarm, a, _ = two()
    before = told(swarm, a)
    send(swarm, "b", a, KEY_SHARED, "your key is\x1b[2J shared" + 300 * "!")
    assert told(swarm, a).startswith(f"{before}; b says: your key is[2J shared!!!")
    assert len(told(swarm, a)) < len(before) + 220
    swarm.network.run(a.config.key_shared_shown)
    assert told(swarm, a) == before


def test_a_members_word_does_not_hide_what_we_saw_ourselves() -> None:
    swarm, a, _ = two()
    where = "this one and the one at 10.0.0.77:4747"
    swarm.call("a", lambda node, now: node.key_is_shared(node.node_id, where, now))
    send(swarm, "b", a, KEY_SHARED, "all is well")
    assert told(swarm, a).startswith(f"two machines use one key, {where}")
    assert told(swarm, a).endswith("; b says: all is well")


def test_what_was_seen_of_a_peer_fades_after_the_cure() -> None:
    swarm, a, b = two()
    swarm.call("a", lambda node, now: node.key_is_shared(b.node_id, "here and there", now))
    (peer,) = snapshot(a, World(), swarm.network.now).peers
    assert "two machines use one key, here and there" in peer.reason
    swarm.network.run(a.config.key_shared_shown + 1)
    (peer,) = snapshot(a, World(), swarm.network.now).peers
    assert (peer.state, peer.reason) == ("serving", "")


def test_as_many_members_as_may_talk_take_little_room() -> None:
    keys = SharedKeys(600.0)
    for number in range(1000):
        peer = NodeId(number.to_bytes(32, "big"))
        keys.was_told(peer, 1000 * "x", number)
        keys.observed(peer, "text", number)
    said = keys.told(1000.0)
    assert said is not None
    assert (said.teller, len(said.words), said.others) == (peer, 200, 7)
    assert len(keys._seen) == 64
    assert keys.told(2000.0) is None
