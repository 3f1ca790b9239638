"""The hostile machines of a simulation: they do what their way says, under key after key."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import ChainBroken, GenerationFinished
from p2pnode.inference.request import GenerationRequest
from p2pnode.membership.health import Health
from p2pnode.membership.messages import Digest, Message
from p2pnode.membership.records import Accusation, News, SignedClaim, is_genuine
from p2pnode.sansio import NodeId
from p2pnode.testing.hostile import WAYS
from p2pnode.testing.hostile_member import HostileMember, Rekeying, deal, who_is
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.identity import verify

HONEST = ("a", "b", "c")
PROMPT = tuple(range(3, 23))


def swarm_of_three() -> Swarm:
    swarm = Swarm(1, Link(latency=(0.0002, 0.0008)), kv_bytes=4 << 20)
    for name, first in zip(HONEST, (0, 2, 4), strict=True):
        swarm.add(name, range(first, first + 2))
    swarm.introduce(*HONEST)
    assert swarm.network.run_until(swarm.is_ready, 10)
    return swarm


def hostile(swarm: Swarm, way: str, rekeying: Rekeying = "never") -> HostileMember:
    member = HostileMember(swarm, "evil", HONEST, WAYS[way], rekeying, Random(way))
    member.appear()
    swarm.network.run(4)
    return member


def ask(swarm: Swarm, seconds: float = 20.0) -> int:
    request = GenerationRequest(PROMPT, 8, Sampling(), frozenset(), wait=5.0)
    number = swarm.generate("a", request)
    swarm.network.run_until(lambda: swarm.ended("a", number), seconds)
    return number


def broken(swarm: Swarm) -> list[ChainBroken]:
    return [event for _, _, event in swarm.answers if isinstance(event, ChainBroken)]


@given(
    ways=st.integers(1, 15).map(lambda count: [f"way {number}" for number in range(count)]),
    members=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_each_member_is_dealt_another_way_and_soon_all_are_seen(
    ways: list[str], members: int, seed: int
) -> None:
    members = min(members, len(ways))
    hands = len(ways) // members
    first = seed // hands * hands + 1
    dealt = [deal(ways, members, one) for one in range(first, first + hands)]
    assert dealt == [deal(ways, members, one) for one in range(first, first + hands)]
    seen = [way for hand in dealt for way in hand]
    assert len(set(seen)) == len(seen) == hands * members
    assert set(seen) <= set(ways)


def test_twelve_ways_are_seen_in_four_seeds() -> None:
    assert len(WAYS) == 12
    assert {way for seed in range(5, 9) for way in deal(tuple(WAYS), 3, seed)} == set(WAYS)


@pytest.mark.parametrize("way", ["silent", "closes", "refuses", "fails", "fades"])
def test_a_bad_stage_is_chosen_for_its_word_and_breaks_the_chain(way: str) -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, way)
    ask(swarm, seconds=30)
    assert member.jobs
    assert broken(swarm)  # whom the requester blames is its own affair


def test_states_that_are_no_numbers_are_passed_on() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "not-finite")
    ask(swarm)
    assert member.jobs
    assert broken(swarm)


def test_impossible_tokens_are_answered() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "impossible-tokens")
    number = ask(swarm)
    assert member.jobs
    assert all(token < 256 for token in swarm.tokens("a", number))


def test_a_slow_stage_is_slow_and_right() -> None:
    swarm = swarm_of_three()
    began = swarm.network.now
    alone = ask(swarm)
    assert swarm.network.now - began < 1
    hostile(swarm, "slow")
    swarm.network.run(30)  # a newcomer is not believed at once
    began = swarm.network.now
    with_it = ask(swarm, seconds=60)
    assert swarm.network.now - began > 2.8
    assert swarm.tokens("a", with_it) == swarm.tokens("a", alone)


def test_an_accuser_signs_claims_against_the_latest_word_of_the_honest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swarm = swarm_of_three()
    said: list[News | Message] = []

    def hear(
        self: HostileMember, peer: NodeId, news: Sequence[News], message: Message, now: float
    ) -> None:
        said.extend([*news, message])

    monkeypatch.setattr(HostileMember, "gossip", hear)
    member = hostile(swarm, "accuses")
    claims = [one for one in said if isinstance(one, SignedClaim)]
    honest = {swarm.nodes[name].node_id for name in HONEST}
    tag = member.node.origin.swarm_tag
    assert {one.claim.subject for one in claims} == honest
    assert {one.claim.accusation for one in claims} == set(Accusation)
    assert len({one.claim.claimant for one in claims}) == 4
    assert all(is_genuine(one, verify, tag) for one in claims)
    assert any(isinstance(one, Digest) and one.entries[0].health is Health.DEAD for one in said)


def test_ghosts_become_members() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "invents")
    known = {one.record.node_id for one in swarm.nodes["b"].swim.members()}
    assert len(known & set(member.identities)) > 3


def test_a_hoarder_holds_sessions_that_it_does_not_need() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "hoards")
    keys = set(member.identities)
    held = [stage for stage in swarm.nodes["b"].inference.stages() if stage.key[0] in keys]
    assert held


def test_a_flood_is_somebody_new_every_second() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "floods")
    assert 4 <= len(member.identities) <= 6
    known = {one.record.node_id for one in swarm.nodes["b"].swim.members()}
    assert len(known & set(member.identities)) > 1


def test_fresh_keys_are_taken_at_the_same_address() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "silent", "answer")
    first, place = member.node.node_id, swarm.address("evil")
    member.answer_over()
    swarm.network.run(4)
    assert member.node.node_id != first
    assert swarm.address("evil") == place
    assert list(who_is([member]).values()) == ["evil life 1", "evil life 2"]
    assert swarm.nodes["a"].endpoint.is_connected(member.node.node_id)


def test_a_named_machine_comes_back_as_somebody_else() -> None:
    swarm = swarm_of_three()
    member = hostile(swarm, "fails", "named")
    first = member.node.node_id
    member.named([swarm.nodes["b"].node_id])
    member.answer_over()
    swarm.network.run(2)
    assert member.node.node_id == first
    member.named([first])
    swarm.network.run(2)
    assert member.node.node_id != first


def test_an_answer_without_hostile_members_is_whole() -> None:
    """So what the tests above see is the hostile machines' doing."""
    swarm = swarm_of_three()
    ask(swarm)
    assert not broken(swarm)
    assert any(isinstance(event, GenerationFinished) for _, _, event in swarm.answers)
