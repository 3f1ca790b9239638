"""A stage is lost amid an answer that began with kept caches: no token changes, and no bit sent.

At every token and boundary, with the engines that nodes load, below 512 positions and across, where
ggml's attention takes other paths.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache

import pytest

from p2pnode.engine.base import SessionKey
from p2pnode.inference.events import ChainRepaired, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Work, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.vframe import Frame, MessageType
from tests.inference.kills import (
    ASKER,
    CONFIG,
    MODELS,
    PROMPTS,
    STAGES,
    TOKENS,
    WARM,
    Machine,
    caches_of,
    engines_of,
    skip_without,
)

GROUPED, PLAIN = MODELS
MORE = (9, 8, 7)
FIRST = {name: prompt[: len(prompt) - TOKENS - 6] for name, prompt in PROMPTS.items()}
"""With that across 512, the second turn's fourth token or so is drawn beyond."""


class Told:
    """What the second turn came to."""

    def __init__(
        self, model: str, machine: Machine, said: str, loss: tuple[str, int] | None
    ) -> None:
        """``loss`` is of which stage, after which token; None for none."""
        self.sent: dict[tuple[int, int], set[bytes]] = defaultdict(set)
        self._engines = engines_of(model, machine)
        self._used = defaultdict[NodeId, set[SessionKey]](set)
        self._network = network = FrameNetwork(1, self._engines, CONFIG)
        network.roster.numerics = 7
        network.behaviours = {peer: self._noting(peer) for peer in self._engines}
        first = self._ask(FIRST[said])
        network.on_frame = self._see
        second = (*FIRST[said], *first, *MORE)

        def hear(event: TokenProduced) -> None:
            if loss is not None and event.position == len(second) + loss[1]:
                network.kill(node_id(loss[0]))

        network.on_token = hear
        self.tokens = self._ask(second)
        [generation] = network.cores[ASKER].generations()[-1:]
        self.reused = generation.reused
        self.repairs = sum(isinstance(event, ChainRepaired) for _, _, event in network.events)
        for peer, sessions in self._used.items():
            for session in sessions:
                self._engines[peer].close(session)

    def _ask(self, prompt: tuple[int, ...]) -> list[int]:
        request = GenerationRequest(prompt, TOKENS, WARM, frozenset())
        number = self._network.generate(ASKER, request)
        self._network.run(seconds=60)
        return self._network.tokens(ASKER, number)

    def _noting(self, peer: NodeId) -> Callable[[Work, WorkResult], tuple[float, WorkResult]]:
        def note(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
            self._used[peer] |= caches_of(work)
            return 0.0, result

        return note

    def _see(self, frame: Frame, destination: NodeId) -> None:
        if frame.type is MessageType.THINK:
            holders = self._network.roster.holders
            at = -1 if destination == ASKER else holders[destination].start
            self.sent[at, frame.frame_seq].add(bytes(frame.slices[0].payload))


@cache
def calm(model: str, machine: Machine, said: str) -> Told:
    return Told(model, machine, said, None)


@pytest.mark.parametrize("token", range(TOKENS - 1))  # after the last, nothing is repaired
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("said", ["below 512", "across 512"])
@pytest.mark.parametrize("machine", [Machine("numpy"), Machine()], ids=["numpy", "ggml"])
def test_a_kill_at_any_token_and_boundary_of_a_reused_answer_changes_no_bit(
    machine: Machine, said: str, stage: str, token: int
) -> None:
    skip_without(machine)
    model = PLAIN if token % 2 else GROUPED
    told, undisturbed = Told(model, machine, said, (stage, token)), calm(model, machine, said)
    assert told.repairs == 1
    assert told.reused == undisturbed.reused == len(FIRST[said]) + TOKENS - 1
    assert len(told.tokens) == TOKENS
    assert told.tokens == undisturbed.tokens
    assert all(len(bits) == 1 for bits in told.sent.values())
    assert undisturbed.sent.items() <= told.sent.items()
