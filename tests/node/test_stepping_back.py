"""A node that steps back for its owner: answers go on elsewhere, and it comes back by itself."""

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import ChainBroken, GenerationFailed, GenerationFinished
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.core import NodeCore
from p2pnode.node.holding_life import HoldingPhase
from p2pnode.node.life import Phase
from p2pnode.node.peer_snapshot import PeerView
from p2pnode.node.picture import World, snapshot
from p2pnode.node.resting import Rest
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.scheduler.trust import Entry
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.rest import RestCause
from tests.node.bundles import only

PROMPT = (3, 1, 4, 1, 5, 9, 2, 6)
REQUEST = GenerationRequest(PROMPT, 200, Sampling(), frozenset())
PATIENT = GenerationRequest(PROMPT, 60, Sampling(), frozenset(), wait=120.0)
BUSY = Rest(RestCause.CPU, "the owner uses 63% of the CPU")
NIGHT = Rest(RestCause.HOURS, "quiet hours until 07:00")


def a_swarm(*, spare: bool = True) -> Swarm:
    """Three stages of two layers, and perhaps a spare for the middle."""
    swarm = Swarm(1, Link(latency=(0.0005, 0.0005)), n_layers=6)
    for name, layers in (("a", range(2)), ("b", range(2, 4)), ("c", range(4, 6))):
        swarm.add(name, layers)
    if spare:
        swarm.add("spare", range(2, 4))
    swarm.introduce(*swarm.nodes)
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    return swarm


def rest(swarm: Swarm, name: str, why: Rest | None = BUSY) -> None:
    swarm.call(name, lambda node, now: node.rest(why, now))


def middle(swarm: Swarm) -> str:
    """Return the one of the middle nodes that computes."""
    return next(name for name in ("b", "spare") if name in swarm.nodes and computes(swarm, name))


def computes(swarm: Swarm, name: str) -> bool:
    return bool(swarm.nodes[name].inference.stages())


def picture_of(swarm: Swarm, name: str) -> NodeSnapshot:
    return snapshot(swarm.nodes[name], World(), swarm.network.now)


def seen_by(swarm: Swarm, name: str, peer: str) -> PeerView:
    return next(one for one in picture_of(swarm, name).peers if one.name == peer)


def entry_of(node: NodeCore, peer: NodeCore, now: float) -> Entry:
    return next(one for one in node.ledger.entries(now) if one.peer == peer.node_id)


def undisturbed(request: GenerationRequest) -> list[int]:
    swarm = a_swarm()
    number = swarm.generate("a", request)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    return swarm.tokens("a", number)


def test_an_answer_goes_on_elsewhere_at_once_with_the_same_tokens() -> None:
    swarm = a_swarm()
    number = swarm.generate("a", REQUEST)
    swarm.network.run(0.2)
    giver = middle(swarm)
    before = len(swarm.tokens("a", number))
    assert before > 2
    rest(swarm, giver)
    swarm.network.run(0.15)  # 47 positions are computed anew meanwhile
    assert not computes(swarm, giver)
    assert len(swarm.tokens("a", number)) > before + 2  # nobody waited for a timeout
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    events = [event for _, _, event in swarm.answers]
    (broken,) = [event for event in events if isinstance(event, ChainBroken)]
    assert broken.reason == "stepped back: its owner uses the CPU"
    assert GenerationFinished(number, "length") in events
    assert swarm.tokens("a", number) == undisturbed(REQUEST)


def test_it_stays_a_member_and_says_why_it_rests() -> None:
    swarm = a_swarm()
    rest(swarm, "b")
    swarm.network.run(2)
    peer = seen_by(swarm, "a", "b")
    assert (peer.state, peer.reason) == ("resting", "its owner uses the CPU")
    assert peer.layers == (2, 4)
    own = picture_of(swarm, "b")
    assert (own.state, own.reason) == ("resting", BUSY.words)
    assert own.layers == (2, 4)
    assert own.counters["node: stepped back: its owner uses the CPU"] == 1


def test_an_answer_that_fails_for_want_of_it_says_who_rests() -> None:
    swarm = a_swarm(spare=False)
    rest(swarm, "b", NIGHT)
    swarm.network.run(2)
    number = swarm.generate("a", GenerationRequest(PROMPT, 60, Sampling(), frozenset(), wait=1.0))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    (failed,) = [event for _, _, event in swarm.answers if isinstance(event, GenerationFailed)]
    assert failed.reason == "no peer serves layers [2, 4): b rests: it has quiet hours"
    assert failed.hint.startswith(
        "wait for who holds them and rests (b [2, 4)): --wait SECONDS; or"
    )


def test_no_answer_is_planned_through_it_until_it_comes_back() -> None:
    swarm = a_swarm(spare=False)
    rest(swarm, "b", NIGHT)
    swarm.network.run(2)
    number = swarm.generate("a", PATIENT)
    swarm.network.run(20)
    assert not swarm.tokens("a", number)
    (answer,) = picture_of(swarm, "a").generations
    assert answer.awaits == ((2, 4),)
    rest(swarm, "b", None)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 10)
    assert swarm.tokens("a", number) == undisturbed(PATIENT)
    assert seen_by(swarm, "a", "b").state == "serving"


def test_where_nobody_else_holds_its_layers_the_answer_waits_and_goes_on() -> None:
    swarm = a_swarm(spare=False)
    number = swarm.generate("a", PATIENT)
    swarm.network.run(0.1)
    shown = len(swarm.tokens("a", number))
    assert 0 < shown < 60
    rest(swarm, "b")
    swarm.network.run(30)
    assert not computes(swarm, "b")
    assert len(swarm.tokens("a", number)) == shown
    assert "nobody else holds [2, 4): answers wait" in swarm.nodes["b"].log[-2]
    rest(swarm, "b", None)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 10)
    assert swarm.tokens("a", number) == undisturbed(PATIENT)


def test_its_own_answers_are_computed_here_all_the_same() -> None:
    swarm = a_swarm(spare=False)
    number = swarm.generate("b", REQUEST)
    swarm.network.run(0.2)
    rest(swarm, "b")
    swarm.network.run(0.1)
    assert computes(swarm, "b")
    again = swarm.generate("b", REQUEST)
    assert swarm.network.run_until(lambda: swarm.ended("b", number), 60)
    assert swarm.network.run_until(lambda: swarm.ended("b", again), 60)
    for one in (number, again):
        assert swarm.tokens("b", one) == undisturbed(REQUEST)


def test_others_are_told_at_once_if_they_ask_all_the_same() -> None:
    """Whoever has not heard of it yet plans through it, and is refused by name."""
    swarm = a_swarm()
    rest(swarm, "b")
    number = swarm.generate("a", REQUEST)  # the very moment: no gossip has come yet
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 5)
    assert swarm.tokens("a", number) == undisturbed(REQUEST)


def test_stepping_back_weighs_little_in_the_ledger() -> None:
    swarm = a_swarm()
    number = swarm.generate("a", REQUEST)
    swarm.network.run(0.2)
    giver = middle(swarm)
    rest(swarm, giver)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    entry = entry_of(swarm.nodes["a"], swarm.nodes[giver], swarm.network.now)
    assert entry.offences == {"stepped_back": 1}
    assert entry.avoided_for < 6  # gone long before it comes back


def test_a_node_that_starts_at_rest_takes_on_nothing_before_it_is_over() -> None:
    swarm = a_swarm(spare=False)
    late = swarm.add("late")
    rest(swarm, "late", NIGHT)
    swarm.introduce("a", "late")
    swarm.network.run(10)
    assert only(late).life.phase is HoldingPhase.LISTENING
    assert not late.served
    peer = seen_by(swarm, "a", "late")
    assert (peer.state, peer.reason, peer.layers) == ("resting", "it has quiet hours", (0, 0))
    rest(swarm, "late", None)
    assert swarm.network.run_until(lambda: bool(late.served), 10)


@pytest.mark.parametrize("seconds", [1.0, 1.4, 1.8, 2.1])
def test_a_claim_under_way_is_taken_up_again(seconds: float) -> None:
    """At whatever point of joining the owner comes, the node serves in the end."""
    swarm = a_swarm(spare=False)
    late = swarm.add("late")
    swarm.introduce("a", "late")
    swarm.network.run(seconds)
    rest(swarm, "late")
    swarm.network.run(5)
    assert picture_of(swarm, "late").state == "resting"
    rest(swarm, "late", None)
    assert swarm.network.run_until(lambda: only(late).life.phase is HoldingPhase.SERVING, 10)
    swarm.network.run(3)
    assert seen_by(swarm, "a", "late").state == "serving"


def test_a_node_that_rests_can_leave() -> None:
    swarm = a_swarm()
    rest(swarm, "b")
    swarm.call("b", lambda node, now: node.leave(now))
    assert swarm.network.run_until(lambda: swarm.nodes["b"].life.phase is Phase.LEFT, 5)
    rest(swarm, "c")
    swarm.call("c", lambda node, now: node.leave(now))
    rest(swarm, "c", None)  # of no more interest
    assert swarm.network.run_until(lambda: swarm.nodes["c"].life.phase is Phase.LEFT, 5)
