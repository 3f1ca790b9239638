"""How many of a model's layers this machine has memory for, now."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.engine.ggml.constants import DeviceType
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.placing import SPARED
from p2pnode.engine.registry import EngineOptions, engine_for
from p2pnode.errors import CapacityError
from p2pnode.node.capacity import Capacity, megabytes
from p2pnode.node.free_memory import free_memory, total_memory
from p2pnode.node.model_facts import SPARE, ModelFacts, facts_of

_FLOAT: Final = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """What a machine has, in bytes.

    Attributes:
        free: Of the main memory now; a file's pages that may be dropped count as free.
        total: Of the main memory.
        gpu: Free on the GPU that would compute; 0 without one.
    """

    free: int
    total: int
    gpu: int = 0


def capacity_of(
    path: Path, options: EngineOptions, kv_bytes: int, *, memory: Memory | None = None
) -> Capacity:
    """Read a model's header and say how much of it fits; nothing is loaded.

    Args:
        path: The model.
        options: What is to compute: numpy expands weights to float32, others keep them as they are.
        kv_bytes: Memory that is to be offered for KV caches.
        memory: What there is; looked up if left out.

    Raises:
        ModelError: The file cannot be read, or run.
        EngineError: The engine that was asked for is not there.
    """
    there = memory or memory_now(options)
    engine = engine_for(path, options)
    return fitting(facts_of(path), engine, kv_bytes, there)


def fitting(facts: ModelFacts, engine: str, kv_bytes: int, memory: Memory) -> Capacity:
    """Return what fits of a model; the embedding and the head go before any layer."""
    gpu = 0 if engine == "numpy" else memory.gpu
    room = max(0, memory.free - SPARE - kv_bytes) + gpu
    layer_bytes, other = _as_held(facts, engine)
    left, count = room - other, 0
    for size in sorted(layer_bytes, reverse=True):  # any of them may be chosen
        if size > left:
            break
        left, count = left - size, count + 1
    if count < len(layer_bytes) and not count and layer_bytes:
        # A layer of the middle needs neither embedding nor head.
        count = int(max(layer_bytes) <= room)
    return Capacity(count, max(layer_bytes, default=0), room)


def refuse_impossible(
    path: Path, layers: range, options: EngineOptions, *, memory: Memory | None = None
) -> None:
    """Refuse layers that no memory of this machine can hold, however much of it were free.

    Mapped weights are read from the file again and again, slowly, where they do not fit; those that
    are expanded take the machine down.

    Raises:
        CapacityError: They are beyond it.
    """
    if engine_for(path, options) != "numpy":
        return
    there = memory or memory_now(options)
    sizes, _ = _as_held(facts_of(path), "numpy")
    needed = sum(sizes[layers.start : layers.stop])
    if needed > there.total:
        raise CapacityError(
            f"layers {layers.start}:{layers.stop} take {megabytes(needed)} as float32, "
            f"this machine has {megabytes(there.total)}",
            hint="Hold fewer, or use the ggml engine: p2pnode doctor says what it lacks here.",
        )


def memory_now(options: EngineOptions) -> Memory:
    """Look up what this machine has."""
    gpu = 0
    if options.engine != "numpy" and options.device != "cpu":
        chosen = find_library(options.cache).chosen
        devices = () if chosen is None or chosen.report is None else chosen.report.devices
        rooms = [
            max(0, device.free - SPARED)
            for device in devices
            if device.type == DeviceType.GPU and not device.faults
        ]
        gpu = rooms[0] if rooms else 0
    return Memory(free_memory(), total_memory(), gpu)


def _as_held(facts: ModelFacts, engine: str) -> tuple[tuple[int, ...], int]:
    """Return what each layer and the rest take in memory, expanded for numpy."""
    if engine != "numpy" or not facts.weights:
        return facts.layer_bytes, facts.other_bytes
    growth = _FLOAT * facts.numbers / facts.weights  # a mix of types is much the same everywhere
    return tuple(round(size * growth) for size in facts.layer_bytes), round(
        facts.other_bytes * growth
    )
