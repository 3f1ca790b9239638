"""Which engine runs which file."""

from pathlib import Path

from p2pnode.engine.base import Engine
from p2pnode.engine.hash_tree import HashTree
from p2pnode.engine.numpy.engine import DEFAULT_KV_BUDGET, NumpyEngine
from p2pnode.engine.numpy.weights import Progress
from p2pnode.errors import ModelError


def load_engine(
    path: Path,
    layers: range,
    *,
    kv_budget_bytes: int = DEFAULT_KV_BUDGET,
    blas_threads: int = 1,
    progress: Progress | None = None,
    tree: HashTree | None = None,
) -> Engine:
    """Load ``layers`` of the model at ``path`` into the engine that can run it.

    Args:
        path: A GGUF file of the llama architecture.
        layers: Which layers to hold.
        kv_budget_bytes: The most memory all sessions' KV caches may take.
        blas_threads: How many threads BLAS may use, in this whole process.
        progress: Hears which part from 0 to 1 is loaded.
        tree: What the file must hold: every tensor that is read is checked. Left out, the whole
            file is hashed first.

    Raises:
        ModelError: No engine can run the file.
        ModelChangedError: It does not hold what ``tree`` says.
    """
    if path.suffix.lower() != ".gguf":
        raise ModelError(
            f"{path.name} is not a GGUF file",
            hint="Give the path of a .gguf file of a llama model.",
        )
    return NumpyEngine.load(
        path,
        layers,
        kv_budget_bytes=kv_budget_bytes,
        blas_threads=blas_threads,
        progress=progress,
        tree=tree,
    )
