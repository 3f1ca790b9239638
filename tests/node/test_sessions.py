"""What is told and kept of sessions that end, or never came up."""

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.core import NodeCore
from p2pnode.sansio import NodeId
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.events import DialFailed


def answering() -> tuple[Swarm, NodeCore, NodeCore, int]:
    """Return a swarm in which ``a`` has an answer that leans on ``b``."""
    swarm = Swarm(1)
    a, b = swarm.add("a", range(3)), swarm.add("b", range(3, 6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    number = swarm.generate("a", GenerationRequest((1, 2, 3), 100, Sampling(), frozenset()))
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    return swarm, a, b, number


def forget(node: NodeCore, peer: NodeId) -> None:
    """Let ``node`` lose its session with ``peer`` without a word of it on the wire."""
    connection = node.endpoint._peers.by_peer[peer]
    connection.ended = "lost"
    node.endpoint._establishing.reap(connection)


def offences(node: NodeCore, peer: NodeId, now: float) -> set[str]:
    pages = [dict(entry.offences) for entry in node.ledger.entries(now) if entry.peer == peer]
    return {offence for page in pages for offence, times in page.items() if times}


def test_a_handshake_done_anew_is_no_offence() -> None:
    swarm, a, b, number = answering()
    forget(b, a.node_id)
    swarm.call("b", lambda node, now: node.endpoint.connect(swarm.address("a"), now))
    swarm.network.run(1)
    assert any("replaced: the peer connected anew" in line for line in a.log)
    assert offences(a, b.node_id, swarm.network.now) == set()
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert len(swarm.tokens("a", number)) == 100


def test_a_peer_started_anew_was_lost_and_closed_nothing() -> None:
    swarm, a, b, number = answering()
    swarm.kill("b")
    swarm.add("b", range(3, 6))
    swarm.call("b", lambda node, now: node.endpoint.connect(swarm.address("a"), now))
    swarm.network.run(0.5)
    assert any("replaced: the peer started anew" in line for line in a.log)
    assert offences(a, b.node_id, swarm.network.now) == {"lost"}
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)


def test_a_peer_that_closes_its_session_in_mid_answer_is_entered() -> None:
    swarm, a, b, _ = answering()
    swarm.call("b", lambda node, now: node.endpoint.close(a.node_id, "no more", now))
    swarm.network.run(0.5)
    assert offences(a, b.node_id, swarm.network.now) == {"closed"}


def test_nothing_is_kept_of_the_way_to_a_peer_whose_session_is_over() -> None:
    swarm, a, b, _ = answering()
    assert b.node_id in a.links._ways
    swarm.kill("b")
    swarm.network.run(60)
    assert not a.endpoint.is_connected(b.node_id)
    assert a.links._ways == {}
    assert a.links.pending == set()


def test_the_host_of_an_ipv6_address_is_told_in_brackets() -> None:
    swarm = Swarm(1)
    node = swarm.add("a", holds=False)
    swarm.call("a", lambda one, now: one.connect(("fd00::9", 4747), now))
    swarm.network.run(6)
    (line,) = [line for line in node.log if line.startswith("nobody reached")]
    assert line.startswith("nobody reached at [fd00::9]:4747: no answer from [fd00::9]:4747 within")


def test_an_address_that_another_of_the_same_node_makes_needless_is_no_news() -> None:
    swarm = Swarm(1)
    a, b = swarm.add("a", holds=False), swarm.add("b", holds=False)
    second = ("fd00::2", 4747)

    def fail(reason: str, *, is_needless: bool) -> None:
        failure = DialFailed(second, b.node_id, reason, is_needless)
        a.endpoint._establishing._events.append(failure)
        swarm.call("a", lambda one, now: one.connect(second, now))

    swarm.call("a", lambda one, now: one.connect(second, now))
    fail("it has just answered elsewhere", is_needless=True)
    fail("refused there", is_needless=False)
    told = [line for line in a.log if line.startswith("nobody reached")]
    assert told == ["nobody reached at [fd00::2]:4747: refused there"]
