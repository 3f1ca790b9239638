"""Runs a scenario with hostile members: many answers, one after another, and what came of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal, TypeAlias

import numpy as np

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.solo import answer_alone
from p2pnode.errors import LocalProtocolError
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationEvent,
    GenerationFailed,
    GenerationFinished,
    GenerationPlanned,
)
from p2pnode.inference.request import GenerationRequest
from p2pnode.membership.health import Health
from p2pnode.sansio import NodeId
from p2pnode.testing.hostile import WAYS
from p2pnode.testing.hostile_member import HOSTILE, HostileMember, deal, who_is
from p2pnode.testing.runs import carry_out, swarm_of
from p2pnode.testing.scenario import HostileMembers, ModelShape, Question, Run, Scenario

Ending: TypeAlias = Literal["right", "wrong", "failed", "unfinished"]

_MODEL_SEED = 5
_SETTLING = 60.0  # virtual seconds for a swarm to find itself and load its layers, at most
_GLANCE = 0.1
_MEETING = 4.0  # then to hear of the hostile ones
_MOST_BROKEN = 200
"""Repairs after which an answer is given up as one that never ends: a round trip each, they can
be thousands a virtual second."""
_QUESTIONS = 4
_CLEAR = 0.02
"""Least distance between the best logit of a token and the next one.

A chain may round to f16 at its cuts, each its own; a token this clear is the same in all of them.
The logits' standard deviation is 1, what rounding does to them about 0.002.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer, as its requester saw it; times are virtual seconds.

    Attributes:
        asker: Who asked.
        ending: ``right``: the tokens of one engine alone; ``wrong``: another token was shown, at
            any time; ``failed``: it said why; ``unfinished``: neither, when its time was up.
        seconds: From the question to its end.
        tokens: How many were shown.
        broken: How often its chain was broken.
        reason: Why it failed.
        chain: Who was in its first plan, as ``name [0, 2)``.
        hostile: Hostile keys that stood in its plans and repairs, whether or not they admitted it,
            in order, each once.
        named: Whom its requester gave up, and how often.
    """

    asker: str
    ending: Ending
    seconds: float
    tokens: int
    broken: int
    reason: str
    chain: tuple[str, ...]
    hostile: tuple[str, ...]
    named: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class HostileOutcome:
    """What one run came to.

    Attributes:
        run: Which run.
        ways: How each hostile machine behaved.
        answers: In order.
        keys: Hostile identities in all, the invented ones included.
        jobs: Work that the hostile machines were given.
        called_dead: Honest nodes that an honest node called dead after an answer, over all answers.
        trace_hash: As in :class:`~p2pnode.testing.experiment.Outcome`.
        traffic_hash: The same.
    """

    run: Run
    ways: tuple[tuple[str, str], ...]
    answers: tuple[Asked, ...]
    keys: int
    jobs: int
    called_dead: int
    trace_hash: str
    traffic_hash: str


def simulate_hostile(
    scenario: Scenario,
    *,
    jobs: int | None = None,
    progress: Callable[[float], None] = lambda part: None,
) -> list[HostileOutcome]:
    """Run everything, on ``jobs`` processes (by default one a core), in order."""
    outcomes: list[HostileOutcome] = []
    for outcome in carry_out(perform_hostile, scenario, scenario.runs, jobs):
        outcomes.append(outcome)
        progress(len(outcomes) / len(scenario.runs))
    return outcomes


def perform_hostile(scenario: Scenario, run: Run) -> HostileOutcome:
    """Carry out one run."""
    if scenario.hostile is None:
        raise LocalProtocolError(f"{scenario.name} has no hostile members")
    return _HostileRun(scenario, scenario.hostile, run).outcome()


@lru_cache(maxsize=8)
def questions(
    model: ModelShape, question: Question
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Return some prompts, each with the tokens that one engine alone answers."""
    engine = random_model(
        _MODEL_SEED,
        n_layers=model.layers,
        d_model=model.d_model,
        n_heads=model.heads,
        n_kv_heads=model.kv_heads,
    )
    rng = Random("questions")
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    while len(found) < _QUESTIONS:
        prompt = tuple(rng.randrange(1, 256) for _ in range(question.prompt_tokens))
        tokens = answer_alone(engine, prompt, question.tokens).token_ids
        ids = np.array(prompt + tokens[:-1])
        [hidden] = engine.forward(b"margin", engine.layers, [ids], 0)  # [positions, d_model]
        engine.close(b"margin")
        answered = hidden[len(prompt) - 1 :]  # [tokens, d_model]
        best = np.sort(engine.logits(answered))[:, -2:]  # [tokens, 2]
        if min(first - second for second, first in best) > _CLEAR:
            found.append((prompt, tokens))
    return tuple(found)


class _HostileRun:
    """One run under way."""

    def __init__(self, scenario: Scenario, hostile: HostileMembers, run: Run) -> None:
        self._run = run
        self._hostile = hostile
        self._limit = scenario.question.seconds
        self._questions = questions(scenario.model, scenario.question)
        self._swarm, self._traffic = swarm_of(scenario, run)
        self._network = self._swarm.network
        self._honest = [member.name for member in scenario.members]
        self._ways = deal(hostile.ways, hostile.members, run.seed)
        self._members = [self._member(number) for number in range(hostile.members)]
        self._called_dead = 0

    def outcome(self) -> HostileOutcome:
        """Let them meet, ask one question after the other, and look at each answer."""
        swarm, network = self._swarm, self._network
        swarm.introduce(*self._honest)
        while not swarm.is_ready() and network.now < _SETTLING:
            network.run(_GLANCE)  # to look after each datagram would cost more than the rest
        for member in self._members:
            member.appear()
        network.run(_MEETING)
        answers = [
            self._ask(number) for number in range(self._hostile.answers + self._hostile.further)
        ]
        return HostileOutcome(
            run=self._run,
            ways=tuple(
                (member.name, way) for member, way in zip(self._members, self._ways, strict=True)
            ),
            answers=tuple(answers),
            keys=len(who_is(self._members)),
            jobs=sum(member.jobs for member in self._members),
            called_dead=self._called_dead,
            trace_hash=network.trace_hash(),
            traffic_hash=self._traffic.hexdigest(),
        )

    def _member(self, number: int) -> HostileMember:
        name = f"{HOSTILE}-{number + 1}"
        rng = Random(f"{self._run.seed} {name}")
        conduct = WAYS[self._ways[number]]
        rekeying = rng.choice(self._hostile.rekeying)
        return HostileMember(self._swarm, name, self._honest, conduct, rekeying, rng)

    # One answer

    def _ask(self, number: int) -> Asked:
        swarm, network = self._swarm, self._network
        asker = self._honest[number % len(self._honest)]
        prompt, expected = self._questions[number % len(self._questions)]
        first, began = len(swarm.answers), network.now
        # No token ends the answer: every one is equally long.
        request = GenerationRequest(prompt, len(expected), Sampling(), frozenset(), wait=10.0)
        generation = swarm.generate(asker, request)
        network.run_until(self._ended(asker, generation, first), self._limit)
        seconds = network.now - began
        ended = swarm.ended(asker, generation)
        swarm.call(asker, lambda node, now: node.cancel(generation, now))
        events = [event for _, name, event in swarm.answers[first:] if name == asker]
        shown = tuple(swarm.tokens(asker, generation))
        answer = self._asked(asker, events, shown, expected, seconds, ended=ended)
        for member in self._members:
            member.answer_over()
        network.run(self._hostile.pause)
        self._called_dead += self._count_called_dead()
        return answer

    def _ended(self, asker: str, generation: int, first: int) -> Callable[[], bool]:
        """Return what is asked after each thing that happens: whether to look at the answer.

        The hostile hear of it when they are given up: their sessions are closed.
        """
        answers, seen, broken = self._swarm.answers, first, 0

        def ended() -> bool:
            nonlocal seen, broken
            while seen < len(answers):
                event = answers[seen][2]
                seen += 1
                if isinstance(event, ChainBroken):
                    broken += 1
                    for member in self._members:
                        member.named(event.peers)
            return broken >= _MOST_BROKEN or self._swarm.ended(asker, generation)

        return ended

    def _asked(
        self,
        asker: str,
        events: Sequence[GenerationEvent],
        shown: tuple[int, ...],
        expected: tuple[int, ...],
        seconds: float,
        *,
        ended: bool,
    ) -> Asked:
        reasons = [event.reason for event in events if isinstance(event, GenerationFailed)]
        broken = [event for event in events if isinstance(event, ChainBroken)]
        known = who_is(self._members)
        named = Counter(self._word(peer, known) for event in broken for peer in event.peers)
        return Asked(
            asker=asker,
            ending=_ending(events, shown, expected, ended=ended),
            seconds=round(seconds, 6),
            tokens=len(shown),
            broken=len(broken),
            reason=reasons[0] if reasons else "",
            chain=_first_chain(events),
            hostile=tuple(dict.fromkeys(known[peer] for peer in _planned(events) if peer in known)),
            named=tuple(sorted(named.items())),
        )

    def _word(self, peer: NodeId, known: dict[NodeId, str]) -> str:
        honest = {self._swarm.nodes[name].node_id: name for name in self._honest}
        return known.get(peer) or honest[peer]

    def _count_called_dead(self) -> int:
        ids = {self._swarm.nodes[name].node_id for name in self._honest}
        return sum(
            one.health is Health.DEAD and one.record.node_id in ids
            for name in self._honest
            for one in self._swarm.nodes[name].swim.members()
        )


def _ending(
    events: Sequence[GenerationEvent],
    shown: tuple[int, ...],
    expected: tuple[int, ...],
    *,
    ended: bool,
) -> Ending:
    if shown != expected[: len(shown)]:
        return "wrong"
    if not ended:
        return "unfinished"
    if any(isinstance(event, GenerationFinished) for event in events):
        return "right" if shown == expected else "wrong"
    clear = any(isinstance(event, GenerationFailed) and event.reason for event in events)
    return "failed" if clear else "unfinished"


def _planned(events: Sequence[GenerationEvent]) -> list[NodeId]:
    """Return everybody who stood in a plan or a repair, in order.

    A plan is told once all of it has admitted the session; of others those given up are told.
    """
    peers: list[NodeId] = []
    for event in events:
        match event:
            case GenerationPlanned(plan=plan):
                peers += [stage.peer for stage in plan.stages]
            case ChainRepaired(stages=stages):
                peers += [stage.peer for stage in stages]
            case ChainBroken(peers=lost):
                peers += lost
    return peers


def _first_chain(events: Sequence[GenerationEvent]) -> tuple[str, ...]:
    for event in events:
        if isinstance(event, GenerationPlanned):
            return tuple(
                f"{stage.name} [{stage.layers.start}, {stage.layers.stop})"
                for stage in event.plan.stages
            )
    return ()
