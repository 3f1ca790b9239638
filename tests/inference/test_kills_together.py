"""A stage is lost while four sessions of two requesters decode at once: no token of any changes.

At every token and boundary, with ggml and numpy, whose steps have rows of several sessions.
"""

from collections import defaultdict
from collections.abc import Callable

import pytest

from p2pnode.engine.base import SessionKey
from p2pnode.inference.events import ChainRepaired, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Work, WorkResult, forwards_of
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from tests.inference.kills import (
    ASKER,
    CONFIG,
    MODELS,
    STAGES,
    TOKENS,
    WARM,
    Machine,
    alone,
    caches_of,
    engines_of,
    skip_without,
)

GROUPED, PLAIN = MODELS
OTHER = node_id("other first")
"""Who asks besides; it may take over the first layers too."""

ASKED = tuple(
    (asker, tuple(3 + step * index % 250 for index in range(length)))
    for asker, step, length in ((ASKER, 7, 20), (OTHER, 11, 70), (ASKER, 13, 5), (OTHER, 17, 33))
)
"""Who asks, and what; one prompt is more than a batch."""


class Together:
    """Four sessions on engines whose second stage is slow, so that they meet there.

    Attributes:
        most: Sessions in the largest step.
    """

    def __init__(self, model: str, machine: Machine) -> None:
        self.most = 0
        self._engines = engines_of(model, machine)
        self._used = defaultdict[NodeId, set[SessionKey]](set)
        self.network = FrameNetwork(1, self._engines, CONFIG)
        self.network.behaviours = {peer: self._noting(peer) for peer in self._engines}
        self.sessions = [
            (asker, self.network.generate(asker, _request(prompt))) for asker, prompt in ASKED
        ]

    def finish(self) -> list[list[int]]:
        """Let a minute pass; return the tokens of each session."""
        self.network.run(seconds=60)
        for peer, sessions in self._used.items():
            for session in sessions:
                self._engines[peer].close(session)
        return [self.network.tokens(*one) for one in self.sessions]

    def repaired(self) -> set[tuple[NodeId, int]]:
        return {
            (asker, event.generation)
            for _, asker, event in self.network.events
            if isinstance(event, ChainRepaired)
        }

    def _noting(self, peer: NodeId) -> Callable[[Work, WorkResult], tuple[float, WorkResult]]:
        is_slow = peer in (node_id("middle"), node_id("other middle"))

        def note(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
            self._used[peer] |= caches_of(work)
            self.most = max(self.most, len(forwards_of(work)))
            return 0.004 if is_slow else 0.0, result

        return note


def _request(prompt: tuple[int, ...]) -> GenerationRequest:
    return GenerationRequest(prompt, TOKENS, WARM, frozenset())


@pytest.mark.parametrize("token", range(TOKENS - 1))  # after the last, nothing is repaired
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("machine", [Machine("numpy"), Machine()], ids=["numpy", "ggml"])
def test_a_kill_at_any_token_and_boundary_changes_no_token_of_four(
    machine: Machine, stage: str, token: int
) -> None:
    skip_without(machine)
    model = PLAIN if token % 2 else GROUPED
    four = Together(model, machine)
    watched, victim = four.sessions[token % len(ASKED)], node_id(stage)

    def hear(event: TokenProduced) -> None:
        shown = len(four.network.tokens(*watched))
        if shown == token + 1 and victim not in four.network.roster.dead:
            four.network.kill(victim)

    four.network.on_token = hear
    tokens = four.finish()
    assert watched in four.repaired()
    assert tokens == [alone(model, machine, prompt) for _, prompt in ASKED]
    assert four.most >= 2
