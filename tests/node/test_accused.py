"""An accusation alone takes nobody out of a plan."""

from p2pnode.membership.health import Health
from p2pnode.membership.records import Accusation, Claim, sign_claim
from p2pnode.testing.swarm import Swarm
from tests.node.bundles import offers_seen


def accused_swarm() -> Swarm:
    swarm = Swarm(1)
    swarm.add("a", range(3))
    swarm.add("b", range(3, 6))
    swarm.add("c", holds=False)
    swarm.introduce("a", "b", "c")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    return swarm


def accuse(swarm: Swarm, claimant: str) -> None:
    a, b = swarm.nodes["a"], swarm.nodes["b"]
    signer = swarm.nodes[claimant].origin.identity
    (held,) = [one for one in a.swim.members() if one.record.node_id == b.node_id]
    claim = Claim(Accusation.SUSPECT, signer.node_id, b.node_id, held.record.version)
    signed = sign_claim(claim, signer, a.origin.swarm_tag)
    assert a.swim._members.suspect(signed, swarm.network.now, "suspected")


def is_alive_to_a(swarm: Swarm) -> bool:
    a, b = swarm.nodes["a"], swarm.nodes["b"]
    (held,) = [one for one in a.swim.members() if one.record.node_id == b.node_id]
    assert held.health is Health.SUSPECT
    return next(offer for offer in offers_seen(a) if offer.peer == b.node_id).alive


def test_a_peer_that_only_another_suspects_is_still_planned() -> None:
    swarm = accused_swarm()
    accuse(swarm, "c")
    assert is_alive_to_a(swarm)


def test_a_peer_that_we_suspect_ourselves_is_not() -> None:
    swarm = accused_swarm()
    accuse(swarm, "a")
    assert not is_alive_to_a(swarm)
