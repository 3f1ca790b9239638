"""Loads a run of layers into the engine that computes with PyTorch; imports torch only then."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.checkpoint_tree import CheckpointTree
from p2pnode.engine.gguf import info_of, read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree
from p2pnode.engine.torch.finding import DTYPES, Place, find_place, require_torch
from p2pnode.errors import ModelError

if TYPE_CHECKING:
    from p2pnode.engine.torch.build import Source
    from p2pnode.engine.torch.engine import TorchEngine, TorchWeights

_HEAD_LAYERS: Final = 2
"""What the head counts in the progress, in layers (a guess)."""


def load_torch(
    path: Path,
    layers: range,
    tree: HashTree | CheckpointTree,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    kv_budget_bytes: int,
    progress: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> "TorchEngine":
    """Load ``layers`` of a GGUF file, or of a checkpoint of Hugging Face's.

    Args:
        path: The file, or the checkpoint's folder.
        layers: Which layers to hold.
        tree: What is there (:mod:`p2pnode.engine.hash_tree`, or for a folder
            :mod:`p2pnode.engine.checkpoint_tree`): every tensor that is read is checked.
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
    from p2pnode.engine.torch.checkpoint_source import CheckpointSource
    from p2pnode.engine.torch.gguf_source import GgufSource

    place = find_place(device, dtype, threads)
    with ExitStack() as opened:
        source: Source
        if isinstance(tree, CheckpointTree):
            checkpoint = opened.enter_context(Checkpoint(path))
            tree.check_metadata(checkpoint)
            source, info = CheckpointSource(checkpoint, tree), checkpoint.info(tree.root)
        else:
            file = opened.enter_context(GgufFile(path, tree.check))
            tree.check_metadata(file)
            config = read_config(file)
            source, info = GgufSource(file, config), info_of(file, config, tree.root)
        count = source.config.n_layers
        if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= count):
            raise ModelError(f"{path.name} has layers 0:{count}, not {layers.start}:{layers.stop}")
        weights = _read_weights(source, layers, place, progress or (lambda _: None))
    from p2pnode.engine.torch.engine import TorchEngine

    return TorchEngine(info, source.config, layers, weights, place, kv_budget_bytes=kv_budget_bytes)


def _read_weights(
    source: "Source", layers: range, place: Place, done: Callable[[float], None]
) -> "TorchWeights":
    import torch

    from p2pnode.engine.torch.build import LayerMaker, empty_modules, fill
    from p2pnode.engine.torch.engine import TorchWeights
    from p2pnode.engine.torch.trouble import device_errors

    config = source.config
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
    done(1.0)
    return TorchWeights(
        layers=tuple(made),
        embedding=embedding,
        embedding_scale=config.d_model**0.5 if config.architecture.scales_embedding else 1.0,
        norm=norm,
        head=head,
    )
