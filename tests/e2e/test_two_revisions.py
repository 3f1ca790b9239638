"""Nodes of this revision and of another in one swarm: the same tokens, and repairs across them.

Where the two name models otherwise, they meet all the same, say so, and each answers with its own.

``P2PNODE_OTHER_REVISION`` names a checkout of the other with its own ``.venv``.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm

OTHER = os.environ.get("P2PNODE_OTHER_REVISION", "")
TOKENS = 24

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not OTHER, reason="P2PNODE_OTHER_REVISION names no checkout"),
]

Nodes = dict[str, NodeProcess]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Two of each revision; either half of the layers is held by one of both."""
    with local_swarm() as swarm:
        first = start(swarm, "ours-low", "0:15")
        first.wait_until_up()
        call = ("--peer", first.address)
        start(swarm, "ours-high", "15:30", *call)
        start(swarm, "theirs-low", "0:15", *call, checkout=Path(OTHER))
        start(swarm, "theirs-high", "15:30", *call, checkout=Path(OTHER))
        for node in swarm.nodes[1:]:
            node.wait_until_up()
        found = {node.name: node for node in swarm.nodes}
        until(lambda: all(sees(node) == set(found) - {node.name} for node in found.values()))
        yield found


def start(
    swarm: LocalSwarm, name: str, layers: str, *options: str, checkout: Path | None = None
) -> NodeProcess:
    # Both by numpy, which every revision has: bits can be compared only within one arithmetic.
    has_others = checkout is None or (checkout / "p2pnode" / "engine" / "ggml").is_dir()
    engine = ("--engine", "numpy") if has_others else ()
    return swarm.start(name, "--layers", layers, "--no-mdns", *options, *engine, checkout=checkout)


def sees(node: NodeProcess) -> set[str]:
    """Return who serves, as ``node`` sees it; another revision's picture may have other keys."""
    with node.client() as client:
        peers = client.call("snapshot")["peers"]
    return {peer["name"] for peer in peers if peer["state"] == "serving" and peer["connected"]}


def until(holds: Callable[[], bool], limit: float = 60.0) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < limit, "the two revisions did not find each other"
        time.sleep(0.2)


def ask(
    node: NodeProcess,
    *prefer: str,
    sampled: bool = False,
    more: Mapping[str, object] = MappingProxyType({}),
    hear: Callable[[dict[str, Any]], None] = lambda event: None,
) -> tuple[list[int], list[str]]:
    """Return the tokens, and who was in the first chain."""
    params = {
        "prompt": "Explain how a bicycle stays upright.",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "prefer": list(prefer),
        **({"temperature": 0.8, "seed": 3} if sampled else {}),
        **more,
    }
    with node.client(timeout=60) as client:
        answer = client.call("generate", params, hear)
    return answer["token_ids"], [stage["name"] for stage in answer["plan"]["stages"]]


def answer_or_reason(node: NodeProcess, more: Mapping[str, object]) -> list[int] | str:
    try:
        return ask(node, more=more)[0]
    except UserError as error:
        return str(error)


def space(node: NodeProcess) -> int:
    with node.client() as client:
        return int(client.call("snapshot")["space_hash32"])


def test_two_revisions_answer_as_one_and_mend_each_other(nodes: Nodes) -> None:
    if space(nodes["ours-low"]) != space(nodes["theirs-low"]):
        pytest.skip("the two name models otherwise")
    expected: dict[bool, list[int]] = {}
    for sampled in (False, True):
        for asker in ("ours-low", "theirs-low"):
            for chain in (("ours-low", "theirs-high"), ("theirs-low", "ours-high")):
                tokens, used = ask(nodes[asker], *chain, sampled=sampled)
                assert used == list(chain)
                assert tokens == expected.setdefault(sampled, tokens)
    assert expected[False] != expected[True]

    shown = 0

    def strike(event: dict[str, Any]) -> None:
        nonlocal shown
        shown += event["event"] == "token"
        if shown == TOKENS // 2:
            nodes["theirs-high"].kill()

    tokens, _ = ask(nodes["ours-low"], "ours-low", "theirs-high", hear=strike)
    assert tokens == expected[False]
    assert ask(nodes["theirs-low"], "theirs-low", "ours-high")[0] == expected[False]

    nodes["ours-low"].kill()
    assert ask(nodes["theirs-low"], "ours-high", sampled=True)[0] == expected[True]


OLDER = "no peer that holds the last layer can "
NEWER: dict[str, dict[str, object]] = {
    "penalties": {"repetition_penalty": 1.4, "frequency_penalty": 1.0},
    "min-p": {"temperature": 1.0, "seed": 3, "min_p": 0.3},
    "logprobs": {"logprobs": 2},
    "schema": {"schema": {"type": "integer"}, "ignore_eos": False},
}


def test_a_revision_that_cannot_draw_so_is_passed_over_and_never_ignores_it(nodes: Nodes) -> None:
    """For a revision that reads no ``draw``; one that does answers as ours."""
    if space(nodes["ours-low"]) != space(nodes["theirs-low"]):
        pytest.skip("the two name models otherwise")
    expected: dict[str, list[int]] = {}
    for name, more in NEWER.items():
        expected[name], used = ask(nodes["ours-low"], "ours-low", "ours-high", more=more)
        assert used == ["ours-low", "ours-high"]
        for chain in (("ours-low", "theirs-high"), ("theirs-low", "theirs-high")):
            assert ask(nodes["ours-low"], *chain, more=more)[0] == expected[name]
    plain = ask(nodes["ours-low"], "ours-low", "ours-high")[0]
    assert expected["penalties"] != plain
    assert expected["logprobs"] == plain

    nodes["ours-high"].kill()
    for name, more in NEWER.items():
        said = answer_or_reason(nodes["ours-low"], more)
        assert said == expected[name] or (isinstance(said, str) and said.startswith(OLDER))
    assert ask(nodes["ours-low"], "theirs-high")[0] == plain


def test_two_revisions_that_name_models_otherwise_say_so(nodes: Nodes) -> None:
    if space(nodes["ours-low"]) == space(nodes["theirs-low"]):
        pytest.skip("the two name models alike")
    for asker, foreign in (("ours-low", "theirs"), ("theirs-low", "ours")):
        with nodes[asker].client() as client:
            peers = client.call("snapshot")["peers"]
        reasons = [peer["reason"] for peer in peers if peer["name"].startswith(foreign)]
        assert len(reasons) == 2
        assert all(reason.startswith("another embedding space") for reason in reasons)
    ours, used = ask(nodes["ours-low"], "theirs-high")
    assert used == ["ours-low", "ours-high"]
    theirs, used = ask(nodes["theirs-low"], "ours-high")
    assert used == ["theirs-low", "theirs-high"]
    assert ours == theirs
