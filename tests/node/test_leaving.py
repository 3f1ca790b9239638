"""A node that leaves: it finishes what others asked, tells them, and is gone when it said."""

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import GenerationError
from p2pnode.inference.events import ChainBroken, GenerationFinished
from p2pnode.inference.request import GenerationRequest
from p2pnode.membership.health import Health
from p2pnode.node.core import NodeCore
from p2pnode.node.life import Phase
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.ad import AdState
from tests.node.bundles import offers_seen, only

REQUEST = GenerationRequest((3, 1, 4, 1, 5, 9, 2, 6), 24, Sampling(), frozenset())
LONG = GenerationRequest((3, 1, 4, 1, 5, 9, 2, 6), 200, Sampling(), frozenset())


def swarm_of_four(one_way: float = 0.0005, *, layer_seconds: float = 0.0005) -> Swarm:
    """Three stages of two layers, and a spare for the middle."""
    link = Link(latency=(one_way, one_way))
    swarm = Swarm(1, link, n_layers=6, layer_seconds=layer_seconds)
    for name, layers in (("a", range(2)), ("b", range(2, 4)), ("c", range(4, 6))):
        swarm.add(name, layers)
    swarm.add("spare", range(2, 4))
    swarm.introduce("a", "b", "c", "spare")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    return swarm


def health(of: NodeCore, seen_by: NodeCore) -> Health:
    (found,) = [one for one in seen_by.swim.members() if one.record.node_id == of.node_id]
    return found.health


def ad_state(of: NodeCore, seen_by: NodeCore) -> AdState:
    (found,) = [offer for offer in offers_seen(seen_by) if offer.peer == of.node_id]
    return found.state


def busy_middle(swarm: Swarm) -> NodeCore:
    """Return the one of the two middle nodes that computes."""
    return next(
        swarm.nodes[name] for name in ("b", "spare") if swarm.nodes[name].inference.stages()
    )


def phase(node: NodeCore) -> Phase:
    return node.life.phase


def undisturbed(request: GenerationRequest) -> list[int]:
    swarm = swarm_of_four()
    number = swarm.generate("a", request)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    return swarm.tokens("a", number)


@pytest.mark.parametrize("one_way", [0.0005, 0.02, 0.2])
def test_the_farewell_arrives_though_the_machine_is_gone_at_once(one_way: float) -> None:
    swarm = swarm_of_four(one_way)
    leaver = swarm.nodes["b"]
    swarm.call("b", lambda node, now: node.leave(now))
    swarm.network.run(0.05)
    swarm.kill("b")
    swarm.network.run(one_way + 0.05)
    for name in ("a", "c", "spare"):
        assert health(leaver, swarm.nodes[name]) is Health.LEFT


def test_a_node_waits_for_its_farewell_to_be_acknowledged_then_closes() -> None:
    swarm = swarm_of_four(0.2)
    leaver = swarm.nodes["b"]
    swarm.call("b", lambda node, now: node.leave(now))
    assert phase(leaver) is Phase.DEPARTING
    swarm.network.run(0.39)
    assert phase(leaver) is Phase.DEPARTING
    assert leaver.endpoint.peers()
    swarm.network.run(0.2)
    assert phase(leaver) is Phase.LEFT
    assert not leaver.endpoint.peers()


def test_the_sessions_of_others_finish_first() -> None:
    swarm = swarm_of_four()
    number = swarm.generate("a", LONG)
    swarm.network.run(0.2)
    busy = busy_middle(swarm)
    swarm.call(busy.config.name, lambda node, now: node.leave(now))
    swarm.network.run(0.5)
    assert phase(busy) is Phase.DRAINING
    assert ad_state(busy, swarm.nodes["a"]) is AdState.DRAINING
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert not [event for _, _, event in swarm.answers if isinstance(event, ChainBroken)]
    assert swarm.tokens("a", number) == undisturbed(LONG)
    assert swarm.network.run_until(lambda: phase(busy) is Phase.LEFT, 2)


def test_a_session_that_outlasts_the_deadline_is_handed_to_another() -> None:
    swarm = swarm_of_four(layer_seconds=0.01)
    number = swarm.generate("a", LONG)
    swarm.network.run(1.5)
    busy = next(
        swarm.nodes[name] for name in ("b", "spare") if swarm.nodes[name].inference.stages()
    )
    swarm.call(busy.config.name, lambda node, now: node.leave(now, drain=1.0))
    swarm.network.run(0.9)
    assert phase(busy) is Phase.DRAINING
    assert swarm.network.run_until(lambda: phase(busy) is Phase.LEFT, 1.0)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 120)
    events = [event for _, _, event in swarm.answers]
    broken = [event for event in events if isinstance(event, ChainBroken)]
    assert len(broken) == 1
    assert "leaving" in broken[0].reason
    assert GenerationFinished(number, "length") in events
    assert swarm.tokens("a", number) == undisturbed(LONG)


def test_asked_again_a_node_leaves_sooner_and_never_later() -> None:
    swarm = swarm_of_four(layer_seconds=0.01)
    swarm.generate("a", LONG)
    swarm.network.run(1.5)
    busy = next(
        swarm.nodes[name] for name in ("b", "spare") if swarm.nodes[name].inference.stages()
    )
    swarm.call(busy.config.name, lambda node, now: node.leave(now, drain=2.0))
    deadline = busy.life.deadline
    swarm.call(busy.config.name, lambda node, now: node.leave(now, drain=60.0))
    assert busy.life.deadline == deadline
    swarm.call(busy.config.name, lambda node, now: node.leave(now, drain=0.0))
    assert phase(busy) is Phase.DEPARTING
    swarm.network.run(1.1)
    swarm.call(busy.config.name, lambda node, now: node.leave(now))
    assert phase(busy) is Phase.LEFT


def test_nobody_admits_or_asks_while_leaving() -> None:
    swarm = swarm_of_four()
    swarm.generate("a", LONG)
    swarm.network.run(0.2)
    busy = next(
        swarm.nodes[name] for name in ("b", "spare") if swarm.nodes[name].inference.stages()
    )
    swarm.call(busy.config.name, lambda node, now: node.leave(now))
    with pytest.raises(GenerationError, match="leaving"):
        busy.generate(REQUEST, swarm.network.now)
    swarm.network.run(0.3)
    number = swarm.generate("c", REQUEST)
    assert swarm.network.run_until(lambda: swarm.ended("c", number), 60)
    assert swarm.tokens("c", number) == undisturbed(REQUEST)
    assert len(busy.inference.stages()) <= 1


def test_a_leaving_node_never_asks_for_a_moment_that_is_past() -> None:
    swarm = swarm_of_four()
    for name in ("b", "c", "a"):
        swarm.call(name, lambda node, now: node.leave(now))
        swarm.network.run(15)  # the network refuses a core that spins
        assert swarm.nodes[name].next_timeout() is None


def test_layers_that_arrive_too_late_are_not_offered() -> None:
    swarm = Swarm(1, n_layers=6)
    node = swarm.add("a", range(6))
    swarm.network.run(0.1)
    assert only(node).is_loading
    swarm.call("a", lambda node, now: node.leave(now))
    swarm.network.run(5)
    assert not node.served
    assert phase(node) is Phase.LEFT


def test_who_leaves_in_mid_answer_did_nothing_wrong() -> None:
    swarm = swarm_of_four(layer_seconds=0.01)
    number = swarm.generate("a", LONG)
    swarm.network.run(1.5)
    busy = busy_middle(swarm)
    swarm.call(busy.config.name, lambda node, now: node.swim.leave(now))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 120)
    assert swarm.tokens("a", number) == undisturbed(LONG)
    assert any(isinstance(event, ChainBroken) for _, _, event in swarm.answers)
    entries = swarm.nodes["a"].ledger.entries(swarm.network.now)
    assert not any(entry.offences for entry in entries)
