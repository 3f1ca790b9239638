"""The snapshot shows whom the node distrusts and why; old and new faces read it."""

import json
from dataclasses import asdict

import pytest

from p2pnode.engine.base import EngineProfile, StageCost
from p2pnode.interfaces.doctor.swarm import explain_node
from p2pnode.node.advert import Advert, AdvertOffer
from p2pnode.node.capacity import Capacity
from p2pnode.node.core import NodeCore
from p2pnode.node.picture import World, snapshot
from p2pnode.node.snapshot import ways
from p2pnode.node.snapshot_json import fields_of, from_json
from p2pnode.scheduler.trust import Offence
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.ad import CapabilityAd
from tests.node.bundles import only


@pytest.fixture(scope="module")
def node() -> NodeCore:
    swarm = Swarm(3)
    core = swarm.add("a", range(6))
    swarm.add("b", range(6))
    swarm.introduce("a", "b")
    swarm.network.run(4)
    return core


def test_the_ledger_is_in_the_picture_with_its_reasons(node: NodeCore) -> None:
    (peer,) = [line.peer for line in node.planner.directory]
    assert snapshot(node, World(), 4.0).trust == ()
    node.ledger.note(peer, Offence.STALLED, "no token for 3.0 s", 4.0)
    picture = snapshot(node, World(), 5.0)
    (page,) = picture.trust
    assert (page.peer, page.name, page.kind) == (peer.hex(), "b", "slow")
    assert page.offences == {"stalled": 1}
    assert page.evidence == ("stalled: no token for 3.0 s",)
    assert page.reason == "stalled (no token for 3.0 s); tried again in 9 s"
    assert picture.strangers_believed_in_s == pytest.approx(59.0)
    assert picture.strangers_believed_in_tokens == 64
    (view,) = picture.peers
    assert view.reason == f"avoided: {page.reason}"
    assert picture.counters["trust: slow: stalled"] == 1


def test_a_picture_survives_json_and_one_of_an_older_node_is_read(node: NodeCore) -> None:
    picture = snapshot(node, World(), 5.0)
    data = json.loads(json.dumps(picture, default=fields_of))
    assert from_json(data) == picture
    for later in ("trust", "strangers_believed_in_s", "strangers_believed_in_tokens"):
        del data[later]
    assert from_json(data).peers == picture.peers
    assert from_json(data).trust == ()
    del data["name"]
    with pytest.raises(KeyError):
        from_json(data)


def test_a_node_that_holds_none_of_its_model_says_why() -> None:
    swarm = Swarm(3)
    short = Capacity(0, 7_000_000, 0, 0)
    asked, lacking = swarm.add("a", holds=False), swarm.add("b", capacity=short)
    for core, why in ((asked, "as was asked"), (lacking, short.why_none)):
        picture = snapshot(core, World(), 1.0)
        assert (picture.state, picture.reason) == ("idle", why)
    assert explain_node(snapshot(asked, World(), 1.0)).verdict == "ok"
    assert explain_node(snapshot(lacking, World(), 1.0)).verdict == "warn"


def test_nothing_that_faces_read_has_gone(node: NodeCore) -> None:
    names = set(asdict(snapshot(node, World(), 5.0)))
    assert {"peers", "missing_layers", "counters", "generations", "stages", "log"} <= names


def test_the_picture_says_how_everybody_computes() -> None:
    swarm = Swarm(1)
    swarm.add("a", range(3), numerics="ggml")
    swarm.add("b", range(3, 6), numerics="numpy")
    swarm.introduce("a", "b")
    swarm.network.run(10)
    shown = snapshot(swarm.nodes["a"], World(), swarm.network.now)
    [peer] = shown.peers
    assert (shown.numerics, peer.numerics) == ("ggml", "numpy")
    assert peer.kv_bytes_per_token_layer > 0
    assert not peer.is_older
    engine = only(swarm.nodes["a"]).offer.engine
    assert engine is not None
    assert shown.device == engine.device
    assert ways(shown) == {"ggml": ("a",), "numpy": ("b",)}


def test_what_a_driver_calls_its_device_fits_an_ad() -> None:
    advert = Advert("n", "cpu", 1)
    engine = EngineProfile("x", "cuda:0 " + "\x1bé" * 60, StageCost(1, 1, 1, 1), 4)
    advert.add(AdvertOffer(Swarm(1).model(), engine=engine))
    ad = CapabilityAd.decode_untrusted(advert.encode())
    assert ad.device.startswith("cuda:0 é")
    assert len(ad.device.encode()) <= 48
