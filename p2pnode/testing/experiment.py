"""Runs a scenario: every run of it is a swarm of whole production nodes on the virtual network."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import (
    ChainBroken,
    GenerationFailed,
    GenerationFinished,
    TokenProduced,
)
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.resting import Rest
from p2pnode.testing.runs import carry_out, swarm_of
from p2pnode.testing.scenario import Kill, Resting, Run, Scenario
from p2pnode.wire.rest import RestCause

_FIRST_PROMPT_TOKEN = 3
_PATIENCE = 60.0  # virtual seconds for a swarm to find itself and load its layers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to; times are virtual seconds, counts begin after the warm-up.

    Attributes:
        run: Which run.
        tokens: The answer.
        failure: Why it is not whole; empty when it is.
        waits: For each token counted: the time since the one before it.
        seconds: From the end of the warm-up to the last token.
        datagrams: Sent by all nodes: activations, acknowledgements, gossip, everything.
        octets: UDP payload bytes of those.
        retransmits: Shards sent again.
        parity: Shards sent against loss.
        recovered: Messages that parity completed.
        repairs: How often the chain was broken.
        noticed: From the strike until the asking node knew; None if it never did.
        paused: Longest wait for a token from the strike on; None without trouble.
        trace_hash: Over every byte of every datagram and every event. Equal for equal seeds on one
            machine; another BLAS may round activations another way.
        traffic_hash: Over who sent how many bytes to whom and when, to the microsecond; also equal
            on other machines.
    """

    run: Run
    tokens: tuple[int, ...]
    failure: str
    waits: tuple[float, ...]
    seconds: float
    datagrams: int
    octets: int
    retransmits: int
    parity: int
    recovered: int
    repairs: int
    noticed: float | None
    paused: float | None
    trace_hash: str
    traffic_hash: str


def simulate(
    scenario: Scenario,
    *,
    jobs: int | None = None,
    progress: Callable[[float], None] = lambda part: None,
) -> tuple[Outcome, list[Outcome]]:
    """Run everything, on ``jobs`` processes (by default one a core).

    Returns:
        The undisturbed run, and the scenario's in their order.
    """
    runs = (scenario.undisturbed, *scenario.runs)
    outcomes: list[Outcome] = []
    for outcome in carry_out(perform, scenario, runs, jobs):
        outcomes.append(outcome)
        progress(len(outcomes) / len(runs))
    return outcomes[0], outcomes[1:]


class Told(Protocol):
    """What came of a run, as far as its story goes."""

    @property
    def run(self) -> Run: ...
    @property
    def trace_hash(self) -> str: ...


def unlike(first: Sequence[Told], second: Sequence[Told]) -> list[Run]:
    """Return the runs that did not tell the same story twice."""
    return [
        one.run
        for one, other in zip(first, second, strict=True)
        if one.trace_hash != other.trace_hash
    ]


def perform(scenario: Scenario, run: Run) -> Outcome:
    """Carry out one run."""
    return _Experiment(scenario, run).outcome()


@dataclass(frozen=True, slots=True)
class _Reading:
    """The counters at one moment."""

    at: float
    datagrams: int
    octets: int
    transport: Counter[str]


class _Experiment:
    """One run under way."""

    def __init__(self, scenario: Scenario, run: Run) -> None:
        self._question = scenario.question
        self._run = run
        self._swarm, self._traffic = swarm_of(scenario, run)
        self._network = self._swarm.network
        self._names = [member.name for member in scenario.members]
        self._connections: dict[tuple[str, bytes, int], Counter[str]] = {}
        self._shown: list[float] = []
        self._begun: _Reading | None = None
        self._struck_at: float | None = None
        self._swarm.on_token = self._on_token

    def outcome(self) -> Outcome:
        """Let the nodes meet and answer."""
        swarm, network, asker = self._swarm, self._network, self._names[0]
        swarm.introduce(*self._names)
        network.run_until(swarm.is_ready, _PATIENCE)
        number = swarm.generate(asker, self._request())
        network.run_until(lambda: swarm.ended(asker, number), self._question.seconds)
        end = self._read()
        begun = self._begun or end
        moved = end.transport - begun.transport
        waits = [later - earlier for earlier, later in pairwise(self._shown)]
        return Outcome(
            run=self._run,
            tokens=tuple(swarm.tokens(asker, number)),
            failure=self._failure(),
            waits=tuple(waits[self._question.warm_up - 1 :]),
            seconds=(self._shown[-1] if self._shown else end.at) - begun.at,
            datagrams=end.datagrams - begun.datagrams,
            octets=end.octets - begun.octets,
            retransmits=moved["retransmits"],
            parity=moved["parity"],
            recovered=moved["recovered"],
            repairs=sum(isinstance(event, ChainBroken) for _, _, event in swarm.answers),
            noticed=self._noticed(),
            paused=self._paused(),
            trace_hash=network.trace_hash(),
            traffic_hash=self._traffic.hexdigest(),
        )

    def _request(self) -> GenerationRequest:
        length = self._question.prompt_tokens
        prompt = tuple(range(_FIRST_PROMPT_TOKEN, _FIRST_PROMPT_TOKEN + length))
        # No token ends the answer: every run is equally long.
        return GenerationRequest(prompt, self._question.tokens, Sampling(), frozenset(), wait=30.0)

    # Watching

    def _on_token(self, name: str, token: TokenProduced) -> None:
        self._shown.append(self._network.now)
        if len(self._shown) == self._question.warm_up:
            self._begun = self._read()
        trouble = self._run.trouble
        if trouble is None:
            return
        self._read_transport()  # connections end with their counters
        if len(self._shown) == self._run.after:
            if trouble.delay:
                self._network.after(trouble.delay, lambda now: self._strike())
            else:
                self._strike()

    def _read(self) -> _Reading:
        self._read_transport()
        seen = self._network.statistics()
        transport: Counter[str] = Counter()
        for counts in self._connections.values():
            transport.update(counts)
        octets = sum(seen.bytes_sent.values())
        return _Reading(self._network.now, seen.sent, octets, transport)

    def _read_transport(self) -> None:
        for name, node in self._swarm.nodes.items():
            for view in node.endpoint.snapshot(self._network.now).connections:
                began = round((self._network.now - view.age) * 1e6)
                self._connections[name, view.peer, began] = Counter(
                    retransmits=view.retransmits,
                    parity=view.parity_sent,
                    recovered=view.recovered,
                )

    # Trouble

    def _strike(self) -> None:
        self._struck_at = self._network.now
        trouble = self._run.trouble
        if isinstance(trouble, Kill):
            self._swarm.kill(self._victim(trouble))
        elif isinstance(trouble, Resting):
            self._rest(self._victim(trouble), trouble.seconds)
        elif trouble is not None:
            one, other = ([self._swarm.address(name) for name in side] for side in trouble.sides)
            self._network.partition(one, other, one_way=trouble.one_way)
            self._network.after(trouble.seconds, lambda now: self._network.heal())

    def _rest(self, name: str, seconds: float) -> None:
        busy = Rest(RestCause.CPU, "the owner uses the CPU")
        self._swarm.call(name, lambda node, now: node.rest(busy, now))
        over = partial(self._swarm.call, name, lambda node, now: node.rest(None, now))
        self._network.after(seconds, lambda now: over())

    def _victim(self, trouble: Kill | Resting) -> str:
        generation = self._swarm.nodes[self._names[0]].inference.generations()[0]
        chain = {leg.run.name for leg in generation.legs}
        return next((name for name in trouble.nodes if name in chain), trouble.nodes[0])

    # What came of it

    def _failure(self) -> str:
        for _, _, event in self._swarm.answers:
            if isinstance(event, GenerationFailed):
                return event.reason
            if isinstance(event, GenerationFinished):
                return ""
        return f"unfinished after {self._question.seconds:g} s"

    def _noticed(self) -> float | None:
        struck = self._struck_at
        if struck is None:
            return None
        moments = (
            moment
            for moment, _, event in self._swarm.answers
            if isinstance(event, ChainBroken) and moment >= struck
        )
        return next((moment - struck for moment in moments), None)

    def _paused(self) -> float | None:
        struck = self._struck_at
        if struck is None:
            return None
        later = [moment for moment in self._shown if moment > struck]
        return max((two - one for one, two in pairwise([struck, *later])), default=None)
