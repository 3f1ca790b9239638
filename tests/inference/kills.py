"""Chains of real engines, one stage of which is killed; what they say and send is kept.

The files are tiny and their weights random, but the engines are those that nodes load, and the
inference cores those that nodes run, on virtual time. Engines are loaded once and used by many
networks, as those of a node are by many sessions.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from p2pnode.engine.base import Engine, SessionKey
from p2pnode.engine.ggml.binding import load
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.solo import answer_alone
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import ChainRepaired, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Keep, Work, WorkResult, forwards_of
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.wire.vframe import Frame, MessageType

N_LAYERS: Final = 3
WHOLE: Final = range(N_LAYERS)
TOKENS: Final = 6
STAGES: Final = ("first", "middle", "last")
WARM: Final = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=7)
CONFIG: Final = InferenceConfig()  # batches of 64 rows, as chains have

PROMPTS: Final[Mapping[str, tuple[int, ...]]] = {
    name: tuple(3 + 7 * index % 250 for index in range(length))
    for name, length in (("below 512", 20), ("across 512", 509), ("above 512", 530))
}
"""With that across 512, the fourth token is the first to be drawn from more than 512 positions."""

BESIDE: Final = tuple(3 + 11 * index % 250 for index in range(70))
"""What another session asks of the same stages at the same time."""

ASKER: Final = node_id("asker")
_KV_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """What computes: an engine by its name, and how many threads it has."""

    engine: str = "ggml"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Loss:
    """A stage that dies: after a token of the answer, or as a batch of the prompt is sent to it.

    Attributes:
        stage: One of :data:`STAGES`.
        token: After which token, from 0.
        batch: Or as which of the batches it is sent arrives, from 1.
        lost: What it computes with; None for what all do.
        found: What its successor computes with; None for what all do.
    """

    stage: str
    token: int | None = None
    batch: int | None = None
    lost: Machine | None = None
    found: Machine | None = None


@dataclass(slots=True)
class Told:
    """What one run came to.

    Attributes:
        tokens: Of the answer.
        beside: Of the other session, if there was one.
        sent: What entered each run of layers, by its first layer and the frame's position; each
            thing once, however often it was sent. Of no use where two sessions are mixed in it.
        repairs: How often a stage was replaced.
    """

    tokens: list[int] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)
    sent: dict[tuple[int, int], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    repairs: int = 0


def check(model: str, machine: Machine, prompt: str, loss: Loss, *, beside: bool = False) -> None:
    """Lose a stage, and compare with what the calm chain says and sends, and with one engine."""
    skip_without(machine)
    asked = PROMPTS[prompt]
    told = answer(model, machine, asked, loss=loss, beside=beside)
    calm = undisturbed(model, machine, asked)
    assert told.repairs >= 1
    assert len(told.tokens) == TOKENS
    assert told.tokens == calm.tokens == alone(model, machine, asked)
    if beside:
        assert told.beside == alone(model, machine, BESIDE)
    else:
        assert told.sent == calm.sent


def skip_without(machine: Machine) -> None:
    if machine.engine == "ggml" and find_library(_folder()).chosen is None:
        pytest.skip("ggml: no library of it loads here")


def answer(
    model: str,
    machine: Machine,
    prompt: tuple[int, ...],
    *,
    loss: Loss | None = None,
    beside: bool = False,
) -> Told:
    """Answer over three stages on like machines.

    Args:
        model: One of :data:`MODELS`.
        machine: Of the stages.
        prompt: What is asked.
        loss: What happens; None for an undisturbed run.
        beside: Whether another session asks the same stages meanwhile.
    """
    engines = engines_of(model, machine, loss)
    network = FrameNetwork(1, engines, CONFIG)
    told, used = Told(), defaultdict[NodeId, set[SessionKey]](set)
    network.behaviours = {peer: _noting(used[peer]) for peer in engines}
    numbers: list[int] = []
    sent = 0

    def hear(event: TokenProduced) -> None:
        if loss and event.generation == numbers[0] and event.position - len(prompt) == loss.token:
            network.kill(node_id(loss.stage))

    def see(frame: Frame, destination: NodeId) -> None:
        nonlocal sent
        if frame.type is not MessageType.THINK:
            return
        at = -1 if destination == ASKER else network.roster.holders[destination].start
        told.sent[at, frame.frame_seq].add(bytes(frame.slices[0].payload))
        if loss and destination == node_id(loss.stage):
            sent += 1
            if sent == loss.batch:
                network.kill(destination)

    network.on_token, network.on_frame = hear, see
    numbers += [
        network.generate(ASKER, GenerationRequest(asked, TOKENS, WARM, frozenset()))
        for asked in ((prompt, BESIDE) if beside else (prompt,))
    ]
    network.run(seconds=60)
    told.tokens, *others = (network.tokens(ASKER, number) for number in numbers)
    told.beside = others[0] if others else []
    told.repairs = sum(isinstance(event, ChainRepaired) for _, _, event in network.events)
    for peer, sessions in used.items():
        for session in sessions:
            engines[peer].close(session)
    return told


@cache
def undisturbed(model: str, machine: Machine, prompt: tuple[int, ...]) -> Told:
    """Return what a chain says and sends that loses nobody, and has nobody beside it."""
    return answer(model, machine, prompt)


@cache
def alone(model: str, machine: Machine, prompt: tuple[int, ...]) -> list[int]:
    """Return the tokens of one engine that holds every layer."""
    options = EngineOptions(machine.engine, "cpu", machine.threads, _folder())
    engine = load_engine(_file(model), WHOLE, options, kv_budget_bytes=_KV_BYTES)
    said = answer_alone(
        engine, prompt, TOKENS, sampling=WARM, chunk=CONFIG.prefill_chunk, clock=lambda: 0.0
    )
    return list(said.token_ids)


MODELS: Final[Mapping[str, tuple[str, int]]] = {
    "grouped heads": ("Q4_1", 2),
    "plain heads": ("Q8_0", 4),
}
"""The type of its matrices, and its key and value heads for four query heads."""

K_TYPE: Final = "K type"
"""Where its products are rearranged, four rows and more are added up in another order than one;
numpy reads it, but the file takes ggml to make."""


def engines_of(model: str, machine: Machine, loss: Loss | None = None) -> dict[NodeId, Engine]:
    """Return the engines of three stages, of who may take each one's place, and of who asks."""
    engines = {}
    for index, name in enumerate(STAGES):
        lost = loss.lost if loss and loss.lost and loss.stage == name else machine
        engines[node_id(name)] = _engine(model, lost, index)
    for index, name in enumerate(STAGES):
        found = loss.found if loss and loss.found else machine
        engines[node_id(f"other {name}")] = _engine(model, found, index, spare=True)
    engines[ASKER] = engines[node_id("other last")]
    return engines


def _noting(
    sessions: set[SessionKey],
) -> Callable[[Work, WorkResult], tuple[float, WorkResult] | None]:
    def note(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        sessions.update(caches_of(work))
        return 0.0, result

    return note


def caches_of(work: Work) -> set[SessionKey]:
    """Return the caches that ``work`` leaves in an engine, to be closed after a test."""
    kept = {work.kept} if isinstance(work, Keep) else set[SessionKey]()
    return kept | {part.session for part in forwards_of(work)}


@cache
def _engine(model: str, machine: Machine, index: int, *, spare: bool = False) -> Engine:
    """Return an engine of one stage; a spare one has memory of its own."""
    del spare
    options = EngineOptions(machine.engine, "cpu", machine.threads, _folder())
    layers = range(index, index + 1)
    return load_engine(_file(model), layers, options, kv_budget_bytes=_KV_BYTES)


@cache
def _file(model: str) -> Path:
    path = _folder() / f"{model}.gguf"
    tensor_type, n_kv_heads = MODELS.get(model, ("Q4_K", 2))
    write_tiny_gguf(
        path,
        tensor_type=tensor_type,
        seed=3,
        n_layers=N_LAYERS,
        d_model=256 if model == K_TYPE else 64,
        n_kv_heads=n_kv_heads,
        context_length=1024,
        quantize=_by_ggml if model == K_TYPE else None,
    )
    return path


def _by_ggml(weight: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[np.uint8]:
    chosen = find_library(_folder()).chosen
    assert chosen is not None
    ggml, (rows, width) = load(chosen.provider, gpus=False), weight.shape
    stored = np.zeros((rows, ggml.row_size(int(kind), width)), np.uint8)
    source, target = weight.ctypes.data, stored.ctypes.data
    ggml.quantize_chunk(int(kind), source, target, 0, rows, width, None)
    return stored


@cache
def _kept() -> "TemporaryDirectory[str]":
    return TemporaryDirectory()


def _folder() -> Path:
    return Path(_kept().name)
