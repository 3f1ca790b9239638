"""Several models on the nodes of one swarm: each is served, asked and unloaded by itself."""

from contextlib import suppress
from dataclasses import replace

import pytest

from p2pnode.engine.base import EngineProfile, ModelInfo, StageCost
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import ConfigError, GenerationError, UserError
from p2pnode.inference.events import GenerationFailed
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import WorkFailed
from p2pnode.node.advert import Advert, AdvertOffer
from p2pnode.node.core import NodeCore
from p2pnode.node.picture import World, snapshot
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.ad import MAX_AD, MAX_OFFERS, AdState, CapabilityAd

FIRST, SECOND = 5, 6  # what their weights are drawn from
PROMPT = (1, 2, 3)


def request(model: ModelInfo, tokens: int = 12) -> GenerationRequest:
    space = model.space_hash32
    return GenerationRequest(PROMPT, tokens, Sampling(), frozenset(), space=space, wait=5.0)


def two_models(**seconds: float) -> Swarm:
    """Two nodes, each of which holds half of two models."""
    swarm = Swarm(1, **seconds)  # type: ignore[arg-type]
    for name, layers in (("a", range(3)), ("b", range(3, 6))):
        swarm.add(name, layers)
        add_model(swarm, name, layers)
    swarm.introduce("a", "b")
    assert swarm.network.run_until(lambda: all_served(swarm), 60)
    swarm.network.run(3)
    return swarm


def drop(swarm: Swarm, name: str, space: int, drain: float | None = None) -> None:
    swarm.call(name, lambda core, now: core.drop_model(space, now, drain=drain))


def add_model(swarm: Swarm, name: str, layers: range | None, *, hold: bool = True) -> None:
    model = swarm.model(SECOND)
    swarm.call(name, lambda core, now: core.use_model(model, hold=hold, now=now, layers=layers))


def all_served(swarm: Swarm) -> bool:
    models = (swarm.model(FIRST), swarm.model(SECOND))
    return not any(node.planner.missing(model) for node in swarm.nodes.values() for model in models)


def alone(seed: int, tokens: int = 12) -> list[int]:
    """Return what one node that knows no other model answers."""
    swarm = Swarm(1)
    swarm.add("a", range(6), model_seed=seed)
    assert swarm.network.run_until(swarm.is_ready, 60)
    number = swarm.generate("a", request(swarm.model(seed), tokens))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    return swarm.tokens("a", number)


def test_both_answer_at_once_and_each_as_if_it_were_the_only_one() -> None:
    swarm = two_models()
    asked = {seed: swarm.generate("a", request(swarm.model(seed))) for seed in (FIRST, SECOND)}
    assert swarm.network.run_until(lambda: all(swarm.ended("a", one) for one in asked.values()), 60)
    for seed, number in asked.items():
        assert swarm.tokens("a", number) == alone(seed)


def test_the_first_is_meant_where_none_is_named() -> None:
    swarm = two_models()
    number = swarm.generate("a", GenerationRequest(PROMPT, 12, Sampling(), frozenset()))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert swarm.tokens("a", number) == alone(FIRST)


def test_one_ad_tells_of_both() -> None:
    swarm = two_models()
    a, b = swarm.nodes["a"], swarm.nodes["b"]
    [ad] = [ad for member, ad in a.planner.members() if ad is not None]
    assert set(ad.spaces) == {swarm.model(seed).space_hash32 for seed in (FIRST, SECOND)}
    assert {(offer.layers, offer.state) for offer in (ad, *ad.others)} == {
        (range(3, 6), AdState.SERVING)
    }
    assert [len(bundle.layers) for bundle in b.serving.bundles.values()] == [3, 3]
    shown = snapshot(a, World(), swarm.network.now)
    assert shown.state == "serving"


def test_of_a_session_that_names_another_space_nothing_is_heard() -> None:
    swarm = two_models(layer_seconds=0.01)
    number = swarm.generate("a", request(swarm.model(SECOND), 30))
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    for node in swarm.nodes.values():
        assert {stage.space for stage in node.inference.stages()} == {
            swarm.model(SECOND).space_hash32
        }


def test_a_model_is_unloaded_when_its_last_session_has_ended() -> None:
    swarm = two_models(layer_seconds=0.002)
    space = swarm.model(SECOND).space_hash32
    number = swarm.generate("a", request(swarm.model(SECOND), 30))
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    drop(swarm, "b", space)
    swarm.network.run(0.1)
    assert space in swarm.nodes["b"].serving.bundles  # it goes on
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert swarm.tokens("a", number) == alone(SECOND, 30)
    swarm.network.run(5)
    assert list(swarm.nodes["b"].serving.bundles) == [swarm.model(FIRST).space_hash32]
    assert "has unloaded" in " ".join(swarm.nodes["b"].log)
    [ad] = [ad for _, ad in swarm.nodes["a"].planner.members() if ad is not None]
    assert space not in ad.spaces
    other = swarm.generate("a", request(swarm.model(FIRST)))
    assert swarm.network.run_until(lambda: swarm.ended("a", other), 60)
    assert swarm.tokens("a", other) == alone(FIRST)


def test_sessions_beyond_its_time_go_on_where_else_it_is_held() -> None:
    swarm = two_models(layer_seconds=0.005)
    spare = swarm.add("c", range(3, 6), model_seed=SECOND)
    swarm.introduce("a", "c")
    swarm.network.run(5)
    assert spare.served
    asked = request(swarm.model(SECOND), 40)
    number = swarm.generate("a", asked)
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    [user] = [name for name in ("b", "c") if swarm.nodes[name].inference.stages()]
    drop(swarm, user, swarm.model(SECOND).space_hash32, drain=0.05)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert swarm.tokens("a", number) == alone(SECOND, 40)
    assert not swarm.nodes[user].inference.stages()


def test_an_answer_of_ours_fails_by_name_when_its_model_goes() -> None:
    swarm = two_models(layer_seconds=0.01)
    space = swarm.model(SECOND).space_hash32
    number = swarm.generate("a", request(swarm.model(SECOND), 60))
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    drop(swarm, "a", space, drain=0.0)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 10)
    failed = [event for _, _, event in swarm.answers if isinstance(event, GenerationFailed)]
    assert "was unloaded" in failed[-1].reason
    with pytest.raises(GenerationError, match="no such model"):
        swarm.nodes["a"].generate(request(swarm.model(SECOND)), swarm.network.now)


def test_while_it_goes_nothing_new_is_asked_of_it() -> None:
    swarm = two_models(layer_seconds=0.01)
    number = swarm.generate("a", request(swarm.model(SECOND), 30))
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    drop(swarm, "a", swarm.model(SECOND).space_hash32)
    with pytest.raises(GenerationError, match="is being unloaded"):
        swarm.nodes["a"].generate(request(swarm.model(SECOND)), swarm.network.now)


def test_it_can_be_loaded_again() -> None:
    swarm = two_models()
    drop(swarm, "b", swarm.model(SECOND).space_hash32)
    swarm.network.run(3)
    assert not all_served(swarm)
    add_model(swarm, "b", None)
    assert swarm.network.run_until(lambda: all_served(swarm), 60)
    number = swarm.generate("b", request(swarm.model(SECOND)))
    assert swarm.network.run_until(lambda: swarm.ended("b", number), 60)
    assert swarm.tokens("b", number) == alone(SECOND)


def test_what_is_not_here_cannot_be_unloaded_and_what_is_cannot_be_loaded_twice() -> None:
    swarm = two_models()
    a, now = swarm.nodes["a"], swarm.network.now
    with pytest.raises(UserError, match="no such model"):
        a.drop_model(77, now)
    with pytest.raises(ConfigError, match="which is here"):
        a.use_model(swarm.model(SECOND), hold=True, now=now)


def test_there_are_no_more_models_than_an_ad_has_room_for() -> None:
    swarm = Swarm(1)
    node = swarm.add("a", range(6))
    seeds = iter(range(100, 110))

    def fill(core: NodeCore, now: float) -> None:
        while True:
            core.use_model(swarm.model(next(seeds)), hold=False, now=now)

    with pytest.raises(ConfigError, match="one model too many"):
        swarm.call("a", fill)
    assert 2 <= len(node.serving.bundles) <= 8
    assert len(node.serving.bundles) == len(node.models)
    assert len(node.advert.encode()) <= MAX_AD


def test_the_largest_ad_there_can_be_has_room_for_what_was_let_in() -> None:
    advert = Advert("n" * 32, "d" * 48, (1 << 64) - 1, resting=255, software="s" * 24)
    most = (1 << 32) - 1
    cost = StageCost(most, most, most, most, most, most)
    engine = EngineProfile("e" * 64, "d" * 48, cost, most)
    model = replace(Swarm(1).model(), n_layers=0xFFFF, d_model=most, name="m" * 20)
    with suppress(ConfigError):
        for number in range(MAX_OFFERS):
            one = replace(model, space_hash32=most - number)
            advert.add(AdvertOffer(one, cost, engine, served=range(0xFFFE, 0xFFFF)))
    ad = CapabilityAd.decode_untrusted(advert.encode())
    assert len(ad.spaces) == len(advert.offers) == 3


def test_a_model_that_cannot_be_loaded_leaves_the_other_serving() -> None:
    swarm = Swarm(1)
    node = swarm.add("a", range(6))
    assert swarm.network.run_until(swarm.is_ready, 60)
    add_model(swarm, "a", range(6))
    space = swarm.model(SECOND).space_hash32
    assert swarm.network.run_until(lambda: node.serving.bundles[space].is_loading, 10)
    swarm.call("a", lambda core, now: core.load_failed(space, range(6), "out of memory", now))
    swarm.network.run(5)
    assert not node.serving.bundles[space].layers
    assert "cannot serve" in " ".join(node.log)
    assert "out of memory" in node.serving.bundles[space].holdings.reason
    number = swarm.generate("a", request(swarm.model(FIRST)))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert swarm.tokens("a", number) == alone(FIRST)


def test_an_engine_that_is_gone_takes_its_own_sessions_alone() -> None:
    swarm = two_models(layer_seconds=0.01)
    asked = {seed: swarm.generate("a", request(swarm.model(seed), 20)) for seed in (FIRST, SECOND)}
    assert swarm.network.run_until(
        lambda: all(len(swarm.tokens("a", one)) > 3 for one in asked.values()), 20
    )
    space = swarm.model(SECOND).space_hash32
    gone = WorkFailed("it fell over", is_engine_gone=True)
    swarm.call("b", lambda core, now: core.compute_finished(10**6, space, gone, now))
    assert {one.space for one in swarm.nodes["b"].inference.stages()} == {
        swarm.model(FIRST).space_hash32
    }
    assert swarm.network.run_until(lambda: swarm.ended("a", asked[FIRST]), 60)
    assert swarm.tokens("a", asked[FIRST]) == alone(FIRST, 20)
