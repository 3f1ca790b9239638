"""Loads a run of layers into the engine that computes with PyTorch; imports torch only then."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.gguf import info_of, read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree
from p2pnode.engine.torch.finding import DTYPES, find_place, require_torch
from p2pnode.errors import ModelError

if TYPE_CHECKING:
    from p2pnode.engine.torch.build import Source
    from p2pnode.engine.torch.engine import TorchEngine

_HEAD_LAYERS: Final = 2
"""What the head counts in the progress, in layers (a guess)."""


def load_torch(
    path: Path,
    layers: range,
    tree: HashTree,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    kv_budget_bytes: int,
    progress: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> "TorchEngine":
    """Load ``layers`` of a GGUF file.

    Args:
        path: The file.
        layers: Which layers to hold.
        tree: What the file must hold: every tensor that is read is checked.
        device: ``auto``, ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.
        dtype: ``auto``, ``bf16``, ``f16`` or ``f32``: what is computed and cached in.
        threads: Of the CPU; None leaves torch's choice.
        kv_budget_bytes: The most memory that all sessions' KV caches may take.
        progress: Hears which part from 0 to 1 is loaded.
        say: Hears in words what takes long.

    Raises:
        ModelError: The model cannot be run, or has no such layers.
        ModelChangedError: It does not hold what ``tree`` says.
        CapacityError: There is not enough memory.
        EngineError: torch is not there, or has no such device, or the device fails.
    """
    require_torch(say)
    from p2pnode.engine.torch.gguf_source import GgufSource

    with GgufFile(path, tree.check) as file:
        tree.check_metadata(file)
        config = read_config(file)
        source = GgufSource(file, config)
        info = info_of(file, config, tree)
        return _load(
            source, info, path.name, layers, device, dtype, threads, kv_budget_bytes, progress
        )


def _load(
    source: "Source",
    info: ModelInfo,
    name: str,
    layers: range,
    device: str,
    dtype: str,
    threads: int | None,
    kv_budget_bytes: int,
    progress: Callable[[float], None] | None,
) -> "TorchEngine":
    import torch

    from p2pnode.engine.torch.build import LayerMaker, empty_modules, fill
    from p2pnode.engine.torch.engine import TorchEngine, TorchWeights
    from p2pnode.engine.torch.trouble import device_errors

    config, done = source.config, progress or (lambda _: None)
    if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= config.n_layers):
        raise ModelError(f"{name} has layers 0:{config.n_layers}, not {layers.start}:{layers.stop}")
    place = find_place(device, dtype, threads)
    kind = getattr(torch, DTYPES[place.dtype])
    is_first, is_last = layers.start == 0, layers.stop == config.n_layers
    total = len(layers) + _HEAD_LAYERS
    empty = empty_modules(source.settings, layers, kind)
    maker = LayerMaker(source, kind, place.device)
    made = []
    for number, index in enumerate(layers):
        done(number / total)
        with device_errors(place.device, f"load layer {index}"):
            made.append(maker.layer(index, empty.layers[number]))
    done(len(layers) / total)
    embedding = head = norm = None
    with device_errors(place.device, "load the embedding and the output matrix"):
        if is_first:
            embedding = source.embedding().to(kind, copy=True)
        if is_last:
            norm = fill(empty.norm, {"weight": source.norm()}, kind, place.device)
            matrix = source.head() if embedding is None or not config.is_tied else embedding
            head = matrix.to(place.device, kind, copy=matrix is not embedding)
    weights = TorchWeights(
        layers=tuple(made),
        embedding=embedding,
        embedding_scale=config.d_model**0.5 if config.architecture.scales_embedding else 1.0,
        norm=norm,
        head=head,
    )
    done(1.0)
    return TorchEngine(info, config, layers, weights, place, kv_budget_bytes=kv_budget_bytes)
