"""A simulation: who is there, what is asked, in which weather, and what goes wrong."""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.testing.hostile_member import Rekeying
from p2pnode.testing.links import Bernoulli, Link, Loss


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The random model: its size decides how large a Think is (2 bytes a channel, plus 70).

    Attributes:
        layers: How many.
        d_model: Channels; 576 make a Think of about 1.2 KB.
        heads: Attention heads; they divide ``d_model`` into even parts.
        kv_heads: Divides ``heads``.
        layer_seconds: Virtual time one layer takes for one token.
        kv_bytes: Memory that each node offers for KV caches.
    """

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    layer_seconds: float
    kv_bytes: int


@dataclass(frozen=True, slots=True)
class Question:
    """What the first node asks.

    Attributes:
        prompt_tokens: Length of the prompt.
        tokens: Length of the answer.
        warm_up: Tokens of it that no figure counts: loss must be measured before parity is sent.
        seconds: Virtual time after which a run is given up.
    """

    prompt_tokens: int
    tokens: int
    warm_up: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the swarm; the first one asks, the others call it."""

    name: str
    layers: range


@dataclass(frozen=True, slots=True)
class Weather:
    """Which datagrams every link loses, each way."""

    name: str
    loss: Loss


@dataclass(frozen=True, slots=True)
class Kill:
    """The first of ``nodes`` that the chain runs through is killed."""

    name: str
    nodes: tuple[str, ...]
    after: tuple[int, ...]
    delay: float


@dataclass(frozen=True, slots=True)
class Resting:
    """The first of ``nodes`` that the chain runs through steps back for its owner for a while."""

    name: str
    nodes: tuple[str, ...]
    after: tuple[int, ...]
    delay: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Partition:
    """Nothing passes between the two sides for ``seconds``; from side one only if ``one_way``."""

    name: str
    sides: tuple[tuple[str, ...], tuple[str, ...]]
    after: tuple[int, ...]
    delay: float
    seconds: float
    one_way: bool


Trouble: TypeAlias = Kill | Resting | Partition
"""It strikes ``delay`` seconds after the token numbered ``after`` (one run for each) is shown."""


@dataclass(frozen=True, slots=True)
class HostileMembers:
    """Members beside the nodes that each behave badly in a way of their own.

    With them a run is not one answer of the first node but ``answers`` and then ``further`` ones,
    one after another, asked by the nodes in turn.

    Attributes:
        members: How many.
        ways: What they may do, by the words of :data:`~p2pnode.testing.hostile.WAYS`; each run
            draws as many as there are members.
        rekeying: When they may take fresh keys; each member draws one.
        answers: Answers in which they may be believed.
        further: Answers after those, whose plans must hold none of them.
        pause: Virtual seconds between two answers.
    """

    members: int
    ways: tuple[str, ...]
    rekeying: tuple[Rekeying, ...]
    answers: int
    further: int
    pause: float


@dataclass(frozen=True, slots=True)
class Run:
    """One answer to simulate.

    Attributes:
        weather: In which weather.
        fec: Whether latency messages carry parity.
        trouble: What goes wrong, if anything.
        after: The token after which it does; 0 without trouble.
        seed: What all chance is drawn from.
    """

    weather: Weather
    fec: bool
    trouble: Trouble | None
    after: int
    seed: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything a simulation depends on.

    Attributes:
        name: The file's name without its ending.
        title: One line for people.
        seeds: One run for each, of everything.
        model: Of which the nodes hold layers.
        question: What is asked.
        members: The nodes.
        link: Every link, apart from its losses.
        weathers: One row of the report for each; so are the next two.
        fec: Parity on, off, or both.
        troubles: What goes wrong; empty for nothing.
        hostile: Who is hostile; None for nobody.
    """

    name: str
    title: str
    seeds: tuple[int, ...]
    model: ModelShape
    question: Question
    members: tuple[Member, ...]
    link: Link
    weathers: tuple[Weather, ...]
    fec: tuple[bool, ...]
    troubles: tuple[Trouble, ...]
    hostile: HostileMembers | None = None

    @property
    def undisturbed(self) -> Run:
        """The run whose tokens all others must equal: nothing is lost and nothing goes wrong."""
        return Run(Weather("undisturbed", Bernoulli()), True, None, 0, self.seeds[0])

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(
            Run(weather, fec, trouble, after, seed)
            for weather in self.weathers
            for fec in self.fec
            for trouble in self.troubles or (None,)
            for after in (trouble.after if trouble else (0,))
            for seed in self.seeds
        )
