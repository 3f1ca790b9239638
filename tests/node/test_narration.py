"""What a node says of its answers, of its work for others, and of layers that are missing."""

import pytest

from p2pnode import CORES
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import ChainBroken, ChainRepaired, LayersAwaited
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.core import NodeCore
from p2pnode.node.events import Noted
from p2pnode.node.peer_views import GONE_SHOWN
from p2pnode.node.picture import World, snapshot
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm

LONG = GenerationRequest((3, 1, 4, 1, 5, 9, 2, 6), 60, Sampling(), frozenset(), wait=20.0)


def a_swarm(*names: str) -> Swarm:
    """Return three stages of two layers; ``spare`` holds the middle too."""
    held = {"a": range(2), "b": range(2, 4), "c": range(4, 6), "spare": range(2, 4)}
    swarm = Swarm(1, Link(latency=(0.0005, 0.0005)), n_layers=6, layer_seconds=0.002)
    for name in names:
        swarm.add(name, held[name])
    swarm.introduce(*names)
    assert swarm.network.run_until(swarm.is_ready, 60) or len(names) < 3
    swarm.network.run(3)
    return swarm


def said(node: NodeCore, *words: str) -> list[str]:
    """Return the lines of the log with all of ``words`` in them."""
    return [line for line in node.log if all(word in line for word in words)]


def test_what_is_served_missing_and_complete_is_said() -> None:
    swarm = a_swarm("a", "b")
    a = swarm.nodes["a"]
    assert said(a, "loads layers [0, 2)")
    assert said(a, "serves layers [0, 2) of", " on cpu (", "still missing: [2, 6)")
    assert said(a, "b joined the swarm")
    swarm.add("c", range(4, 6))
    swarm.introduce("a", "b", "c")
    assert swarm.network.run_until(lambda: bool(said(a, "is complete", "p2pnode generate")), 20)
    swarm.kill("c")
    swarm.network.run(30)
    assert said(a, "c is gone: dead")
    assert said(a, "still missing: [4, 6)")


def test_an_answer_is_one_line_for_its_asker_and_one_for_each_stage() -> None:
    swarm = a_swarm("a", "b", "c")
    number = swarm.generate("a", LONG)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    swarm.network.run(1)
    (line,) = said(swarm.nodes["a"], "asked here")
    assert line.startswith(f"answer {number}, asked here: 60 tokens at ")
    assert line.endswith("by a [0, 2), b [2, 4) and c [4, 6), cut at its limit")
    (line,) = said(swarm.nodes["b"], "computed")
    assert line.startswith("computed 67 positions of layers [2, 4) for a in ")
    assert not said(swarm.nodes["a"], "computed")  # its own stage goes without saying


def test_a_repair_names_who_was_lost_who_took_over_and_the_limit() -> None:
    swarm = a_swarm("a", "b", "c", "spare")
    number = swarm.generate("a", LONG)
    swarm.network.run(0.2)
    lost, other = sorted(("b", "spare"), key=lambda name: not swarm.nodes[name].inference.stages())
    swarm.kill(lost)
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    events = [event for _, _, event in swarm.answers]
    (broken,) = [event for event in events if isinstance(event, ChainBroken)]
    assert (broken.names, broken.layers) == ((lost,), (range(2, 4),))
    assert 15 < broken.seconds < 60
    (repaired,) = [event for event in events if isinstance(event, ChainRepaired)]
    assert [run.name for run in repaired.instead] == [other]
    (line,) = said(swarm.nodes["a"], "lost")
    assert line.startswith(f"answer {number} lost {lost} [2, 4) (")
    (line,) = said(swarm.nodes["a"], "took over")
    assert line.endswith(f"ms: {other} [2, 4) took over")
    assert said(swarm.nodes["a"], "asked here", "1 repair")


def test_an_answer_that_waits_says_for_which_layers_and_how_long() -> None:
    swarm = a_swarm("a", "b", "c")
    number = swarm.generate("a", LONG)
    swarm.network.run(0.2)
    swarm.kill("b")
    swarm.network.run(4)
    assert not [event for _, _, event in swarm.answers if isinstance(event, LayersAwaited)]
    swarm.network.run(8)
    a = swarm.nodes["a"]
    awaited = [event for _, _, event in swarm.answers if isinstance(event, LayersAwaited)]
    assert [event.layers for event in awaited] == [(range(2, 4),)]  # once, not at each look
    assert said(a, f"answer {number} waits", "for layers [2, 4)")
    (view,) = snapshot(a, World(), swarm.network.now).generations
    assert (view.state, view.lost, view.awaits) == ("repairing", ("b [2, 4)",), ((2, 4),))
    assert 0 < view.awaits_s < awaited[0].seconds - 4
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert said(a, f"answer {number} failed: no peer serves layers [2, 4)")


def test_who_left_keeps_its_name_is_marked_and_fades() -> None:
    swarm = a_swarm("a", "b", "c")
    swarm.call("b", lambda node, now: node.leave(now))
    swarm.network.run(30)
    a = swarm.nodes["a"]
    view = {peer.name: peer for peer in snapshot(a, World(), swarm.network.now).peers}["b"]
    assert (view.state, view.reason) == ("left", "it left")
    assert view.gone_s is not None
    assert 25 < view.gone_s < 31
    later = swarm.network.now + GONE_SHOWN
    assert {peer.name for peer in snapshot(a, World(), later).peers} == {"c"}
    assert said(swarm.nodes["b"], "leaving the swarm")
    assert said(swarm.nodes["b"], "left the swarm")


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
def test_layers_that_come_and_go_leave_the_log_alone_and_the_last_state_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swarm = a_swarm("a", "b")
    a, now = swarm.nodes["a"], swarm.network.now
    lines = len(said(a, "complete"))
    for second in range(600):
        missing = () if second % 2 else (range(2, 6),)
        monkeypatch.setattr(a.planner, "missing", lambda _, found=missing: found)
        a.narration.changed()
        a.narration.look(a.models, now + second)
    assert 4 <= len(said(a, "complete")) - lines <= 4 + 60
    monkeypatch.setattr(a.planner, "missing", lambda _: (range(3, 5),))
    a.narration.changed()
    for second in range(600, 620):
        a.narration.look(a.models, now + second)
    assert "still missing: [3, 5)" in said(a, "complete")[-1]


def test_each_line_has_the_time_of_day_at_which_it_was_noted() -> None:
    swarm = a_swarm("a", "b")
    a, now = swarm.nodes["a"], swarm.network.now
    a.clock = now - 61.0
    a.note("something")
    picture = snapshot(a, World(wall_s=30.0), now)
    assert len(picture.log_times) == len(picture.log)
    assert picture.log_times[-1] == "23:59:29"
    assert snapshot(a, World(), now).log_times == ()


@pytest.mark.parametrize("is_notice", [False, True])
def test_a_notice_is_marked(is_notice: bool) -> None:
    swarm = a_swarm("a", "b")
    a = swarm.nodes["a"]
    a.take_events()
    a.note("a line\x1b[2J", is_notice=is_notice)
    assert a.take_events() == [Noted("a line[2J", is_notice)]
