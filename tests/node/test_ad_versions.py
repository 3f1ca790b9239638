"""Nodes that read ads of version 1 alone, and nodes that write version 2, in one swarm."""

from dataclasses import replace

import pytest

from p2pnode import CORES
from p2pnode.node.advert import Advert, AdvertOffer
from p2pnode.node.picture import World, snapshot
from p2pnode.node.resting import Rest
from p2pnode.node.snapshot import other_versions
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.ad import AdState, CapabilityAd
from p2pnode.wire.rest import RestCause


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of nodes that say, as nodes before version 2 do, that they read no other."""
    names = {"old"}
    encode = Advert.encode

    def written(self: Advert) -> bytes:
        if self.name not in names:
            return encode(self)
        return replace(self.compose(), reads=1, abilities=0).encode(1)

    monkeypatch.setattr(Advert, "encode", written)
    return names


@pytest.fixture
def swarm() -> Swarm:
    swarm = Swarm(1)
    for name in ("a", "b"):
        swarm.add(name, range(6))
    swarm.introduce("a", "b")
    swarm.network.run(10)
    return swarm


def versions(swarm: Swarm) -> list[int]:
    return [swarm.nodes[name].swim.record.ad[0] for name in "ab"]


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
@pytest.mark.usefixtures("old")
def test_all_say_version_1_while_somebody_reads_no_other(swarm: Swarm) -> None:
    assert versions(swarm) == [2, 2]
    swarm.add("old", range(6))
    swarm.introduce("a", "old")
    swarm.network.run(10)
    assert versions(swarm) == [1, 1]
    for name in "ab":
        node = swarm.nodes[name]
        assert node.counters["ads of version 1, for an older node"] == 1
        peers = snapshot(node, World(), swarm.network.now).peers
        assert {peer.name: peer.state for peer in peers}["old"] == "serving"
    line = swarm.nodes["a"].planner.directory.line(swarm.nodes["b"].node_id)
    assert line is not None
    assert line.ad is not None
    assert line.ad.reads == 2  # or both would wait for each other for ever
    swarm.call("old", lambda node, now: node.leave(now))
    swarm.network.run(100)
    assert versions(swarm) == [1, 1]
    swarm.network.run(60)
    assert versions(swarm) == [2, 2]


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
def test_whoever_changes_its_mind_makes_nobody_sign_at_each_word(
    swarm: Swarm, old: set[str]
) -> None:
    swarm.add("old", range(6))
    swarm.introduce("a", "old")
    swarm.network.run(10)
    signed = swarm.nodes["b"].swim.record.incarnation
    for _ in range(30):
        old ^= {"old"}
        swarm.call("old", lambda node, now: node.serving.announce(now))
        swarm.network.run(2)
    assert swarm.nodes["old"].swim.record.incarnation > 25
    assert swarm.nodes["b"].swim.record.incarnation == signed


def test_to_who_reads_version_1_alone_a_resting_node_is_draining() -> None:
    advert = Advert("den", "cpu", 0, resting=RestCause.GPU)
    advert.add(AdvertOffer(Swarm(1).model(), served=range(2)))
    ad = advert.compose()
    assert (ad.state, ad.resting) == (AdState.DRAINING, 2)
    old = CapabilityAd.decode_untrusted(ad.encode(1))
    assert (old.state, old.resting) == (AdState.DRAINING, 0)
    assert CapabilityAd.decode_untrusted(ad.encode()) == ad
    assert advert.compose(is_for_us=True).state is AdState.SERVING
    advert.draining = True
    assert advert.compose().resting == 0


def test_a_cause_that_this_version_does_not_know_is_rest_all_the_same(swarm: Swarm) -> None:
    swarm.call("b", lambda node, now: node.rest(Rest(RestCause.CPU, "busy"), now))
    swarm.nodes["b"].advert.resting = 200
    swarm.call("b", lambda node, now: node.swim.update_ad(node.advert.encode(), now))
    swarm.network.run(3)
    (peer,) = snapshot(swarm.nodes["a"], World(), swarm.network.now).peers
    assert (peer.state, peer.reason) == ("resting", "its owner wishes it so")


def test_what_somebody_runs_is_told_and_shown() -> None:
    swarm = Swarm(1)
    swarm.add("a", range(6))
    swarm.add("b", range(6))
    swarm.nodes["a"].advert.software, swarm.nodes["b"].advert.software = "0.2.0", "0.3.0"
    swarm.introduce("a", "b")
    swarm.call("b", lambda node, now: node.serving.announce(now))
    swarm.network.run(10)
    shown = snapshot(swarm.nodes["a"], World(), swarm.network.now)
    assert shown.software == "0.2.0"
    assert other_versions(shown) == {"0.3.0": ("b",)}


def test_who_does_not_say_what_it_runs_is_told_apart(swarm: Swarm) -> None:
    swarm.nodes["a"].advert.software = "0.2.0"
    shown = snapshot(swarm.nodes["a"], World(), swarm.network.now)
    assert other_versions(shown) == {"": ("b",)}
