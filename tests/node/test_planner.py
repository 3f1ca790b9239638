"""What a node's planner sees: the directory, whatever it is asked, and names as people use them."""

from dataclasses import fields, replace
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.inference.cover import Covered, CoverTask, Leg
from p2pnode.inference.memory import stage_bytes
from p2pnode.membership.records import Record, sign_record
from p2pnode.node.answering.question import Question, Tokens, request_of
from p2pnode.node.core import NodeCore
from p2pnode.node.picture import World, missing_layers, snapshot
from p2pnode.node.text_worker import Prompt
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, StageRun
from p2pnode.scheduler.standing import Standing
from p2pnode.testing.swarm import Swarm
from p2pnode.transport.identity import Identity
from p2pnode.wire.ad import CapabilityAd, ModelOffer
from p2pnode.wire.states import Rung
from tests.node.bundles import offers_seen

SAID = Tokens((1, 2))
PROMPT = Prompt((1, 2), 0, frozenset())


@pytest.fixture
def node() -> NodeCore:
    swarm = Swarm(1)
    core = swarm.add("a", range(3))
    swarm.network.run(3)
    return core


def add(node: NodeCore, number: int, ad: CapabilityAd, now: float = 5.0) -> NodeId:
    """Let ``node`` know one more member, as if its record had come by gossip."""
    identity = Identity(f"{number}".encode().ljust(32, b"."))
    record = Record(identity.node_id, 0, 1, (("10.0.1.1", 4000),), ad.encode())
    node.swim._members.accept(sign_record(record, identity, node.origin.swarm_tag), now)
    return identity.node_id


def an_ad(node: NodeCore, name: str, start: int = 0, stop: int = 6) -> CapabilityAd:
    ours = node.advert.compose()
    return replace(ours, name=name, first_layer=start, layer_count=stop - start)


def test_a_snapshot_reads_no_ad_again(node: NodeCore) -> None:
    for number in range(100):
        add(node, number, an_ad(node, f"n{number}"))
    first = snapshot(node, World(), 5.0)
    assert len(first.peers) == 100
    decoded = node.planner.directory.decoded
    assert decoded == 100
    for _ in range(3):
        assert snapshot(node, World(), 6.0).peers == first.peers
        assert len(offers_seen(node)) == 101
        assert not missing_layers(node)
    assert node.planner.directory.decoded == decoded
    changed = add_again(node, 7, an_ad(node, "renamed"))
    assert node.planner.name_of(changed) == "renamed"
    assert node.planner.directory.decoded == decoded + 1


def add_again(node: NodeCore, number: int, ad: CapabilityAd) -> NodeId:
    identity = Identity(f"{number}".encode().ljust(32, b"."))
    record = Record(identity.node_id, 1, 1, (), ad.encode())
    node.swim._members.accept(sign_record(record, identity, node.origin.swarm_tag), 5.0)
    return identity.node_id


def test_offers_of_one_space_leave_out_the_others(node: NodeCore) -> None:
    ours = an_ad(node, "same")
    same = add(node, 1, ours)
    add(node, 2, replace(ours, space_hash32=ours.space_hash32 ^ 1))
    assert {offer.peer for offer in node.planner.offers_of(ours.space_hash32)} == {
        node.node_id,
        same,
    }


def test_an_offer_is_drawn_anew_only_when_something_changed(node: NodeCore) -> None:
    peer = add(node, 1, an_ad(node, "b"))

    def drawn() -> object:
        return next(offer for offer in offers_seen(node) if offer.peer == peer)

    before = drawn()
    assert drawn() is before
    node.silent.add(peer)
    assert drawn() is not before
    assert not next(offer for offer in offers_seen(node) if offer.peer == peer).alive


def test_no_offer_is_kept_of_those_who_are_gone(node: NodeCore) -> None:
    ad = an_ad(node, "b")
    for number in range(50):  # each is shown, and forgotten
        peer = add(node, number, ad)
        assert len(node.planner.offers_of(ad.space_hash32)) == 2
        node.swim._members._remove(peer)
    assert len(node.planner.offers_of(ad.space_hash32)) == 1
    assert not node.planner._drawn


def test_an_exact_name_wins_over_a_key_and_over_nothing_but_its_namesakes(node: NodeCore) -> None:
    peer = add(node, 1, an_ad(node, "b"))
    hexlike = add(node, 2, an_ad(node, peer.hex()[:4]))
    assert node.planner.meant(peer.hex()[:4]) == hexlike
    assert node.planner.meant(peer.hex()[:12]) == peer
    assert node.planner.meant("a") == node.node_id
    assert node.planner.meant("nobody") is None
    other = add(node, 3, an_ad(node, "b"))
    with pytest.raises(UserError) as raised:
        node.planner.meant("b")
    assert f"b ({peer.hex()[:8]})" in str(raised.value)
    assert f"b ({other.hex()[:8]})" in str(raised.value)
    namesake = add(node, 4, an_ad(node, "a"))
    assert node.planner.find("a") == [node.node_id, namesake]
    assert node.planner.label_of(namesake) == f"a ({namesake.hex()[:8]})"


def test_to_prefer_somebody_absent_is_no_failure_and_the_plan_says_so(node: NodeCore) -> None:
    add(node, 1, an_ad(node, "b"))
    question = Question(SAID, 3, prefer=("cellar", "b"), avoid=("attic",))
    assert node.model is not None
    request = request_of(question, PROMPT, node.model, node.planner.meant)
    assert len(request.prefer) == 1
    assert not request.avoid
    plan = node.planner.view(request, Standing(), 5.0).chain()
    assert isinstance(plan, ChainPlan)
    assert plan.reasons[-2:] == (
        "nobody here is called 'cellar': --prefer and --avoid of it change nothing",
        "nobody here is called 'attic': --prefer and --avoid of it change nothing",
    )


def test_a_repair_reckons_memory_as_the_stage_that_is_asked_does(node: NodeCore) -> None:
    model = node.model
    assert model is not None
    question = Question(SAID, 30, activations="f16")
    request = request_of(question, PROMPT, model, node.planner.meant)
    needed = stage_bytes(model, 6, request.positions, "f16")
    peer = add(node, 1, replace(an_ad(node, "b"), kv_free_bytes=needed))
    view = node.planner.view(request, Standing(), 5.0)

    def instead_of(out_dtype: str) -> list[NodeId]:
        lost = StageRun(NodeId(bytes(32)), "gone", range(6), 0.0, "")
        leg = Leg(1, lost, out_dtype, frozenset({Rung.F16}))
        path = (node.node_id, lost.peer, node.node_id)
        found = CoverTask((view,), (leg,), frozenset({1}), path, False)()
        assert isinstance(found, Covered)
        return [run.peer for run in found.instead[1]]

    assert instead_of("f16") == [peer]
    assert instead_of("f32") == [node.node_id, peer]  # it has no room for all six
    room = stage_bytes(model, 6, request.positions, "f32")
    assert view.wanted.most_kv_bytes(6, 0) == room > needed


def test_a_node_of_several_models_is_planned_with_the_wanted_one(node: NodeCore) -> None:
    wanted = an_ad(node, "several")
    other = replace(wanted.first_offer, space_hash32=9, layer_count=2, model="other")
    peer = add(node, 1, replace(wanted, **fields_of(other), others=(wanted.first_offer,)))
    line = node.planner.directory.line(peer)
    assert line is not None
    assert line.ad is not None
    assert line.ad.model == "other"
    for offers in (offers_seen(node), node.planner.offers_of(wanted.space_hash32)):
        [offer] = [offer for offer in offers if offer.peer == peer]
        assert (offer.space_hash32, offer.layers) == (wanted.space_hash32, range(6))
    [offer] = node.planner.offers_of(9)
    assert (offer.peer, offer.layers) == (peer, range(2))
    changed = add_again(node, 1, wanted)
    assert changed == peer
    assert node.planner.offers_of(9) == []


def fields_of(offer: ModelOffer) -> dict[str, Any]:
    return {each.name: getattr(offer, each.name) for each in fields(offer)}


def test_a_plan_reckons_with_what_the_engine_of_each_stores(node: NodeCore) -> None:
    model = node.model
    assert model is not None
    request = request_of(Question(SAID, 30), PROMPT, model, node.planner.meant)
    half = model.kv_bytes_per_token_layer // 2
    free = stage_bytes(model, 6, request.positions, "f32", half)
    ad = replace(an_ad(node, "half"), kv_free_bytes=free, decode_layer_us=1)
    peers = [
        add(node, number, replace(ad, kv_bytes_per_token_layer=kv))
        for number, kv in ((1, half), (2, 0))
    ]
    found = node.planner.view(request, Standing(), 5.0).repair(
        range(6), (node.node_id, node.node_id), {node.node_id: "is not asked"}
    )
    assert isinstance(found, tuple)
    assert [run.peer for run in found] == peers[:1]


@pytest.mark.parametrize(
    ("activations", "sent", "value_bytes"),
    [(None, "f32", 4), ("f32", "f32", 4), ("f16", "f16", 2), ("auto", "f16", 2), ("q4", "f16", 2)],
)
def test_a_plan_reckons_with_what_is_sent(
    node: NodeCore, activations: str | None, sent: str, value_bytes: int
) -> None:
    model = node.model
    assert model is not None
    question = Question(SAID, 30, activations=activations)
    request = request_of(question, PROMPT, model, node.planner.meant)
    wanted = node.planner.view(request, Standing(), 5.0).wanted
    assert wanted.kv_bytes_needed(6, 0) == stage_bytes(model, 6, request.positions, sent)
    assert wanted.value_bytes == value_bytes
