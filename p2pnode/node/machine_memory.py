"""How many of a model's layers this machine has memory for, now."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from p2pnode.engine.ggml.placing import SPARED
from p2pnode.engine.held import bytes_per_weight, gpu_memory
from p2pnode.engine.registry import EngineOptions, engine_for
from p2pnode.errors import CapacityError
from p2pnode.node.capacity import SPARE, Capacity, capacity_in, megabytes
from p2pnode.node.free_memory import free_memory, total_memory
from p2pnode.node.model_cache import cache_dir
from p2pnode.node.model_facts import ModelFacts, facts_of

_FLOAT: Final = 4  # bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """What a machine has, in bytes.

    Attributes:
        free: Of the main memory now; a file's pages that may be dropped count as free.
        total: Of the main memory.
        gpu: Free on the GPU that would compute, but for what is left to its driver; 0 without one.
    """

    free: int
    total: int
    gpu: int = 0

    def within(self, most: int | None) -> "Memory":
        """Return it where ``most`` bytes of the main memory may be taken; None for all."""
        if most is None:
            return self
        return replace(self, free=min(self.free, most + SPARE), total=min(self.total, most))


def capacity_of(
    path: Path,
    options: EngineOptions,
    kv_bytes: int,
    *,
    memory: Memory | None = None,
    most: int | None = None,
) -> Capacity:
    """Read a model's header and say how much of it fits; nothing is loaded.

    Args:
        path: The model.
        options: What is to compute, which decides how weights are held.
        kv_bytes: Memory that is to be offered for KV caches.
        memory: What there is; looked up if left out.
        most: The most bytes of the main memory for weights and KV caches; None for all.

    Raises:
        ModelError: The file cannot be read, or run.
        EngineError: The engine or the device that was asked for is not there.
    """
    engine = engine_for(path, options)
    there = (memory or memory_now(engine, options)).within(most)
    facts = facts_of(path, with_words=False)
    return fitting(facts, engine, kv_bytes, there, bytes_per_weight(engine, options))


def fitting(
    facts: ModelFacts, engine: str, kv_bytes: int, memory: Memory, per_weight: int | None = None
) -> Capacity:
    """Return what fits of a model; ``per_weight`` left out is what the engine takes on a CPU."""
    if per_weight is None:
        per_weight = bytes_per_weight(engine, EngineOptions(device="cpu"))
    held = facts.beside(memory.gpu).held(per_weight)
    return capacity_in(*held, room_for(engine, kv_bytes, memory))


def room_for(engine: str, kv_bytes: int, memory: Memory) -> int:
    """Return the bytes that are free for weights beside the KV caches.

    ggml gives the CPU what a GPU has no room for; torch and jax compute on one device alone.
    """
    gpu = 0 if engine == "numpy" else memory.gpu
    if gpu and engine != "ggml":
        return max(0, gpu - kv_bytes)
    return max(0, memory.free - SPARE - kv_bytes) + gpu


def refuse_impossible(
    path: Path, layers: range, options: EngineOptions, *, memory: Memory | None = None
) -> None:
    """Refuse layers that no memory of this machine can hold, however much of it were free.

    Mapped weights are read from the file again and again, slowly, where they do not fit; those that
    are expanded take the machine down.

    Raises:
        CapacityError: They are beyond it.
        EngineError: As :func:`capacity_of`.
    """
    engine = engine_for(path, options)
    per_weight = bytes_per_weight(engine, options)
    there = memory or memory_now(engine, options)
    if not per_weight or (there.gpu and engine != "numpy"):
        return  # mapped, or a GPU that says itself where it has too little
    sizes, _ = facts_of(path, with_words=False).held(per_weight)
    needed = sum(sizes[layers.start : layers.stop])
    if needed > there.total:
        held_as = "float32" if per_weight == _FLOAT else "16-bit floats"
        raise CapacityError(
            f"layers {layers.start}:{layers.stop} take {megabytes(needed)} as {held_as}, "
            f"this machine has {megabytes(there.total)}",
            hint="Hold fewer, or use the ggml engine: p2pnode doctor says what it lacks here.",
        )


def refuse_beyond(
    path: Path,
    layers: range,
    options: EngineOptions,
    kv_bytes: int,
    most: int,
    *,
    memory: Memory | None = None,
    taken: int = 0,
) -> None:
    """Refuse layers that take more than their owner lets a node have, however much is free.

    Args:
        path: The model.
        layers: Those that were chosen.
        options: What is to compute.
        kv_bytes: Of ``most``, what is offered for KV caches and retained batches.
        most: The most bytes of the main memory.
        memory: What there is; looked up if left out.
        taken: Bytes that the weights of other models take.

    Raises:
        CapacityError: They do.
        EngineError: As :func:`capacity_of`.
    """
    engine = engine_for(path, options)
    there = memory or memory_now(engine, options)
    facts = facts_of(path, with_words=False).beside(there.gpu)
    sizes, end = facts.held(bytes_per_weight(engine, options))
    needed = sum(sizes[layers.start : layers.stop]) + end * (layers.stop == len(sizes))
    room = max(0, room_for(engine, kv_bytes, replace(there, free=most + SPARE)) - taken)
    others = f", {megabytes(taken)} for other models" if taken else ""
    if needed > room:
        raise CapacityError(
            f"layers {layers.start}:{layers.stop} take {megabytes(needed)}; of the "
            f"{megabytes(most)} that this node may take, {megabytes(room)} are for weights, "
            f"{megabytes(kv_bytes)} for KV caches{others}",
            hint="Hold fewer layers, or allow more: --max-memory, --kv-memory.",
        )


def memory_now(engine: str, options: EngineOptions) -> Memory:
    """Look up what this machine has for an engine.

    Raises:
        EngineError: The engine or the device that was asked for is not there.
    """
    gpu = max(0, gpu_memory(engine, options) - SPARED)
    gpu = gpu if options.max_vram is None else min(gpu, options.max_vram)
    return Memory(free_memory(), total_memory(), gpu)


def free_here(path: Path) -> int:
    """Return the free bytes that count where ``p2pnode up`` loads a model, with those to spare.

    A GPU's beside the main memory's, or alone: as :func:`room_for` has it.

    Raises:
        ModelError: The file cannot be read, or run.
        EngineError: No engine here runs it.
    """
    options = EngineOptions(cache=cache_dir())
    engine = engine_for(path, options)
    there = memory_now(engine, options)
    return room_for(engine, 0, there) + SPARE if there.gpu else there.free


def gpu_here(path: Path) -> int:
    """Return what is free on the GPU where ``p2pnode up`` loads a model; 0 without one.

    Raises:
        ModelError: The file cannot be read, or run.
        EngineError: No engine here runs it.
    """
    options = EngineOptions(cache=cache_dir())
    return memory_now(engine_for(path, options), options).gpu


def per_weight_here(path: Path) -> int:
    """Return the bytes of each weight where ``p2pnode up`` loads a model; 0 for as stored.

    Raises:
        ModelError: The file cannot be read, or run.
        EngineError: No engine here runs it.
    """
    options = EngineOptions(cache=cache_dir())
    return bytes_per_weight(engine_for(path, options), options)
