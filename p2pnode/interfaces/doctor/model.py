"""The model: whether it is here and whole, and how much of it this machine has memory for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pnode.engine.held import bytes_per_weight
from p2pnode.engine.registry import EngineOptions, engine_for
from p2pnode.errors import ModelError
from p2pnode.interfaces.doctor.findings import Finding, mib
from p2pnode.node import model_cache, models
from p2pnode.node.capacity import SPARE, capacity_in
from p2pnode.node.free_memory import free_memory
from p2pnode.node.machine_memory import free_here, memory_now
from p2pnode.node.model_facts import facts_of

LEAST_CONTEXT = 256
"""Tokens: a KV memory that holds fewer serves no whole question and answer."""

_FLOAT, _HALF = 4, 2  # bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model's layers take.

    Attributes:
        name: The model's.
        n_layers: Layers it has.
        layer_bytes: Memory of one layer's weights, as the engine holds them.
        head_bytes: Memory of the output matrix, which goes with the last layer.
        kv_bytes_per_token_layer: KV cache of one token in one layer.
        peers: How many machines with so much free memory hold all of it; None where none can.
    """

    name: str
    n_layers: int
    layer_bytes: int
    head_bytes: int
    kv_bytes_per_token_layer: int
    peers: int | None = None


def find_model(name: str) -> Path:
    """Return a model's file.

    Raises:
        ModelError: It is not here, or broken.
    """
    return models.resolve(name)


def check_model(name: str) -> Iterator[Finding]:
    """Say whether the model can be loaded."""
    if name == "none":
        yield Finding("model", "ok", "none, as asked: such a node computes for nobody")
        return
    if model_cache.is_missing(name):
        hint = f"p2pnode models pull {name}   (p2pnode up does it too)"
        yield Finding("model", "warn", f"{name} is not on this machine yet", hint)
        return
    info = models.describe_model(find_model(name))
    what = f"{info.name} is here and whole: {info.n_layers} layers, context {info.context_length}"
    yield Finding("model", "ok", what)
    yield from check_calibration(info.space_hash32)


def check_calibration(space_hash32: int) -> Iterator[Finding]:
    """Say so where what was measured of the model's hidden states is broken.

    A node then goes without it, with a word only in its log, and sends more bytes than it need.
    """
    try:
        models.state_calibrations(space_hash32)
    except ModelError as error:
        yield Finding("model", "warn", str(error), error.hint)


def check_memory(name: str, kv_bytes: int, *, is_loaded: bool) -> Iterator[Finding]:
    """Say how many layers fit; ``is_loaded`` where a node holds its share already."""
    free = free_memory()
    try:
        path = find_model(name)
        free = free_here(path)
        demand = demand_of(path, free=free - kv_bytes)
    except ModelError:  # there is none, or it was said under "model"
        yield Finding("memory", "ok", f"{mib(free)} free")
        return
    yield report_memory(free, demand, kv_bytes, is_loaded=is_loaded)
    yield report_kv(kv_bytes, demand)


def report_memory(free: int, demand: Demand, kv_bytes: int, *, is_loaded: bool) -> Finding:
    """Say how many layers the free memory holds beside the KV caches."""
    fit = layers_that_fit(free, demand, kv_bytes)
    known = f"{mib(free)} free"
    if is_loaded:
        return Finding("memory", "ok", f"{known}, beside the running node")
    need = f"a layer of {demand.name} takes {mib(demand.layer_bytes)}"
    if fit == demand.n_layers:
        return Finding("memory", "ok", f"{known}: all {fit} layers fit")
    if fit:
        many = f": {demand.peers} such machines hold all of it" if demand.peers else ""
        advice = f"p2pnode up --max-layers {fit}, and peers for the rest{many}"
        return Finding("memory", "warn", f"{known}: {fit} of {demand.n_layers} layers fit", advice)
    advice = "close programs, lower --kv-memory, or join without layers: p2pnode up --layers none"
    return Finding("memory", "fail", f"{known}, and {need}: none fits", advice)


def report_kv(kv_bytes: int, demand: Demand) -> Finding:
    """Say how long a conversation the KV memory holds."""
    tokens = kv_bytes // max(1, demand.kv_bytes_per_token_layer * demand.n_layers)
    what = f"KV memory of {mib(kv_bytes)} holds {tokens} tokens in all {demand.n_layers} layers"
    if tokens >= LEAST_CONTEXT:
        return Finding("kv memory", "ok", what)
    return Finding("kv memory", "warn", what, "give more: p2pnode up --kv-memory 512")


def layers_that_fit(free: int, demand: Demand, kv_bytes: int) -> int:
    """Return how many layers fit, the last one and its head included only if all do."""
    sizes = [demand.layer_bytes] * demand.n_layers
    return capacity_in(sizes, demand.head_bytes, free - kv_bytes - SPARE).layers


def demand_of(path: Path, engine: str = "", *, free: int = 0) -> Demand:
    """Add up what a file's tensors take in memory.

    Args:
        path: The model.
        engine: Which one holds them; left out, the one that would run it here.
        free: Bytes of memory for weights, of each machine like this one.

    Raises:
        ModelError: It cannot be read.
    """
    info, facts = models.describe_model(path), facts_of(path)
    options = EngineOptions(cache=model_cache.cache_dir())
    engine = engine or engine_for(path, options)
    per_weight = bytes_per_weight(engine, options)
    if engine == "ggml":
        facts = facts.beside(memory_now(engine, options).gpu)
    layers, rest = facts.held(per_weight)
    of_float = info.kv_bytes_per_token_layer
    return Demand(
        name=info.name,
        n_layers=info.n_layers,
        layer_bytes=max(layers),
        head_bytes=rest,
        kv_bytes_per_token_layer=of_float * (per_weight or _HALF) // _FLOAT,
        peers=facts.peers_needed(free, per_weight) if free > 0 else None,
    )
