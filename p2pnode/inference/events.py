"""What a generation and its stages tell the node."""

from typing import TypeAlias

from p2pnode.engine.sampling.logprobs import Logprobs
from p2pnode.inference.cover import CoverTask
from p2pnode.inference.work import Work
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, StageRun
from p2pnode.values import value
from p2pnode.wire.vframe import Frame


@value
class SendFrame:
    """``frame`` is to go to ``peer``, which may be this very node.

    ``is_replay`` where it was sent before, to somebody else: what is new leaves first.
    """

    peer: NodeId
    frame: Frame
    is_replay: bool = False


@value
class ComputeRequested:
    """The engine of the model of ``space`` is to do ``work`` and answer with ``job``."""

    job: int
    work: Work
    space: int


@value
class PlanRequested:
    """``task`` is to be called, which may take long, and its result to be given back.

    Attributes:
        generation: Whose plan it is.
        ticket: Names the question; a result of an older one is of no more use.
        task: A pure function, safe in a thread.
    """

    generation: int
    ticket: int
    task: CoverTask


@value
class GenerationPlanned:
    """The chain is open and the prompt is on its way; states travel as ``activations``.

    ``reused`` positions of it are computed already.
    """

    generation: int
    plan: ChainPlan
    activations: str = "f32"
    reused: int = 0


@value
class TokenProduced:
    """One more token of the answer.

    Attributes:
        generation: Whose.
        token: Its id.
        position: Where it stands, counted from the prompt's first token.
        round_trip: Seconds from sending its predecessor (or the prompt) to its arrival.
        compute: Seconds of that the stages' engines took, together.
        hops: Edges between different nodes it went over.
        kl: Nats that the codings of hidden states cost it, by their senders' estimates.
        codings: Mask of the codings the answer's states were sent as so far; 0 where nothing was
            coded.
        logprobs: How likely it was, by the model; None where nobody asked.
        mean: Of all hidden states before it, float32 [d_model], little-endian; empty where nobody
            asked. Then the token says nothing.
    """

    generation: int
    token: int
    position: int
    round_trip: float
    compute: float
    hops: int
    kl: float = 0.0
    codings: int = 0
    logprobs: Logprobs | None = None
    mean: bytes = b""


@value
class ChainBroken:
    """A stage was lost; the generation is being repaired, the answer so far stands.

    Attributes:
        generation: Whose.
        epoch: The chain that broke.
        peers: Who was lost.
        reason: Why.
        names: What those are called, in the same order.
        layers: What each of them ran.
        seconds: For how long others are looked for, at most.
    """

    generation: int
    epoch: int
    peers: tuple[NodeId, ...]
    reason: str
    names: tuple[str, ...] = ()
    layers: tuple[range, ...] = ()
    seconds: float = 0.0


@value
class LayersAwaited:
    """Nobody to be asked serves ``layers``: the answer waits for ``seconds`` at most.

    Attributes:
        generation: Whose.
        layers: What is missing.
        seconds: How long it waits.
        reasons: Why those who might serve them do not count.
    """

    generation: int
    layers: tuple[range, ...]
    seconds: float
    reasons: tuple[str, ...] = ()


@value
class ChainRepaired:
    """The answer goes on over ``stages``, ``seconds`` after the loss was noticed.

    Attributes:
        generation: Whose.
        epoch: The chain that goes on.
        stages: All of it.
        seconds: How long it took.
        instead: Those that took over what was lost.
        changed: Why the answer is no longer bit-reproducible; empty while it is.
    """

    generation: int
    epoch: int
    stages: tuple[StageRun, ...]
    seconds: float
    instead: tuple[StageRun, ...] = ()
    changed: str = ""


@value
class GenerationFinished:
    """The answer is complete: ``reason`` is ``eos``, ``stop`` or ``length``; or ``cancelled``."""

    generation: int
    reason: str


@value
class GenerationFailed:
    """The answer cannot go on; all that its stages held was freed.

    Attributes:
        generation: Whose.
        reason: Why, for a person.
        hint: What the person can do; may be empty.
    """

    generation: int
    reason: str
    hint: str = ""


@value
class StageEnded:
    """A session that this node ran layers for is over.

    Attributes:
        requester: Whose it was.
        layers: What was run for it.
        positions: How many tokens went through, the prompt's included.
        seconds: From its admission to the last of them.
        reason: Why it ended; empty where its requester closed it.
    """

    requester: NodeId
    layers: range
    positions: int
    seconds: float
    reason: str = ""


@value
class SessionRefused:
    """A session was not admitted, or had to give way."""

    requester: NodeId
    layers: range
    reason: str


GenerationEvent: TypeAlias = (
    GenerationPlanned
    | TokenProduced
    | ChainBroken
    | LayersAwaited
    | ChainRepaired
    | GenerationFinished
    | GenerationFailed
)
HostEvent: TypeAlias = StageEnded | SessionRefused
InferenceEvent: TypeAlias = (
    SendFrame | ComputeRequested | PlanRequested | GenerationEvent | HostEvent
)
